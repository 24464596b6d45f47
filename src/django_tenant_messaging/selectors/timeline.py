"""Reading a room's timeline back from the database, for sockets that missed a part of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..conf import messaging_settings
from ..events import MembersChanged, MessageChanged, MessagePosted, RoomRenamed, TimelineEvent
from ..models import Membership, Message, RoomCounter
from ..models.memberships import EVER_CHANGED
from ..tenancy import current_schema
from .messages import load_messages
from .pages import BYTES_BESIDES, extent_of_page
from .users import user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import QuerySet

    from ..types import UserRef

MOST_BYTES = 1_048_576
"""Bytes of the texts of one page, and ``BYTES_BESIDES`` for each: what a thread, and then the loop, does at once."""
BYTES_OF_A_CHARACTER = 4


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a room after a position. The events bring a reader to ``seq``; ``complete`` says whether that
    is the room's head.
    """

    events: tuple[TimelineEvent, ...]
    seq: int
    complete: bool


def read_changes(room_id: int, *, after: int, limit: int, most_bytes: int = MOST_BYTES) -> Changes:
    """Return the current states of what changed after a position: at most ``limit`` messages, no more of those after
    the first than fit into ``most_bytes``, and at most ``limit`` members, those of one change all together. Four
    queries, one more where it may be many bytes, and another for a change of more members than that.

    The head is read first: whatever has a number up to it is committed and visible by then, and what comes later has
    a higher number. No right is checked: the caller knows from where on its readers may see the room.
    """
    place = RoomCounter.objects.filter(room_id=room_id).values_list("last_seq", "room__changed_seq", "room__name")
    head, renamed_seq, name = place.first() or (after, 0, "")
    if head <= after:
        return Changes((), after, complete=True)
    rows = Message.objects.filter(room_id=room_id, changed_seq__gt=after, changed_seq__lte=head).order_by("changed_seq")
    end = _end_of_page(rows, after, head, limit=limit, most_bytes=most_bytes)
    members, end = _changed_members(room_id, after, end, limit)
    # The limit says again what the positions say: the planner takes a page of a long room for more than it is.
    messages = load_messages(rows.filter(changed_seq__lte=end)[:limit])
    schema_name = current_schema()
    events: dict[int, TimelineEvent] = {
        seq: MembersChanged(schema_name, room_id, seq, seq - 1, tuple(joined), tuple(left))
        for seq, (joined, left) in _comings_and_goings(members).items()
    }
    if after < renamed_seq <= end:
        events[renamed_seq] = RoomRenamed(schema_name, room_id, renamed_seq, renamed_seq - 1, name)
    for message in messages:
        seq = message.changed_seq
        kind = MessagePosted if seq == message.seq else MessageChanged
        events[seq] = kind(schema_name, room_id, seq, seq - 1, message)
    return Changes(tuple(_chained(events, after)), end, complete=end == head)


def read_returns(room_id: int, *, after: int) -> dict[str, int]:
    """Return of the users (by id) who joined after a position when they last did so; one query.

    Who was a member before must have left in between: of leaving and joining again only the joining is stored.
    """
    rows = Membership.objects.filter(EVER_CHANGED, room_id=room_id, changed_seq__gt=after, joined_seq__gt=after)
    return {str(key): seq for key, seq in rows.values_list("user_id", "joined_seq")}


def _changed_members(room_id: int, after: int, end: int, limit: int) -> tuple[list[Membership], int]:
    """Return the members who came or went up to a position, and the position up to which these are all."""
    changed = Membership.objects.filter(EVER_CHANGED, room_id=room_id, changed_seq__gt=after, changed_seq__lte=end)
    about = changed.select_related("user").only("changed_seq", "left_seq", f"user__{username_field()}")
    rows = about.order_by("changed_seq")
    members = list(rows[: limit + 1])
    if len(members) <= limit:
        return members, end
    over = members[limit].changed_seq
    if over == members[0].changed_seq:
        return list(rows.filter(changed_seq=over)), over
    return [member for member in members if member.changed_seq < over], over - 1


def _end_of_page(rows: QuerySet[Message], after: int, head: int, *, limit: int, most_bytes: int) -> int:
    """Return the position up to which the next page goes. Few changes fit without a look at them."""
    longest = BYTES_OF_A_CHARACTER * messaging_settings.MAX_CONTENT_LENGTH + BYTES_BESIDES
    if head - after <= min(limit, most_bytes // longest):
        return head
    last, is_cut = extent_of_page(rows, "changed_seq", limit=limit, most_bytes=most_bytes)
    return head if last is None or not is_cut else last


def _comings_and_goings(members: Iterable[Membership]) -> dict[int, tuple[list[UserRef], list[UserRef]]]:
    changes: dict[int, tuple[list[UserRef], list[UserRef]]] = defaultdict(lambda: ([], []))
    for row in members:
        joined, left = changes[row.changed_seq]
        (joined if row.left_seq is None else left).append(user_ref(row.user))
    return changes


def _chained(events: dict[int, TimelineEvent], after: int) -> Iterator[TimelineEvent]:
    """Yield the events in order, each following its predecessor: numbers between them were replaced since."""
    for seq in sorted(events):
        yield replace(events[seq], after=after)
        after = seq
