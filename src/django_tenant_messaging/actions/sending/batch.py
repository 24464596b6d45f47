"""The statement that writes messages, and all that belongs to them, at once.

One statement is one round trip and one commit, however many messages there are. Its parts run in the order in which
they need each other:

* ``draft``: what is to be written, one row each. ``named``: whom it mentions.
* ``person``, ``answered``: the users and the earlier messages that the rows will refer to, locked against their
  deletion. The database would lock them by itself for the foreign keys, but at the end and waiting. Whoever deletes a
  user has the user's row first and then wants the memberships; so the users come first here too.
* ``member``: the right to post, locked against a removal at the same time. A removal locks in the same order,
  membership before counter, so none can come between the check and the message.
* ``able``: the drafts that may be written: nothing was sent with their client id before, their sender is a member, and
  what they reply to is in the room and visible to the sender. Numbered within their room.
* ``place``: the next ``seq`` of each room. The row lock lasts until the commit: the order of the numbers is the order
  of commits.
* ``written``, ``mentioned``, ``told``: the rows.

Rows of tables that may be large are looked up by arrays or one by one, never by a join: as it takes each array for a
hundred messages, the planner would read all users, or all rooms, for a few of them. An answered message is found by its
id: no index begins with the sum to which its room is compared, so that none leads through the room.

``INSERT ... ON CONFLICT DO NOTHING`` after the counter would burn numbers. Two sends with one client id at the same
moment meet at the unique key instead: the second is rolled back whole and finds the first when it runs again.

Messages for several rooms must not wait for each other's rooms: the statement for them passes over what somebody else
has locked (``SKIP LOCKED``) and says so. It waits for nothing but the unique key of a client id that somebody else is
just using.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import connections

from ...models import ChatRoom, Membership, Mention, Message, Notification, RoomCounter
from ...tenancy import TENANT_DATABASE, column_of, table_of
from .rows import PASS_OVER_LOCKED

if TYPE_CHECKING:
    from .rows import LockedRows


@lru_cache(maxsize=2)
def statement(locked: LockedRows) -> str:
    """Return the statement for several messages."""
    user = get_user_model()
    key_type = user._meta.pk.rel_db_type(connections[TENANT_DATABASE])
    users, key, username = table_of(user), column_of(user, "pk"), column_of(user, user.USERNAME_FIELD)
    message, mention, notification = table_of(Message), table_of(Mention), table_of(Notification)
    membership, counter, room = table_of(Membership), table_of(RoomCounter), table_of(ChatRoom)
    all_free = ""
    if locked is PASS_OVER_LOCKED:
        # Who waits for them gets them, unless they were deleted: then the message is written without them.
        # And nobody's message overtakes an earlier one of theirs in the same room.
        all_free = """
          AND NOT EXISTS (SELECT FROM locked WHERE locked.room_id = draft.room_id
                          AND locked.sender_id = draft.sender_id AND locked.n <= draft.n)"""
    return f"""
