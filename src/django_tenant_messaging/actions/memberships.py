"""Joining and leaving rooms.

Everything that changes memberships locks their rows first and the room's counter second, as a send does: whoever
is removed has no message after the removal, and nobody waits for each other in a circle.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.models.functions import Now

from ..conf import messaging_settings
from ..events import MembersChanged, RoomsChanged, emit_on_commit
from ..exceptions import Forbidden, Invalid, NotFound
from ..models import ChatRoom, DailyAllowance, Membership, RoomCounter
from ..models.ids import may_be_id, of_wrong_kind
from ..payloads.sizes import bytes_of_user, in_parts
from ..selectors import access_membership, user_key_type, user_ref
from ..tenancy import TENANT_DATABASE, current_schema, table_of
from .allowances import use_allowance
from .holding import hold_users_locked
from .rooms import require_room_size, require_tenant_members

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.contrib.auth.models import AbstractBaseUser


MOST_BYTES = 65_536
"""Bytes of the names of users who join or leave at one position of the timeline: a frame tells all members of them."""


def add_members(actor: AbstractBaseUser, *, room_id: int, users: Collection[AbstractBaseUser]) -> None:
    """Add users to a group; those who are in it already stay as they are.

    Any member may add. Newcomers see what comes after, or with ``NEW_MEMBERS_SEE_HISTORY`` the whole history. Raises
    ``NotFound`` when the actor isn't a member or a user was deleted, ``Forbidden`` for a direct room, for a user of no
    or another tenant, or one who left the room by themselves and so can only come back by :func:`rejoin_room`,
    ``Invalid`` past ``MAX_ROOM_MEMBERS``, ``RateLimited`` past ``DAILY_LIMIT_MEMBERS``.
    """
    require_tenant_members(users)
    users = list(dict.fromkeys(users))
    require_room_size(len(users))
    with transaction.atomic(using=TENANT_DATABASE):
        hold_users_locked([actor, *users])
        use_allowance(actor, DailyAllowance.Kind.MEMBERS, len(users))
        _lock_members(actor, room_id, users)
        RoomCounter.objects.select_for_update().get(room_id=room_id)
        # Read again: until the counter was ours, someone else may have added the same users.
        rows = Membership.objects.filter(room_id=room_id, user__in=[user.pk for user in users])
        known = {row.user_id: row for row in rows}
        newcomers = [user for user in users if user.pk not in known or known[user.pk].left_seq is not None]
        _require_consent(newcomers, known)
        if newcomers:
            _require_room_for(room_id, len(newcomers))
            _join(room_id, newcomers, known)


def rejoin_room(actor: AbstractBaseUser, *, room_id: int) -> None:
    """Come back to a group that the actor left by themselves; nothing happens when they are in it.

    They are a member then, and its owner if it has none. They see what a newcomer sees. Raises ``NotFound`` when they
    were never in the room or were removed from it, ``Invalid`` past ``MAX_ROOM_MEMBERS``, ``RateLimited`` past
    ``DAILY_LIMIT_MEMBERS``.
    """
    with transaction.atomic(using=TENANT_DATABASE):
        use_allowance(actor, DailyAllowance.Kind.MEMBERS, 1)
        place = None
        if may_be_id(room_id, "room_id"):
            place = Membership.objects.filter(room_id=room_id, user_id=actor.pk).select_for_update().first()
        if place is None or (place.left_seq is not None and not place.left_by_choice):
            raise NotFound("There is no such room, or you didn't leave it by yourself.", room=room_id)
        if place.left_seq is None:
            return
        RoomCounter.objects.select_for_update().get(room_id=room_id)
        _require_room_for(room_id, 1)
        _join(room_id, [actor], {actor.pk: place})
        _require_owner(room_id)


def remove_member(actor: AbstractBaseUser, *, room_id: int, user: AbstractBaseUser) -> None:
    """Remove a user from a group. Only an owner may, and not themselves: owners leave.

    Raises ``NotFound`` when the actor or the user isn't a member, ``Forbidden`` when the actor is no owner or the
    room is direct, ``Invalid`` when both are the same user.
    """
    if not isinstance(user, get_user_model()):
        raise of_wrong_kind(user, "user", "a user of this site")
    if user.pk == actor.pk:
        raise Invalid.field("user", "leave the room instead of removing yourself")
    with transaction.atomic(using=TENANT_DATABASE):
        members = _lock_members(actor, room_id, [user])
        if members[actor.pk].role != Membership.Role.OWNER:
            raise Forbidden("Only an owner of the room can remove members.")
        if user.pk not in members:
            raise NotFound("This user is not a member of the room.", room=room_id)
        _leave(members[user.pk], user, left_by_choice=False)


def leave_room(actor: AbstractBaseUser, *, room_id: int) -> None:
    """Leave a group. The longest member becomes the owner when the last owner leaves.

    Nobody can add the actor again: only they themselves come back, by :func:`rejoin_room`. Raises ``NotFound`` when
    the actor isn't a member, ``Forbidden`` for a direct room.
    """
    with transaction.atomic(using=TENANT_DATABASE):
        members = _lock_members(actor, room_id, [])
        _leave(members[actor.pk], actor, left_by_choice=True)
        _require_owner(room_id)


def _require_owner(room_id: int) -> None:
    """Make the longest member of a locked room its owner when it has none."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_heir_statement(), {"room": room_id})


