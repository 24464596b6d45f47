"""Deleting a room with all that is in it, in steps that lock briefly."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import connections, transaction
from django.db.models.functions import Now

from ..events import MembersChanged, emit_on_commit
from ..models import ChatRoom, Membership, Mention, Message, MessageRevision, Notification, RoomCounter
from ..models.ids import may_be_id
from ..models.memberships import ACTIVE
from ..payloads.sizes import bytes_of_user, in_parts
from ..selectors import user_ref, username_field
from ..tenancy import TENANT_DATABASE, column_of, current_schema, table_of
from .memberships import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import UserRef

BATCH = 1_000
"""Messages that go in one transaction."""


def delete_room(*, room_id: int, seconds: float | None = None) -> bool:
    """Delete a room for ever: its messages, what belongs to them, its places; return whether it is gone.

    For the host's own code: no right is checked, and no face for members offers it. In one short transaction all
    members leave, so that their clients drop the room and nobody writes to it or comes back; the two of a direct
    conversation may begin another. Then the messages go in steps of 1,000, each committed by itself, the newest
    first: nobody else waits, in any room. With ``seconds`` the last step begins no later than that, and ``False`` is
    returned when some are left.

    Whatever interrupts it, call it again to go on; several at once, or a room that is gone, are no error. Inside
    another transaction all of it is committed, and told, with that one. ``members_changed`` is sent, Django's
    ``post_delete`` isn't. Raises ``Invalid`` for an id that is no whole number, ``IntegrityError`` while rows of the
    host's own tables refer to what is deleted.
    """
    if not may_be_id(room_id, "room_id"):
        return True
    ends = None if seconds is None else time.monotonic() + seconds
    while _let_members_leave(room_id):
        pass  # somebody may have added others until the first were locked
    while _lives(room_id):
        for _ in _message_batches(room_id):
            if ends is not None and time.monotonic() >= ends:
                return False
        _delete_empty(room_id)
    return True


def _let_members_leave(room_id: int) -> bool:
    """Let those who are in a room leave it, and nobody come back; say whether anybody was."""
    with transaction.atomic(using=TENANT_DATABASE):
        places = Membership.objects.filter(room_id=room_id)
        places.filter(left_by_choice=True).update(left_by_choice=False)
        members = _lock_members(room_id)
        for part in in_parts(members, lambda key: bytes_of_user(members[key]), MOST_BYTES):
            seq = RoomCounter.objects.advance(room_id)
            places.filter(pk__in=part).update(left_seq=seq, changed_seq=seq, left_at=Now(), role=Membership.Role.MEMBER)
            left = tuple(members[key] for key in part)
            emit_on_commit(MembersChanged(current_schema(), room_id, seq, seq - 1, (), left))
        # After the counter: who writes holds that one until the room's row is looked at, with the commit.
        ChatRoom.objects.set_aside(room_id)
    return bool(members)


def _lock_members(room_id: int) -> dict[int, UserRef]:
    rows = Membership.objects.filter(ACTIVE, room_id=room_id).order_by("pk").select_related("user")
    named = rows.only("room_id", f"user__{username_field()}")
    return {row.pk: user_ref(row.user) for row in named.select_for_update(of=("self",))}


def _lives(room_id: int) -> bool:
    return ChatRoom.objects.filter(pk=room_id).exists()


def _message_batches(room_id: int) -> Iterator[None]:
    """Delete a room's messages, yielding after each transaction but the last."""
    # Not from the end each time: until PostgreSQL tidies up, those that are deleted would all be passed again.
    below = None
    while True:
        with transaction.atomic(using=TENANT_DATABASE), connections[TENANT_DATABASE].cursor() as cursor:
            _lock_room(room_id)
            cursor.execute(_batch_statement(), {"room": room_id, "below": below, "batch": BATCH})
            number, below = cursor.fetchone()
        if number < BATCH:
            return
        yield


def _delete_empty(room_id: int) -> None:
    """Delete a room, unless somebody has written to it meanwhile."""
    with transaction.atomic(using=TENANT_DATABASE):
        _lock_room(room_id)
        # Waits for who writes, and lets nobody do so any more.
        list(RoomCounter.objects.filter(room_id=room_id).select_for_update())
        if Message.objects.filter(room_id=room_id).order_by("seq").values_list("pk")[:1]:
            return
        with connections[TENANT_DATABASE].cursor() as cursor:
            for model, field in ((Membership, "room"), (RoomCounter, "room"), (ChatRoom, "pk")):
                cursor.execute(f"DELETE FROM {table_of(model)} WHERE {column_of(model, field)} = %s", [room_id])


def _lock_room(room_id: int) -> None:
    """Keep others from deleting the same room, not from writing to it: what they hold is waited for later."""
    list(ChatRoom.objects.filter(pk=room_id).select_for_update(no_key=True).values_list("pk"))


@lru_cache(maxsize=1)
def _batch_statement() -> str:
    """Return the statement that deletes the newest messages below a position, and says how many and how far
    down that was.

    The newest first, as answers come after what they answer; those of other rooms, which only the host can have
    written, answer nothing then.
    """
    message, found = table_of(Message), "ANY(ARRAY(SELECT id FROM found))"
    belongings = ",\n".join(
        f"{model._meta.model_name}_rows AS (DELETE FROM {table_of(model)} WHERE message_id = {found})"
        for model in (Mention, MessageRevision, Notification)
    )
    return f"""
WITH found AS MATERIALIZED (
    SELECT id, seq FROM {message}
    WHERE room_id = %(room)s AND seq < coalesce(%(below)s, 9223372036854775807)
    ORDER BY seq DESC LIMIT %(batch)s
),
{belongings},
answers AS (UPDATE {message} SET reply_to_id = NULL WHERE reply_to_id = {found} AND room_id <> %(room)s),
message_rows AS (DELETE FROM {message} WHERE id = {found})
SELECT count(*), min(seq) FROM found
"""
