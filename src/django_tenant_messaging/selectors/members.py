from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Lower

from ..models import Membership, UserStatus
from ..models.memberships import ACTIVE
from ..types import MemberData, UserRef
from .rooms import access_room
from .users import user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

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


def online_contacts(user: AbstractBaseUser) -> list[UserRef]:
    """Return who is online among those that share a room with the user, at most 1,000; one query."""
    mine = Membership.objects.filter(ACTIVE, user_id=user.pk).values("room_id")
    theirs = Membership.objects.filter(ACTIVE, room_id__in=mine).values("user_id")
    users = get_user_model().objects.filter(pk__in=theirs, chat_status__is_online=True).exclude(pk=user.pk)
    return [user_ref(found) for found in users.only(username_field()).order_by("pk")[:MAX_CONTACTS]]


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
