"""The statement that writes a message, and all that belongs to it, at once.

One statement is one round trip and one commit, and holds the room's counter for no longer than that. Its parts run
in the order in which they need each other:

* ``earlier``: the same sender already used this client id. Nothing is written then.
* ``member``: the right to post, locked against a removal at the same time. A removal locks in the same order,
  membership before counter, so none can come between the check and the message.
* ``answered``: the message replied to, in the same room and visible to the sender.
* ``place``: the next ``seq``. The row lock lasts until the commit: the order of the numbers is the order of commits.
* ``written``, ``mentioned``, ``told``: the rows.

``INSERT ... ON CONFLICT DO NOTHING`` after the counter would burn numbers. Two sends with one client id at the same
moment meet at the unique key instead: the second is rolled back whole and finds the first when it runs again.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, connections, transaction

from ..models import Membership, Mention, Message, Notification, RoomCounter
from ..tenancy import TENANT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID


@dataclass(frozen=True, slots=True)
class Draft:
    """A message about to be written. ``mentioned`` holds user keys."""

    room_id: int
    sender: Any
    client_id: UUID
    content: str
    reply_to: int | None
    mentioned: Sequence[Any]
    direct_text: str
    mention_text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the statement found and wrote."""

    is_member: bool
    earlier_id: int | None
    reply_seq: int | None
    room_kind: str | None
    message_id: int | None
    seq: int | None
    timestamp: datetime | None
    receiver: Any
    receiver_name: str | None
    notifications: list[dict[str, Any]]


def write_message(draft: Draft) -> Outcome:
    """Write a message with its mentions and notifications, or find out why not."""
    try:
        return _execute(draft)
    except IntegrityError:
        return _execute(draft)


def _execute(draft: Draft) -> Outcome:
    connection = connections[TENANT_DATABASE]
    # In the host's transaction a failed statement must not take the rest along.
    scope = transaction.atomic(using=TENANT_DATABASE) if connection.in_atomic_block else nullcontext()
    with scope, connection.cursor() as cursor:
        cursor.execute(
            _statement(),
            {
                "room": draft.room_id,
                "sender": draft.sender,
                "client_id": draft.client_id,
                "content": draft.content,
                "reply_to": draft.reply_to,
                "mentioned": list(draft.mentioned),
                "direct_text": draft.direct_text,
                "mention_text": draft.mention_text,
            },
        )
        row = cursor.fetchone()
        fields: list[Any] = list(row)
        fields[-1] = json.loads(fields[-1])
        return Outcome(*fields)


@lru_cache(maxsize=1)
def _statement() -> str:
    user = get_user_model()._meta
    key_type = user.pk.rel_db_type(connections[TENANT_DATABASE])
    username: str = getattr(user.get_field(get_user_model().USERNAME_FIELD), "column")  # noqa: B009 - stubs
    message, mention = Message._meta.db_table, Mention._meta.db_table
    membership, counter = Membership._meta.db_table, RoomCounter._meta.db_table
    notification = Notification._meta.db_table
    room = Message._meta.get_field("room").related_model._meta.db_table
    return f"""
WITH earlier AS (
    SELECT id FROM {message} WHERE sender_id = %(sender)s AND client_id = %(client_id)s
), member AS (
    SELECT visible_after_seq FROM {membership}
    WHERE room_id = %(room)s AND user_id = %(sender)s AND left_seq IS NULL
    FOR SHARE
), answered AS (
    SELECT id, seq FROM {message}
    WHERE id = %(reply_to)s::bigint AND room_id = %(room)s AND seq > (SELECT visible_after_seq FROM member)
), place AS (
    UPDATE {counter} SET last_seq = last_seq + 1, last_activity_at = clock_timestamp()
    WHERE room_id = %(room)s
      AND NOT EXISTS (SELECT FROM earlier)
      AND EXISTS (SELECT FROM member)
      AND (%(reply_to)s::bigint IS NULL OR EXISTS (SELECT FROM answered))
    RETURNING last_seq
), other AS (
    SELECT user_id FROM {membership}
    WHERE room_id = %(room)s AND user_id <> %(sender)s
      AND EXISTS (SELECT FROM {room} WHERE id = %(room)s AND kind = 'direct')
    LIMIT 1
), written AS (
    INSERT INTO {message} (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read,
                           reply_to_id, client_id)
    SELECT %(room)s, last_seq, last_seq, %(sender)s, (SELECT user_id FROM other), %(content)s, clock_timestamp(),
           false, %(reply_to)s::bigint, %(client_id)s
    FROM place
    RETURNING id, seq, timestamp, receiver_id
), mentioned AS (
    INSERT INTO {mention} (message_id, user_id)
    SELECT written.id, name.user_id FROM written, unnest(%(mentioned)s::{key_type}[]) AS name (user_id)
), told AS (
    INSERT INTO {notification} (user_id, message_id, notification_text, is_read, created_at)
    SELECT receiver_id, id, %(direct_text)s, false, timestamp FROM written WHERE receiver_id IS NOT NULL
    UNION ALL
    SELECT name.user_id, id, %(mention_text)s, false, timestamp
    FROM written, unnest(%(mentioned)s::{key_type}[]) AS name (user_id)
    WHERE receiver_id IS NULL
    RETURNING id, user_id, notification_text
)
SELECT EXISTS (SELECT FROM member),
       (SELECT id FROM earlier),
       (SELECT seq FROM answered),
       (SELECT kind FROM {room} WHERE id = %(room)s),
       written.id, written.seq, written.timestamp, written.receiver_id,
       (SELECT "{username}" FROM "{user.db_table}" WHERE "{user.pk.column}" = written.receiver_id),
       coalesce((SELECT jsonb_agg(jsonb_build_object('id', id, 'user_id', user_id::text, 'text', notification_text))
                 FROM told), '[]'::jsonb)
FROM (VALUES (1)) AS always LEFT JOIN written ON true
"""