@lru_cache(maxsize=1)
def _heir_statement() -> str:
    member = table_of(Membership)
    # The role is written out: as a parameter it would keep the planner from the index of owners.
    return f"""
UPDATE {member} SET role = 'owner' WHERE id = (
    SELECT id FROM {member}
    WHERE room_id = %(room)s AND left_seq IS NULL AND joined_seq >= 0
          AND NOT EXISTS (SELECT FROM {member} WHERE room_id = %(room)s AND role = 'owner' AND left_seq IS NULL)
    ORDER BY joined_seq, id LIMIT 1
)"""


def _require_room_for(room_id: int, newcomers: int) -> None:
    """Raise ``Invalid`` when a locked room would have too many members; counting stops there."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM (SELECT FROM {table_of(Membership)}"
            " WHERE room_id = %s AND left_seq IS NULL AND joined_seq >= 0 ORDER BY joined_seq, id LIMIT %s) found",
            [room_id, messaging_settings.MAX_ROOM_MEMBERS],
        )
        (found,) = cursor.fetchone()
    require_room_size(found + newcomers)


def _require_consent(newcomers: Collection[AbstractBaseUser], known: dict[Any, Membership]) -> None:
    """Raise ``Forbidden`` when some of those who are to be added had left the room by themselves."""
    left = [user.get_username() for user in newcomers if user.pk in known and known[user.pk].left_by_choice]
    if left:
        raise Forbidden(f"They left this room, and only they themselves can come back: {', '.join(left)}.", left=left)


def _lock_members(actor: AbstractBaseUser, room_id: int, users: Collection[AbstractBaseUser]) -> dict[Any, Membership]:
    """Lock the rows of the actor and some users in one order for all, and return those of current members by user.

    Raises ``NotFound`` unless the actor is one, ``Forbidden`` for a direct room.
    """
    if access_membership(actor, room_id).room.kind == ChatRoom.Kind.DIRECT:
        raise Forbidden("A direct conversation keeps its two members.")
    keys = [actor.pk, *(user.pk for user in users)]
    rows = Membership.objects.filter(room_id=room_id, user__in=keys).order_by("pk").select_for_update()
    members = {row.user_id: row for row in rows if row.left_seq is None}
    if actor.pk not in members:
        raise NotFound("There is no such room, or you are not a member of it.", room=room_id)
    return members


def _join(room_id: int, newcomers: Collection[AbstractBaseUser], known: dict[Any, Membership]) -> None:
    for part in in_parts(newcomers, lambda user: bytes_of_user(user_ref(user)), MOST_BYTES):
        _join_together(room_id, part, known)


def _join_together(room_id: int, newcomers: Collection[AbstractBaseUser], known: dict[Any, Membership]) -> None:
    seq = RoomCounter.objects.advance(room_id)
    place: dict[str, Any] = {
        "role": Membership.Role.MEMBER,
        "joined_seq": seq,
        "changed_seq": seq,
        "last_read_seq": seq,
        "visible_after_seq": 0 if messaging_settings.NEW_MEMBERS_SEE_HISTORY else seq,
        "joined_at": Now(),
        "left_seq": None,
        "left_at": None,
        "left_by_choice": False,
    }
    returning = [known[user.pk].pk for user in newcomers if user.pk in known]
    Membership.objects.filter(pk__in=returning).update(**place)
    _insert(room_id, [user.pk for user in newcomers if user.pk not in known], place)
    _announce(room_id, seq, joined=newcomers)


def _insert(room_id: int, user_keys: list[Any], place: Mapping[str, Any]) -> None:
    """Insert the places of newcomers, in one statement that takes a tenth of the time of as many objects: the room's
    sends wait for it.
    """
    positions = ("joined_seq", "changed_seq", "last_read_seq", "visible_after_seq")
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table_of(Membership)}"
            f" (room_id, user_id, role, joined_at, left_by_choice, {', '.join(positions)})"
            " SELECT %s, key, %s, statement_timestamp(), false, %s, %s, %s, %s"
            f" FROM unnest(%s::{user_key_type()}[]) key",
            [room_id, Membership.Role.MEMBER, *(place[name] for name in positions), user_keys],
        )


def _leave(member: Membership, user: AbstractBaseUser, *, left_by_choice: bool) -> None:
    seq = RoomCounter.objects.advance(member.room_id)
    Membership.objects.filter(pk=member.pk).update(
        left_seq=seq, changed_seq=seq, left_at=Now(), left_by_choice=left_by_choice, role=Membership.Role.MEMBER
    )
    _announce(member.room_id, seq, left=[user])


def _announce(
    room_id: int,
    seq: int,
    *,
    joined: Collection[AbstractBaseUser] = (),
    left: Collection[AbstractBaseUser] = (),
) -> None:
    schema_name = current_schema()
    came, went = tuple(map(user_ref, joined)), tuple(map(user_ref, left))
    emit_on_commit(
        MembersChanged(schema_name, room_id, seq, seq - 1, joined=came, left=went),
        *(RoomsChanged(schema_name, user.id) for user in (*came, *went)),
    )
