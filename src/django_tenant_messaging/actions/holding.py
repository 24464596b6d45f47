"""Locking what a change of something that exists needs.

The locks are taken in the order of all writes: the actor's membership, the room's counter, then the row itself. So
a removal at the same time comes before the change or after it, of two changes the second sees what the first did, and
nobody waits for each other in a circle.

One statement takes all the locks. What it returns of a locked row is the newest state; what else it saw is of the
moment at which it began, so that everything else is read and written by the statements that follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections

from ..exceptions import NotFound
from ..models import ChatRoom, Membership, Message, RoomCounter
from ..models.ids import may_be_id
from ..selectors import user_key_type
from ..tenancy import TENANT_DATABASE, column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from django.contrib.auth.models import AbstractBaseUser


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A locked message, and who looks at it. ``age`` is in seconds."""

    role: str
    room_kind: str
    is_sender: bool
    content: str
    deleted_at: datetime | None
    age: float


@dataclass(frozen=True, slots=True)
class HeldRoom:
    """A locked room."""

    kind: str
    name: str


def hold_message_locked(actor: AbstractBaseUser, *, room_id: int, message_id: int) -> HeldMessage:
    """Lock a message, its room's counter and the actor's membership until the transaction ends; one query.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member, or sees no such message
    in the room.
    """
    row = None
    if may_be_id(room_id, "room_id") and may_be_id(message_id, "message_id"):
        row = _first_row(_message_statement(), {"room": room_id, "actor": actor.pk, "message": message_id})
    if row is None:
        raise NotFound("There is no such message, or you are not a member of its room.", message_id=message_id)
    return HeldMessage(*row)


def hold_room_locked(actor: AbstractBaseUser, *, room_id: int) -> HeldRoom:
    """Lock a room, its counter and the actor's membership until the transaction ends; one query.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member.
    """
    row = None
    if may_be_id(room_id, "room_id"):
        row = _first_row(_room_statement(), {"room": room_id, "actor": actor.pk})
    if row is None:
        raise NotFound("There is no such room, or you are not a member of it.", room=room_id)
    return HeldRoom(*row)


def hold_users_locked(users: Collection[AbstractBaseUser]) -> None:
    """Keep users from being deleted until the transaction ends; one query.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` for deleted users.
    """
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_users_statement(), [[user.pk for user in users]])
        found = {key for (key,) in cursor.fetchall()}
    _require_none([user for user in users if user.pk not in found])


def require_stored(users: Collection[AbstractBaseUser]) -> None:
    """Raise ``NotFound`` for users who never had a row, or say themselves that it was deleted; no query."""
    _require_none([user for user in users if user.pk is None])


def _require_none(missing: Collection[AbstractBaseUser]) -> None:
    if missing:
        names = [user.get_username() for user in missing]
        raise NotFound(f"No such user: {', '.join(names)}.", usernames=names)


def _first_row(statement: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(statement, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
        return row


@lru_cache(maxsize=1)
def _users_statement() -> str:
    user = get_user_model()
    key = column_of(user, "pk")
    # In one order, so that two who hold the same users don't wait for each other in a circle.
    return f"SELECT {key} FROM {table_of(user)} WHERE {key} = ANY(%s::{user_key_type()}[]) ORDER BY 1 FOR KEY SHARE"


@lru_cache(maxsize=1)
def _member_and_counter() -> str:
    # Each part asks for the one before, so that the locks are taken in this order.
    return f"""
WITH member AS (
    SELECT role, visible_after_seq FROM {table_of(Membership)}
    WHERE room_id = %(room)s AND user_id = %(actor)s AND left_seq IS NULL
    FOR SHARE
), counter AS (
    SELECT room_id FROM {table_of(RoomCounter)}
    WHERE room_id = %(room)s AND EXISTS (SELECT FROM member)
    FOR NO KEY UPDATE
)"""


@lru_cache(maxsize=1)
def _message_statement() -> str:
    return f"""{_member_and_counter()}, message AS (
    SELECT seq, sender_id, content, deleted_at, extract(epoch FROM clock_timestamp() - timestamp)::float8 AS age
    FROM {table_of(Message)}
    -- Found by its id: no index begins with a sum.
    WHERE id = %(message)s AND room_id + 0 = %(room)s AND EXISTS (SELECT FROM counter)
    FOR NO KEY UPDATE
)
SELECT role, (SELECT kind FROM {table_of(ChatRoom)} WHERE id = %(room)s),
       sender_id IS NOT DISTINCT FROM %(actor)s, content, deleted_at, age
FROM member JOIN message ON seq > visible_after_seq
"""


@lru_cache(maxsize=1)
def _room_statement() -> str:
    return f"""{_member_and_counter()}
SELECT kind, name FROM {table_of(ChatRoom)}
WHERE id = %(room)s AND EXISTS (SELECT FROM counter)
FOR NO KEY UPDATE
"""
