from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, Case, Exists, ExpressionWrapper, OuterRef, QuerySet, Subquery, When
from django.utils.translation import gettext

from ..conf import messaging_settings
from ..exceptions import NotFound
from ..models import ChatRoom, Membership
from ..models.ids import may_be_id
from ..models.memberships import ACTIVE
from ..types import RoomPosition, UserRef
from .users import username_field

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser


def memberships_of(user: AbstractBaseUser) -> QuerySet[Membership]:
    """Return the user's places in rooms, with the room, its head and, where it is direct, the other's name."""
    other = Membership.objects.filter(room=OuterRef("room")).exclude(user_id=user.pk).order_by("user_id")

    def of_other(field: str) -> Case:
        # Asked only where there is just one: of a large group all might be read.
        return Case(When(room__kind="direct", then=Subquery(other.values(field)[:1])))

    return (
        Membership.objects.filter(ACTIVE, user_id=user.pk)
        .select_related("room__counter")
        .annotate(other_id=of_other("user_id"), other_name=of_other(f"user__{username_field()}"))
    )


def access_membership(user: AbstractBaseUser, room_id: int) -> Membership:
    """Return the user's place in a room, with the room and its counter; one query.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` unless the user is a member now, ``Invalid`` for a
    ``room_id`` that is no whole number.
    """
    if may_be_id(room_id, "room_id"):
        # At most one, so without an order, by which the planner might read all of a room.
        for membership in memberships_of(user).filter(room_id=room_id):
            return membership
    raise NotFound("There is no such room, or you are not a member of it.", room=room_id)


def owns_room(user: AbstractBaseUser, room_id: int) -> bool:
    """Say whether the user is an owner of a room now; one query."""
    if not may_be_id(room_id, "room_id"):
        return False
    mine = Membership.objects.filter(ACTIVE, user_id=user.pk, room_id=room_id).values_list("role", flat=True)
    return Membership.Role.OWNER in mine


def access_room(user: AbstractBaseUser, room_id: int) -> RoomPosition:
    """Return a room as the user sees it; one query. Raises ``NotFound`` unless the user is a member now."""
    return position_of(access_membership(user, room_id))


def position_of(membership: Membership) -> RoomPosition:
    """Return a membership read by :func:`memberships_of` as a value."""
    room = membership.room
    other = other_of(membership)
    if room.kind == ChatRoom.Kind.GROUP:
        name = room.name
    else:
        name = gettext("deleted user") if other is None else other.username
    return RoomPosition(
        room_id=room.pk,
        kind="direct" if room.kind == "direct" else "group",
        name=name,
        epoch=room.epoch.hex,
        seq=room.counter.last_seq,
        read_seq=membership.last_read_seq,
        visible_after_seq=membership.visible_after_seq,
        joined_seq=membership.joined_seq,
    )


def other_of(membership: Any) -> UserRef | None:
    """Return the other one of a direct room, from a membership read by :func:`memberships_of`."""
    if membership.other_id is None:
        return None
    return UserRef(id=str(membership.other_id), username=membership.other_name)


def quiet_room_ids(user_keys: Collection[Any]) -> dict[Any, list[int]]:
    """Return by user key the rooms in which others are told when the user comes, goes or types: those with at most
    ``EPHEMERAL_ROOM_LIMIT`` members; one query.
    """
    rows = Membership.objects.filter(ACTIVE, _is_quiet(), user_id__in=user_keys).values_list("user_id", "room_id")
    rooms: defaultdict[Any, list[int]] = defaultdict(list)
    for key, room_id in rows:
        rooms[key].append(room_id)
    return rooms


def access_quietness(user: AbstractBaseUser, room_id: int) -> bool:
    """Say whether a room of the user has at most ``EPHEMERAL_ROOM_LIMIT`` members; one query.

    Raises ``NotFound`` unless the user is a member now.
    """
    if may_be_id(room_id, "room_id"):
        mine = Membership.objects.filter(ACTIVE, user_id=user.pk, room_id=room_id)
        is_quiet = mine.annotate(is_quiet=ExpressionWrapper(_is_quiet(), BooleanField())).values_list("is_quiet")
        for (found,) in is_quiet:
            return bool(found)
    raise NotFound("There is no such room, or you are not a member of it.", room=room_id)


def _is_quiet() -> Any:
    # Counts no further than the limit, however many members there are.
    limit = messaging_settings.EPHEMERAL_ROOM_LIMIT
    others = Membership.objects.filter(ACTIVE, room_id=OuterRef("room_id")).order_by("user_id")
    return ~Exists(others[limit : limit + 1])
