from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections, transaction

from ..conf import messaging_settings
from ..events import MessageEdited, NotificationCreated, emit_on_commit
from ..exceptions import Conflict, Forbidden
from ..models import Membership, Mention, Message, MessageRevision, Notification, RoomCounter
from ..models.content import clean_content
from ..models.ids import may_be_id
from ..selectors import message_by_id
from ..tenancy import TENANT_DATABASE, current_schema, table_of
from ..types import MessageData, NotificationData
from .holding import HeldMessage, hold_message_locked
from .mentions import resolve_mentions
from .messages import mention_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AbstractBaseUser


def edit_message(actor: AbstractBaseUser, *, room_id: int, message_id: int, content: str) -> MessageData:
    """Give a message of the actor's own another text, and return it as it is now.

    The text before is kept as a revision. Members who are mentioned for the first time are notified, unless they joined
    later and don't see the message; who is no longer mentioned disappears from ``mentioned_users``. The same text again
    changes nothing, so that a repeat is safe. Four queries, one more for a text with mentions.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member or sees no such message
    in the room, ``Forbidden`` for somebody else's message or after ``EDIT_WINDOW``, ``Conflict`` for a deleted one,
    ``Invalid`` for an empty or too long text.
    """
    content = clean_content(content)
    is_possible = may_be_id(room_id, "room_id")
    mentioned = [key for key, _user in resolve_mentions(room_id, content, sender_key=actor.pk)] if is_possible else []
    with transaction.atomic(using=TENANT_DATABASE):
        held = hold_message_locked(actor, room_id=room_id, message_id=message_id)
        if not held.is_sender:
            raise Forbidden("Only its sender may edit a message.")
        if held.deleted_at is not None:
            raise Conflict("The message was deleted.", message_id=message_id)
        if held.content == content:
            return message_by_id(message_id)
        _require_window(held)
        notifications = _write(actor, room_id, message_id, content, mentioned)
        message = message_by_id(message_id)
        schema_name = current_schema()
        seq = message.changed_seq
        emit_on_commit(
            MessageEdited(schema_name, room_id, seq, seq - 1, message),
            *(NotificationCreated(schema_name, notification) for notification in notifications),
        )
        return message


def _require_window(held: HeldMessage) -> None:
    window = messaging_settings.EDIT_WINDOW
    if window is not None and held.age > window:
        raise Forbidden(f"A message may be edited for {window:g} seconds.", edit_window=window)


def _write(
    actor: AbstractBaseUser, room_id: int, message_id: int, content: str, mentioned: Sequence[Any]
) -> list[NotificationData]:
    """Write a held message's new text with all that belongs to it; return the new notifications."""
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            _statement(),
            {
                "room": room_id,
                "message": message_id,
                "content": content,
                "mentioned": list(mentioned),
                "mention_text": mention_text(actor),
            },
        )
        (told,) = cursor.fetchone()
    return [
        NotificationData(
            row["id"],
            row["user_id"],
            row["text"],
            message_id,
            room_id,
            datetime.fromisoformat(row["created_at"]),
            is_read=False,
        )
        for row in json.loads(told)
    ]


@lru_cache(maxsize=1)
def _statement() -> str:
    message, counter = table_of(Message), table_of(RoomCounter)
    key_type = get_user_model()._meta.pk.rel_db_type(connections[TENANT_DATABASE])
    # An edit is no activity that would bring the conversation to the top of the list.
    return f"""
WITH place AS (
    UPDATE {counter} SET last_seq = last_seq + 1 WHERE room_id = %(room)s
    RETURNING last_seq
), kept AS (
    INSERT INTO {table_of(MessageRevision)} (message_id, content, written_at, replaced_at)
    SELECT id, content, coalesce(edited_at, timestamp), clock_timestamp() FROM {message} WHERE id = %(message)s
    RETURNING replaced_at
), written AS (
    UPDATE {message}
    SET content = %(content)s,
        changed_seq = (SELECT last_seq FROM place),
        edited_at = (SELECT replaced_at FROM kept)
    WHERE id = %(message)s
), named AS MATERIALIZED (
    -- Members who don't see the message hear nothing of it. Nobody joins or leaves while the counter is locked.
    SELECT user_id FROM unnest(%(mentioned)s::{key_type}[]) AS name (user_id)
    WHERE (SELECT visible_after_seq FROM {table_of(Membership)} member
           WHERE room_id = %(room)s AND member.user_id = name.user_id AND left_seq IS NULL)
          < (SELECT seq FROM {message} WHERE id = %(message)s)
), no_longer AS (
    DELETE FROM {table_of(Mention)}
    WHERE message_id = %(message)s AND user_id <> ALL (ARRAY(SELECT user_id FROM named))
), mentioned AS (
    INSERT INTO {table_of(Mention)} (message_id, user_id)
    SELECT %(message)s, user_id FROM named
    ON CONFLICT (message_id, user_id) DO NOTHING
), told AS (
    -- Who was told about the message isn't told again. The receiver of a direct one always was.
    INSERT INTO {table_of(Notification)} (user_id, message_id, notification_text, is_read, created_at)
    SELECT user_id, %(message)s, %(mention_text)s, false, clock_timestamp() FROM named
    ON CONFLICT (user_id, message_id) DO NOTHING
    RETURNING id, user_id, notification_text, created_at
)
SELECT coalesce(jsonb_agg(jsonb_build_object(
           'id', id, 'user_id', user_id::text, 'text', notification_text, 'created_at', created_at)), '[]'::jsonb)
FROM told
"""
