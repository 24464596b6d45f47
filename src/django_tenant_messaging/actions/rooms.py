from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import transaction

from ..conf import messaging_settings
from ..events import RoomsChanged, emit_on_commit
from ..exceptions import Forbidden, Invalid
from ..models import ChatRoom, DailyAllowance
from ..models.content import clean_name
from ..models.ids import of_wrong_kind
from ..models.rooms import NAME_LENGTH
from ..permissions import may_use_tenant
from ..tenancy import TENANT_DATABASE, current_schema
from .allowances import use_allowance
from .holding import hold_users_locked, require_stored

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser


def open_direct_room(actor: AbstractBaseUser, *, other: AbstractBaseUser) -> ChatRoom:
    """Return the direct room of two users, making it when there is none: the same one whoever asks.

    Raises :class:`~django_tenant_messaging.exceptions.Invalid` for a room with oneself,
    :class:`~django_tenant_messaging.exceptions.Forbidden` when the other isn't a user of this tenant, and
    ``RateLimited`` past ``DAILY_LIMIT_ROOMS``.
    """
    require_stored([actor])
    require_tenant_members([other])
    with transaction.atomic(using=TENANT_DATABASE):
        room, created = ChatRoom.objects.direct(actor, other)
        if created:
            hold_users_locked([actor, other])
            use_allowance(actor, DailyAllowance.Kind.ROOMS, 1)
            announce_rooms(actor, other)
    return room


def create_room(actor: AbstractBaseUser, *, name: str, members: Collection[AbstractBaseUser] = ()) -> ChatRoom:
    """Make a group with the actor as its owner.

    ``name`` has 1 to 120 characters. Raises ``Invalid`` for a bad name or more than ``MAX_ROOM_MEMBERS`` members,
    ``Forbidden`` when one of them isn't a user of this tenant, ``RateLimited`` past ``DAILY_LIMIT_ROOMS`` or
    ``DAILY_LIMIT_MEMBERS``.
    """
    name = clean_name(name, field="name", limit=NAME_LENGTH)
    require_stored([actor])
    require_tenant_members(members)
    roles = dict.fromkeys(members, "member") | {actor: "owner"}
    require_room_size(len(roles))
    with transaction.atomic(using=TENANT_DATABASE):
        hold_users_locked(roles)
        use_allowance(actor, DailyAllowance.Kind.ROOMS, 1)
        use_allowance(actor, DailyAllowance.Kind.MEMBERS, len(roles) - 1)
        room = ChatRoom.objects.create(kind=ChatRoom.Kind.GROUP, name=name, created_by_id=actor.pk)
        room.furnish(roles)
        announce_rooms(*roles)
    return room


def require_tenant_members(users: Collection[AbstractBaseUser]) -> None:
    """Raise ``Forbidden`` unless all the users may use the current tenant, ``NotFound`` for those who aren't stored,
    ``Invalid`` for what is no user.
    """
    for given in users:
        if not isinstance(given, get_user_model()):
            raise of_wrong_kind(given, "users", "users of this site")
    require_stored(users)
    schema_name = current_schema()
    strangers = [user.get_username() for user in users if not may_use_tenant(user, schema_name)]
    if strangers:
        raise Forbidden(f"Not active users of this tenant: {', '.join(strangers)}.", usernames=strangers)


def require_room_size(size: int) -> None:
    """Raise ``Invalid`` when a room of this many members would be too large."""
    highest = messaging_settings.MAX_ROOM_MEMBERS
    if size > highest:
        raise Invalid.field("members", f"a room has at most {highest} members, this one would have {size}")


def announce_rooms(*users: AbstractBaseUser) -> None:
    """Tell the users' sockets that they are in another room."""
    schema_name = current_schema()
    emit_on_commit(*(RoomsChanged(schema_name, str(user.pk)) for user in users))
