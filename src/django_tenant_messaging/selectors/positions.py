"""Where a user's rooms are. Written out, as every connection asks: building the queries took longer than running them.

Each row of a large table is looked up by itself (``LATERAL ... LIMIT 1``). Joined, all rooms would be read for a few of
them wherever the planner believes these to be many, as its statistics of last night may say.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections
from django.utils.translation import gettext

from ..models import ChatRoom, Membership, RoomCounter
from ..tenancy import TENANT_DATABASE, column_of, table_of
from ..types import RoomPosition, UserRef
from .heads import RECENT_JOIN_SECONDS
from .users import user_key_type, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.contrib.auth.models import AbstractBaseUser

COLUMNS = (
    "room.id, room.kind, room.name, room.epoch, mine.last_seq, mine.last_read_seq, mine.visible_after_seq,"
    " mine.joined_seq, other.key, other.name"
)
NEWEST_ACTIVITY = "mine.is_untouched, mine.last_activity_at DESC, mine.room_id DESC"
OF_LATE = timedelta(seconds=2 * RECENT_JOIN_SECONDS)


def room_positions(user: AbstractBaseUser, *, limit: int) -> list[RoomPosition]:
    """Return the user's rooms as :func:`room_positions_of` does."""
    return room_positions_of([user], limit=limit)[0]


def room_positions_of(users: Sequence[AbstractBaseUser], *, limit: int) -> list[list[RoomPosition]]:
    """Return for each user the rooms with their heads, ``limit`` at most, those with the newest activity first; read in
    one statement and so of one moment.
    """
    found: list[list[RoomPosition]] = [[] for _ in users]
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_positions_of(), {"users": [user.pk for user in users], "limit": limit})
        for place, *row in cursor:
            found[place - 1].append(as_position(row))
    return found


def rooms_among(user: AbstractBaseUser, room_ids: Collection[int]) -> list[RoomPosition]:
    """Return those of some rooms that the user is in, and those joined of late; one statement."""
    values = {"user": user.pk, "rooms": list(room_ids), "of_late": OF_LATE}
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_positions_among(), values)
        return [as_position(row) for row in cursor]


def as_position(row: Sequence[Any]) -> RoomPosition:
    """Return a row of ``COLUMNS`` as a value."""
    room_id, kind, name, epoch, last_seq, read_seq, visible_after_seq, joined_seq, _other, other_name = row
    return RoomPosition(
        room_id=room_id,
        kind=kind,
        name=name if kind == "group" else other_name or gettext("deleted user"),
        epoch=epoch.hex,
        seq=last_seq,
        read_seq=read_seq,
        visible_after_seq=visible_after_seq,
        joined_seq=joined_seq,
    )


def as_other(row: Sequence[Any]) -> UserRef | None:
    """Return the other one of a direct room from a row of ``COLUMNS``."""
    key, name = row[-2:]
    return None if key is None else UserRef(id=str(key), username=name)


@lru_cache(maxsize=1)
def of_newest_activity() -> str:
    """Return the places, as ``mine``, of the user ``who.key`` in the rooms that something last happened in; their order
    is ``NEWEST_ACTIVITY``.

    All the user's rooms are looked at; the parameter ``limit`` says how many are returned. Rooms of others in which
    nothing has happened come last: however many somebody makes, they push no conversation out.
    """
    return f"""(
    SELECT m.*, counter.last_seq, counter.last_activity_at, counter.last_seq = 0 AND m.role <> 'owner' AS is_untouched
    FROM {table_of(Membership)} m CROSS JOIN LATERAL (
        SELECT last_seq, last_activity_at FROM {table_of(RoomCounter)} WHERE room_id = m.room_id LIMIT 1
    ) counter
    WHERE m.user_id = who.key AND m.left_seq IS NULL
    ORDER BY is_untouched, counter.last_activity_at DESC, m.room_id DESC LIMIT %(limit)s
) mine"""


@lru_cache(maxsize=1)
def with_room_and_other() -> str:
    """Return the joins that add to ``mine`` its room, and the other one where that is direct."""
    user = get_user_model()
    key = column_of(user, "pk")
    return f"""CROSS JOIN LATERAL (
    SELECT id, kind, name, epoch FROM {table_of(ChatRoom)} WHERE id = mine.room_id LIMIT 1
) room
LEFT JOIN LATERAL (
    SELECT theirs.user_id AS key, (SELECT {column_of(user, username_field())} FROM {table_of(user)}
                                   WHERE {key} = theirs.user_id) AS name
    FROM {table_of(Membership)} theirs
    WHERE room.kind = 'direct' AND theirs.room_id = mine.room_id AND theirs.user_id <> mine.user_id
    ORDER BY theirs.user_id LIMIT 1
) other ON true"""


@lru_cache(maxsize=1)
def _positions_of() -> str:
    return f"""
SELECT who.place, {COLUMNS}
FROM unnest(%(users)s::{user_key_type()}[]) WITH ORDINALITY who(key, place)
CROSS JOIN LATERAL {of_newest_activity()}
{with_room_and_other()}
ORDER BY who.place, {NEWEST_ACTIVITY}
"""


@lru_cache(maxsize=1)
def _positions_among() -> str:
    member = table_of(Membership)
    places = "id, user_id, room_id, last_read_seq, visible_after_seq, joined_seq"
    return f"""
SELECT {COLUMNS}
FROM (
    SELECT member.*, counter.last_seq
    FROM (
        SELECT place.* FROM unnest(%(rooms)s::bigint[]) asked(id) CROSS JOIN LATERAL (
            SELECT {places} FROM {member}
            WHERE room_id = asked.id AND user_id = %(user)s AND left_seq IS NULL LIMIT 1
        ) place
        UNION
        SELECT {places} FROM {member}
        WHERE user_id = %(user)s AND left_seq IS NULL AND joined_at > statement_timestamp() - %(of_late)s
    ) member CROSS JOIN LATERAL (
        SELECT last_seq FROM {table_of(RoomCounter)} WHERE room_id = member.room_id LIMIT 1
    ) counter
) mine
{with_room_and_other()}
"""
