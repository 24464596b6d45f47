from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connections

from ..conf import messaging_settings
from ..exceptions import Invalid
from ..models import Membership, UserStatus
from ..models.ids import whole_number
from ..models.memberships import ACTIVE
from ..tenancy import TENANT_DATABASE, column_of, table_of
from ..types import MemberData, UserRef
from .rooms import access_room
from .users import user_key_type, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from django.contrib.auth.models import AbstractBaseUser

MAX_CONTACTS = 1_000
MEMBER_PAGE = 200
MOST_COUNTED = 1_000


def list_members(
    user: AbstractBaseUser, room_id: int, *, after: str | None = None, limit: int = MEMBER_PAGE
) -> list[MemberData]:
    """Return members of a room that the user is in, with their online status: the first ones, or those after a user, by
    id. Three queries.

    Members come in the order of their users' keys, ``limit`` of them, 1 to 200: no order by name could be followed
    without reading them all. Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't a
    member, ``Invalid`` for a limit out of range or an ``after`` that can't be a user's id.
    """
    if not 1 <= whole_number(limit, "limit") <= MEMBER_PAGE:
        raise Invalid.field("limit", f"must be 1 to {MEMBER_PAGE}, is {limit}")
    access_room(user, room_id)
    members = Membership.objects.filter(ACTIVE, room_id=room_id).order_by("user_id")
    if after is not None:
        members = members.filter(user_id__gt=_user_key(after))
    page = {row.user_id: row for row in members.only("user_id", "role", "last_read_seq")[:limit]}
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_people(), [list(page)])
        return [_as_member(page[key], *about) for key, *about in cursor.fetchall()]


def count_members(user: AbstractBaseUser, room_id: int) -> int:
    """Return how many members a room has that the user is in; counting stops at 1,001. Two queries.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't a member.
    """
    access_room(user, room_id)
    return Membership.objects.filter(ACTIVE, room_id=room_id).order_by("user_id")[: MOST_COUNTED + 1].count()


def _user_key(given: str) -> Any:
    key: Any = get_user_model()._meta.pk
    try:
        return key.get_prep_value(key.to_python(given))
    except (ValidationError, ValueError) as error:
        raise Invalid.field("after", "must be the id of a user") from error


def _as_member(row: Membership, name: str, is_online: bool | None, last_seen: datetime | None) -> MemberData:
    return MemberData(
        user=UserRef(str(row.user_id), name),
        role="owner" if row.role == "owner" else "member",
        is_online=bool(is_online),
        last_seen=last_seen,
        read_seq=row.last_read_seq,
    )


@lru_cache(maxsize=1)
def _people() -> str:
    user = get_user_model()
    key = column_of(user, "pk")
    return f"""
SELECT u.{key}, u.{column_of(user, username_field())}, status.is_online, status.last_seen
FROM {table_of(user)} u LEFT JOIN LATERAL (
    SELECT is_online, last_seen FROM {table_of(UserStatus)} WHERE user_id = u.{key} LIMIT 1
) status ON true
WHERE u.{key} = ANY(%s::{user_key_type()}[])
ORDER BY u.{key}
"""


def online_contacts_of(users: Sequence[AbstractBaseUser], *, limit: int = MAX_CONTACTS) -> list[list[UserRef]]:
    """Return for each user who is online among those that share a quiet room with them, ``limit`` at most; one query.

    Of a room with more than ``EPHEMERAL_ROOM_LIMIT`` members nobody is told who comes and goes, nor who is there.
    """
    found: list[list[UserRef]] = [[] for _ in users]
    values: dict[str, Any] = {
        "users": [user.pk for user in users],
        "most": limit,
        "quiet": messaging_settings.EPHEMERAL_ROOM_LIMIT,
    }
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_online_contacts(), values)
        for place, key, name in cursor:
            found[place - 1].append(UserRef(id=str(key), username=name))
    return found


