"""The statement for a message that comes alone, as most do on most sites.

It does what :mod:`.batch` does for several, in the same order of locks, with values in place of arrays, and without
the parts for an answer or for mentions where there are none. So its plan is small enough to be kept for each tenant:
planning the statement for several takes PostgreSQL four times as long as carrying it out. Each table is looked up by
the key of a unique index, and nothing is joined but a room with its counter; so a plan that was made for small tables
is right for large ones.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone

from ...models import ChatRoom, Membership, Mention, Message, Notification, RoomCounter
from ...tenancy import TENANT_DATABASE, column_of, current_schema, execute_prepared, table_in, table_of
from .rows import PASS_OVER_LOCKED, Outcome

if TYPE_CHECKING:
    from .rows import LockedRows, Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Shape(NamedTuple):
    """Which of the statements for one message it is."""

    schema_name: str
    locked: LockedRows
    is_answer: bool
    has_mentions: bool


def execute(row: Row, locked: LockedRows) -> Outcome:
    """Write a message, or find out why not; one query."""
    shape = _Shape(current_schema(), locked, row.reply_to is not None, bool(row.mentioned))
    values: dict[str, Any] = {
        "room": row.room_id,
        "sender": row.sender,
        "client_id": row.client_id,
        "content": row.content,
        "direct_text": row.direct_text,
    }
    if shape.is_answer:
        values["reply_to"] = row.reply_to
    if shape.has_mentions:
        values |= {"mentioned": list(row.mentioned), "mention_text": row.mention_text}
    found = execute_prepared(_statement(shape), values)
    if found is None:
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute(_statement(shape), values)
            found = cursor.fetchone()[0]
    return _outcome(json.loads(found))


def _outcome(found: list[Any]) -> Outcome:
    *rest, microseconds, receiver, receiver_name, told = found
    moment = None if microseconds is None else _local(EPOCH + timedelta(microseconds=microseconds))
    return Outcome._make([*rest, moment, receiver, receiver_name, [tuple(pair) for pair in told]])


def _local(moment: datetime) -> datetime:
    """Return a moment as Django reads it from the database."""
    zone = connections[TENANT_DATABASE].timezone
    return moment if zone is UTC else timezone.make_naive(moment) if zone is None else moment.astimezone(zone)


@lru_cache(maxsize=4096)
def _statement(shape: _Shape) -> str:
    """Return the statement, with its parameters by name."""
    user = get_user_model()
    key_type = user._meta.pk.rel_db_type(connections[TENANT_DATABASE])
    users, key, username = table_of(user), column_of(user, "pk"), column_of(user, user.USERNAME_FIELD)
    message, membership, counter, room, notification, mention = (
        table_in(shape.schema_name, model)
        for model in (Message, Membership, RoomCounter, ChatRoom, Notification, Mention)
    )
    locked = shape.locked.clause
    needed = f"ARRAY[%(sender)s::{key_type}, (SELECT receiver_id FROM draft)]"
    if shape.has_mentions:
        needed += f" || %(mentioned)s::{key_type}[]"

    def for_answer(part: str, otherwise: str = "") -> str:
        return part if shape.is_answer else otherwise

    def for_mentions(part: str) -> str:
        return part if shape.has_mentions else ""

    reply_seq = for_answer(
        f"(SELECT seq FROM {message} WHERE id = %(reply_to)s::bigint AND room_id + 0 = %(room)s::bigint)",
        "NULL::bigint",
    )
    answered = for_answer(f""", answered AS MATERIALIZED (
    SELECT id FROM {message} WHERE id = %(reply_to)s::bigint AND (SELECT reply_seq FROM draft) IS NOT NULL
    AND (SELECT count(*) FROM person) > 0 FOR KEY SHARE {locked}
)""")
    all_free = ""
    if shape.locked is PASS_OVER_LOCKED:
        # What isn't found is locked, or was deleted. A sender that waits for it finds out which, and writes the message
        # without it if need be.
        all_free = f"""AND NOT EXISTS (SELECT FROM unnest({needed}) AS needed (id)
                    WHERE id IS NOT NULL AND id NOT IN (SELECT id FROM person))
    {for_answer("AND EXISTS (SELECT FROM answered)")}"""
    mentioned = for_mentions(f""", mention AS (
    SELECT written.id, user_id, timestamp, receiver_id, place
    FROM written CROSS JOIN unnest(%(mentioned)s::{key_type}[]) WITH ORDINALITY AS name (user_id, place)
    WHERE user_id IN (SELECT id FROM person)
), mentioned AS (
    INSERT INTO {mention} (message_id, user_id) SELECT id, user_id FROM mention ORDER BY place
)""")
    told_of_mention = for_mentions("""
    UNION ALL SELECT user_id, id, %(mention_text)s::text, false, timestamp FROM mention WHERE receiver_id IS NULL""")
    # Each part asks for the one before, so that the locks are taken in this order.
    return f"""
