from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import OperationalError, connections, transaction
from django.db.models import F
from django.db.models.functions import Greatest

from ..events import ReadPositionMoved, emit_on_commit
from ..exceptions import Invalid
from ..models import ChatRoom, Membership, Message, Notification
from ..models.memberships import ACTIVE
from ..selectors import access_membership, user_ref
from ..tenancy import TENANT_DATABASE, current_schema, table_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

LOCK_NOT_AVAILABLE = "55P03"
SHORTLY = "5ms"
"""How long to wait for the rest when the membership is free: nobody but a host locks notifications for longer."""


class _Locked(Exception):
    """Others keep the membership locked, be it by a message of the actor's own that is on its way."""


def mark_read(actor: AbstractBaseUser, *, room_id: int, seq: int) -> int:
    """Say that the actor has read a room up to ``seq``, and return how far that is now: it never goes back.

    Direct messages up to there become ``is_read``, as do the actor's notifications about them. Two queries when
    nothing new was read. Raises ``NotFound`` when the actor isn't a member, ``Invalid`` for a ``seq`` below 0 or past
    the room's head.
    """
    return _mark_read(actor, room_id, seq)


def mark_read_where_free(actor: AbstractBaseUser, *, room_id: int, seq: int) -> int | None:
    """Do the same without waiting for others; return ``None``, having done nothing, when they keep locked what it would
    write. One query more when something new was read.
    """
    try:
        return _mark_read(actor, room_id, seq, waits=False)
    except _Locked:
        return None
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        return None


def _mark_read(actor: AbstractBaseUser, room_id: int, seq: int, *, waits: bool = True) -> int:
    membership = access_membership(actor, room_id)
    head = membership.room.counter.last_seq
    if not 0 <= seq <= head:
        raise Invalid.field("seq", f"must be 0 to {head}, is {seq}")
    if seq <= membership.last_read_seq:
        return membership.last_read_seq
    with transaction.atomic(using=TENANT_DATABASE):
        if not waits:
            _lock_where_free(membership)
        mine = Membership.objects.filter(ACTIVE, pk=membership.pk, last_read_seq__lt=seq)
        if not mine.update(last_read_seq=Greatest(F("last_read_seq"), seq)):
            return seq
        if membership.room.kind == ChatRoom.Kind.DIRECT:
            received = Message.objects.filter(room_id=room_id, receiver_id=actor.pk, seq__lte=seq)
            received.filter(is_read=False).update(is_read=True)
        told = Notification.objects.filter(user_id=actor.pk, message__room_id=room_id, message__seq__lte=seq)
        told.filter(is_read=False).update(is_read=True)
        emit_on_commit(ReadPositionMoved(current_schema(), room_id, user_ref(actor), seq))
    return seq


def _lock_where_free(membership: Membership) -> None:
    """Lock the membership, and wait for nothing long until the transaction ends; one query.

    Passing over what is locked, instead of giving up waiting for it, leaves no error in PostgreSQL's log.
    """
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"SELECT set_config('lock_timeout', '{SHORTLY}', true) FROM {table_of(Membership)}"
            " WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED",
            [membership.pk],
        )
        if cursor.fetchone() is None:
            raise _Locked