WITH draft AS MATERIALIZED (
    SELECT given.*, kind,
           (SELECT id FROM {message} m WHERE m.sender_id = given.sender_id AND m.client_id = given.client_id)
               AS earlier_id,
           (SELECT visible_after_seq FROM {membership} p
            WHERE p.room_id = given.room_id AND p.user_id = given.sender_id AND left_seq IS NULL) AS visible_after_seq,
           (SELECT seq FROM {message} m WHERE m.id = given.reply_to AND m.room_id + 0 = given.room_id)
               AS reply_seq,
           CASE kind WHEN 'direct' THEN (SELECT user_id FROM {membership} other
                                         WHERE other.room_id = given.room_id AND user_id <> given.sender_id
                                         ORDER BY user_id LIMIT 1)
           END AS receiver_id
    FROM unnest(%(rooms)s::bigint[], %(senders)s::{key_type}[], %(client_ids)s::uuid[], %(contents)s::text[],
                %(replies)s::bigint[], %(direct_texts)s::text[], %(mention_texts)s::text[]) WITH ORDINALITY
         AS given (room_id, sender_id, client_id, content, reply_to, direct_text, mention_text, n)
    LEFT JOIN LATERAL (SELECT kind FROM {room} WHERE id = given.room_id LIMIT 1) room ON true
), named AS MATERIALIZED (
    SELECT * FROM unnest(%(mention_numbers)s::bigint[], %(mention_users)s::{key_type}[]) WITH ORDINALITY
                  AS name (n, user_id, place)
), needed AS (
    SELECT n, sender_id AS user_id FROM draft
    UNION ALL SELECT n, receiver_id FROM draft WHERE receiver_id IS NOT NULL
    UNION ALL SELECT n, user_id FROM named
), person AS MATERIALIZED (
    SELECT {key} AS id FROM {users}
    WHERE {key} = ANY(ARRAY(SELECT user_id FROM needed))
    ORDER BY 1 FOR KEY SHARE {locked.clause}
), answered AS MATERIALIZED (
    SELECT id FROM {message}
    WHERE id = ANY(ARRAY(SELECT reply_to FROM draft WHERE reply_seq IS NOT NULL)) AND (SELECT count(*) FROM person) > 0
    ORDER BY id FOR KEY SHARE {locked.clause}
), member AS MATERIALIZED (
    SELECT room_id, user_id FROM {membership}
    WHERE (room_id, user_id) IN (SELECT room_id, sender_id FROM draft WHERE earlier_id IS NULL) AND left_seq IS NULL
          AND user_id IN (SELECT id FROM person) AND (SELECT count(*) FROM answered) >= 0
    ORDER BY id FOR SHARE {locked.clause}
), locked AS (
    SELECT n, room_id, sender_id FROM draft
    WHERE reply_seq IS NOT NULL AND reply_to NOT IN (SELECT id FROM answered)
          OR EXISTS (SELECT FROM needed WHERE needed.n = draft.n AND user_id NOT IN (SELECT id FROM person))
), able AS (
    SELECT draft.*, row_number() OVER (PARTITION BY draft.room_id ORDER BY n) AS number
    FROM draft JOIN member ON member.room_id = draft.room_id AND user_id = sender_id
    WHERE earlier_id IS NULL AND (reply_to IS NULL OR reply_seq > visible_after_seq){all_free}
), wanted AS (
    SELECT room_id, max(number) AS number FROM able GROUP BY room_id
), free AS MATERIALIZED (
    SELECT room_id FROM {counter} counter JOIN {room} room ON room.id = room_id
    WHERE room_id = ANY(ARRAY(SELECT room_id FROM wanted))
    ORDER BY room_id FOR UPDATE OF counter {locked.clause} FOR KEY SHARE OF room {locked.clause}
), place AS (
    UPDATE {counter} counter
    SET last_seq = last_seq + wanted.number, last_activity_at = clock_timestamp()
    FROM wanted
    WHERE counter.room_id = wanted.room_id AND counter.room_id = ANY(ARRAY(SELECT room_id FROM free))
    RETURNING counter.room_id, last_seq - wanted.number AS last_seq
), written AS (
    INSERT INTO {message} (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read,
                           reply_to_id, client_id)
    SELECT able.room_id, last_seq + number, last_seq + number, sender_id,
           (SELECT id FROM person WHERE id = receiver_id), content, clock_timestamp(), false,
           (SELECT id FROM answered WHERE id = reply_to), client_id
    FROM able JOIN place ON place.room_id = able.room_id
    ORDER BY n
    RETURNING id, seq, timestamp, receiver_id, sender_id, client_id
), numbered AS (
    SELECT written.*, n, direct_text, mention_text
    FROM written JOIN draft ON draft.sender_id = written.sender_id AND draft.client_id = written.client_id
), mention AS (
    SELECT numbered.id, user_id, timestamp, receiver_id, mention_text, place
    FROM numbered JOIN named USING (n) JOIN person ON person.id = user_id
), mentioned AS (
    INSERT INTO {mention} (message_id, user_id) SELECT id, user_id FROM mention ORDER BY place
), told AS (
    INSERT INTO {notification} (user_id, message_id, notification_text, is_read, created_at)
    SELECT receiver_id, id, direct_text, false, timestamp FROM numbered WHERE receiver_id IS NOT NULL
    UNION ALL
    SELECT user_id, id, mention_text, false, timestamp FROM mention WHERE receiver_id IS NULL
    RETURNING id, user_id, message_id
), tellings AS (
    SELECT message_id, jsonb_agg(jsonb_build_array(id, user_id::text)) AS list FROM told GROUP BY message_id
)
SELECT draft.visible_after_seq IS NOT NULL,
       numbered.id IS NULL AND draft.visible_after_seq IS NOT NULL AND draft.earlier_id IS NULL
           AND (draft.reply_to IS NULL OR draft.reply_seq > draft.visible_after_seq),
       draft.earlier_id, draft.reply_seq, draft.kind, numbered.id, numbered.seq, numbered.timestamp,
       numbered.receiver_id,
       (SELECT {username} FROM {users} WHERE {key} = numbered.receiver_id),
       coalesce(tellings.list, '[]'::jsonb)
FROM draft LEFT JOIN numbered USING (n) LEFT JOIN tellings ON message_id = numbered.id
ORDER BY n
"""