@lru_cache(maxsize=1)
def _online_contacts() -> str:
    # Each one's status is looked up by itself: joined, all who are online would be read by their index wherever the
    # planner believes them to be few, as its statistics of last night say.
    user = get_user_model()
    member = table_of(Membership)
    return f"""
SELECT who.place, contact.key, contact.name
FROM unnest(%(users)s::{user_key_type()}[]) WITH ORDINALITY who(key, place)
CROSS JOIN LATERAL (
    SELECT other.key, (SELECT {column_of(user, username_field())} FROM {table_of(user)}
                       WHERE {column_of(user, "pk")} = other.key) AS name
    FROM (
        SELECT DISTINCT theirs.user_id AS key
        FROM (SELECT room_id FROM {member} WHERE user_id = who.key AND left_seq IS NULL OFFSET 0) mine
        CROSS JOIN LATERAL (
            SELECT user_id, count(*) OVER () AS number FROM (
                SELECT user_id FROM {member} WHERE room_id = mine.room_id AND left_seq IS NULL
                ORDER BY user_id LIMIT %(quiet)s + 1
            ) first
        ) theirs
        WHERE theirs.number <= %(quiet)s AND theirs.user_id <> who.key
    ) other
    WHERE (SELECT is_online FROM {table_of(UserStatus)} WHERE user_id = other.key)
    ORDER BY other.key LIMIT %(most)s
) contact
ORDER BY who.place, contact.key
"""


def mentioned_members(names: Mapping[int, Collection[str]]) -> dict[int, list[tuple[Any, UserRef]]]:
    """Return by room id key and reference of the members whose username is one of the room's names; one query.

    Of a name that no member has exactly so, all members of this name in any case. Only for such a name the names of all
    members are compared, ``MAX_ROOM_MEMBERS`` at most.
    """
    asked = [(room_id, name, name.lower()) for room_id, of_room in names.items() for name in of_room]
    members: dict[int, list[tuple[Any, UserRef]]] = defaultdict(list)
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_mentioned(), [list(column) for column in zip(*asked, strict=True)])
        for room_id, key, name in cursor:
            members[room_id].append((key, UserRef(id=str(key), username=name)))
    return members


@lru_cache(maxsize=1)
def _mentioned() -> str:
    # Each name is looked up by itself, and in any case among the members by their keys: joined as the planner likes, it
    # would go through all of the tenant's users. "IS TRUE" has it hash the names, not compare each member with each.
    model = get_user_model()
    user, member = table_of(model), table_of(Membership)
    key, name = column_of(model, "pk"), column_of(model, username_field())
    return f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%s::bigint[], %s::{_username_type()}[], %s::text[]) asked(room_id, name, folded)
), exact AS MATERIALIZED (
    SELECT asked.room_id, asked.name AS asked, found.key, found.name
    FROM asked
    CROSS JOIN LATERAL (SELECT {key} AS key, {name} AS name FROM {user} WHERE {name} = asked.name OFFSET 0) found
    CROSS JOIN LATERAL (
        SELECT FROM {member} WHERE room_id = asked.room_id AND user_id = found.key AND left_seq IS NULL OFFSET 0
    ) present
), missed AS MATERIALIZED (
    SELECT room_id, folded FROM asked WHERE (room_id, name) NOT IN (SELECT room_id, asked FROM exact)
)
SELECT room_id, key, name FROM exact
UNION
SELECT room.id, alike.key, alike.name
FROM (SELECT DISTINCT room_id AS id FROM missed) room
CROSS JOIN LATERAL (
    SELECT {key} AS key, {name} AS name, LOWER({user}.{name}) AS folded FROM {user}
    WHERE {key} = ANY(ARRAY(SELECT user_id FROM {member} WHERE room_id = room.id AND left_seq IS NULL))
    OFFSET 0
) alike
WHERE ((room.id, alike.folded) IN (SELECT room_id, folded FROM missed)) IS TRUE
"""


def _username_type() -> str:
    """Return the type that the database gives usernames, without their length: a longer name isn't to be cut."""
    field: Any = get_user_model()._meta.get_field(username_field())
    name: str = field.rel_db_type(connections[TENANT_DATABASE])
    return name.partition("(")[0]
