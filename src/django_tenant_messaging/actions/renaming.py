from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import transaction

from ..events import RoomRenamed, emit_on_commit
from ..exceptions import Forbidden
from ..models import ChatRoom, RoomCounter
from ..models.content import clean_name
from ..models.rooms import NAME_LENGTH
from ..selectors import access_room
from ..tenancy import TENANT_DATABASE, current_schema
from .holding import hold_room_locked

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from ..types import RoomPosition


def rename_room(actor: AbstractBaseUser, *, room_id: int, name: str) -> RoomPosition:
    """Give a group another name, and return it as the actor sees it now.

    Any member may. ``name`` has 1 to 120 characters. The same name again changes nothing. Four queries.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member, ``Forbidden`` for a
    direct room, ``Invalid`` for a bad name.
    """
    name = clean_name(name, field="name", limit=NAME_LENGTH)
    with transaction.atomic(using=TENANT_DATABASE):
        held = hold_room_locked(actor, room_id=room_id)
        if held.kind == ChatRoom.Kind.DIRECT:
            raise Forbidden("A direct conversation has the name of its other member.")
        if held.name != name:
            seq = RoomCounter.objects.advance(room_id)
            ChatRoom.objects.filter(pk=room_id).update(name=name, changed_seq=seq)
            emit_on_commit(RoomRenamed(current_schema(), room_id, seq, seq - 1, name))
        return access_room(actor, room_id)
