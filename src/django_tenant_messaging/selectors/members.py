from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Lower

from ..models import Membership, UserStatus
from ..models.memberships import ACTIVE
from ..tenancy import TENANT_DATABASE, column_of, table_of
from ..types import MemberData, UserRef
from .rooms import access_room
from .users import user_key_type, user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django.contrib.auth.models import AbstractBaseUser

MAX_CONTACTS = 1_000


def list_members(user: AbstractBaseUser, room_id: int) -> list[MemberData]:
    """Return the members of a room that the user is in, by username, with their online status; two queries.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for someone who isn't a member.
    """
    access_room(user, room_id)
    name = f"user__{username_field()}"
    status = UserStatus.objects.filter(user=OuterRef("user"))
    members = (
        Membership.objects.filter(ACTIVE, room_id=room_id)
        .select_related("user")
        .only("role", "last_read_seq", name)
        .annotate(online=Subquery(status.values("is_online")[:1]), seen=Subquery(status.values("last_seen")[:1]))
        .order_by(name)
    )
    return [
        MemberData(
            user=user_ref(member.user),
            role="owner" if member.role == "owner" else "member",
            is_online=bool(member.online),
            last_seen=member.seen,
            read_seq=member.last_read_seq,
        )
        for member in members
    ]


def online_contacts_of(users: Sequence[AbstractBaseUser]) -> list[list[UserRef]]:
    """Return for each user who is online among those that share a room with them, at most 1,000; one query."""
    found: list[list[UserRef]] = [[] for _ in users]
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_online_contacts(), [[user.pk for user in users], MAX_CONTACTS])
        for place, key, name in cursor:
            found[place - 1].append(UserRef(id=str(key), username=name))
    return found


@lru_cache(maxsize=1)
def _online_contacts() -> str:
    # Written out, as every connection asks: building the query took longer than running it. Each one's status is looked
    # up by itself: joined, all who are online would be read by their index wherever the planner believes them to be
    # few, as its statistics of last night say.
    user = get_user_model()
    member, status = table_of(Membership), table_of(UserStatus)
    key, name = column_of(user, "pk"), column_of(user, username_field())
    return f"""
SELECT who.place, contact.key, contact.name
FROM unnest(%s::{user_key_type()}[]) WITH ORDINALITY who(key, place)
CROSS JOIN LATERAL (
    SELECT u.{key} AS key, u.{name} AS name FROM {table_of(user)} u
    WHERE u.{key} IN (
        SELECT theirs.user_id FROM {member} mine JOIN {member} theirs USING (room_id)
        WHERE mine.user_id = who.key AND mine.left_seq IS NULL AND theirs.left_seq IS NULL
              AND (SELECT is_online FROM {status} WHERE user_id = theirs.user_id)
    ) AND u.{key} <> who.key
    ORDER BY u.{key} LIMIT %s
) contact
ORDER BY who.place, contact.key
"""


def mentioned_members(names: Mapping[int, Collection[str]]) -> dict[int, list[tuple[Any, UserRef]]]:
    """Return by room id key and reference of the members whose username is one of the room's names, in any case; one
    query.
    """
    field = f"user__{username_field()}"
    folded = {room_id: {name.lower() for name in of_room} for room_id, of_room in names.items()}
    rows = (
        Membership.objects.filter(ACTIVE, room_id__in=folded)
        .annotate(folded=Lower(field))
        .filter(folded__in=set().union(*folded.values()))
        .values_list("room_id", "user_id", field, "folded")
    )
    members: dict[int, list[tuple[Any, UserRef]]] = defaultdict(list)
    for room_id, key, name, lowered in rows:
        if lowered in folded[room_id]:
            members[room_id].append((key, UserRef(id=str(key), username=name)))
    return members
