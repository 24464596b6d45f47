from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import connections, transaction

from ..events import MessageDeleted, emit_on_commit
from ..exceptions import Forbidden
from ..models import ChatRoom, Membership, Mention, Message, MessageRevision, Notification, RoomCounter
from ..selectors import message_by_id, user_ref
from ..tenancy import TENANT_DATABASE, current_schema, table_of
from .holding import hold_message_locked

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from ..types import MessageData


def delete_message(actor: AbstractBaseUser, *, room_id: int, message_id: int) -> MessageData:
    """Delete a message for everybody, and return what is left of it.

    Its text, earlier versions and mentions go, and so do the notifications about it. Its place in the timeline stays,
    and so do the answers to it. The sender may delete, in a group its owners too. Deleting again changes nothing, so
    that a repeat is safe. Four queries.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member or sees no such message
    in the room, ``Forbidden`` for somebody else's message.
    """
    with transaction.atomic(using=TENANT_DATABASE):
        held = hold_message_locked(actor, room_id=room_id, message_id=message_id)
        is_owner = held.room_kind == ChatRoom.Kind.GROUP and held.role == Membership.Role.OWNER
        if not held.is_sender and not is_owner:
            raise Forbidden("Only its sender, or an owner of the group, may delete a message.")
        if held.deleted_at is not None:
            return message_by_id(message_id)
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute(_statement(), {"room": room_id, "message": message_id})
        message = message_by_id(message_id)
        seq = message.changed_seq
        emit_on_commit(MessageDeleted(current_schema(), room_id, seq, seq - 1, message, user_ref(actor)))
        return message


@lru_cache(maxsize=1)
def _statement() -> str:
    belongings = (Mention, MessageRevision, Notification)
    removals = ",\n".join(
        f"{model._meta.model_name}_rows AS (DELETE FROM {table_of(model)} WHERE message_id = %(message)s)"
        for model in belongings
    )
    # A deletion is no activity that would bring the conversation to the top of the list.
    return f"""
WITH place AS (
    UPDATE {table_of(RoomCounter)} SET last_seq = last_seq + 1 WHERE room_id = %(room)s
    RETURNING last_seq
),
{removals}
UPDATE {table_of(Message)}
SET content = '',
    changed_seq = (SELECT last_seq FROM place),
    edited_at = NULL,
    deleted_at = clock_timestamp()
WHERE id = %(message)s
"""