WITH draft AS MATERIALIZED (
    SELECT kind,
           (SELECT id FROM {message}
            WHERE sender_id = %(sender)s::{key_type} AND client_id = %(client_id)s::uuid) AS earlier_id,
           (SELECT visible_after_seq FROM {membership}
            WHERE room_id = %(room)s::bigint AND user_id = %(sender)s::{key_type} AND left_seq IS NULL)
               AS visible_after_seq,
           {reply_seq} AS reply_seq,
           -- In the order of an index: asked for any, the planner may read all memberships for one.
           CASE kind WHEN 'direct' THEN (SELECT user_id FROM {membership}
                                         WHERE room_id = %(room)s::bigint AND user_id <> %(sender)s::{key_type}
                                         ORDER BY user_id LIMIT 1)
           END AS receiver_id
    FROM (VALUES (0)) AS one LEFT JOIN {room} ON id = %(room)s::bigint
), person AS MATERIALIZED (
    SELECT {key} AS id FROM {users} WHERE {key} = ANY({needed}) ORDER BY 1 FOR KEY SHARE {locked}
){answered}, member AS MATERIALIZED (
    SELECT FROM {membership}
    WHERE room_id = %(room)s::bigint AND user_id = %(sender)s::{key_type} AND left_seq IS NULL
    AND (SELECT earlier_id FROM draft) IS NULL
    AND (SELECT count(*) FROM person WHERE id = %(sender)s::{key_type}) > 0
    {for_answer("AND (SELECT count(*) FROM answered) >= 0")} FOR SHARE {locked}
), free AS MATERIALIZED (
    SELECT room_id FROM {counter} AS counter JOIN {room} AS room ON room.id = room_id
    WHERE room_id = %(room)s::bigint AND EXISTS (SELECT FROM member)
    {for_answer("AND (SELECT reply_seq > visible_after_seq FROM draft)")} {all_free}
    FOR UPDATE OF counter {locked} FOR KEY SHARE OF room {locked}
), place AS (
    UPDATE {counter} SET last_seq = last_seq + 1, last_activity_at = clock_timestamp()
    WHERE room_id = (SELECT room_id FROM free) RETURNING last_seq AS seq
), written AS (
    INSERT INTO {message} (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read,
                           reply_to_id, client_id)
    SELECT %(room)s::bigint, seq, seq, %(sender)s::{key_type},
           (SELECT id FROM person WHERE id = (SELECT receiver_id FROM draft)), %(content)s::text, clock_timestamp(),
           false, {for_answer("(SELECT id FROM answered)", "NULL")}, %(client_id)s::uuid
    FROM place
    RETURNING id, seq, timestamp, receiver_id
){mentioned}, told AS (
    INSERT INTO {notification} (user_id, message_id, notification_text, is_read, created_at)
    SELECT receiver_id, id, %(direct_text)s::text, false, timestamp FROM written WHERE receiver_id IS NOT NULL
    {told_of_mention}
    RETURNING id, user_id
)
SELECT json_build_array(
    visible_after_seq IS NOT NULL,
    written.id IS NULL AND visible_after_seq IS NOT NULL AND earlier_id IS NULL
    {for_answer("AND coalesce(reply_seq > visible_after_seq, false)")},
    earlier_id, reply_seq, kind, written.id, seq, (extract(epoch FROM timestamp) * 1000000)::bigint,
    written.receiver_id::text, (SELECT {username} FROM {users} WHERE {key} = written.receiver_id),
    (SELECT coalesce(json_agg(json_build_array(id, user_id::text)), '[]') FROM told)
)::text
FROM draft LEFT JOIN written ON true
"""
