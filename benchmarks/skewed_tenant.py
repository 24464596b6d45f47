"""One tenant in which everything that can be lopsided is: see `make bench-skew`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection, transaction

LABEL = "django_tenant_messaging"
SCHEMA = "skewed"
HUGE, DIRECT = 1, 2
"""Ids of the huge room and of the direct room with many unread messages."""
STALE_MESSAGES = 1_000
"""Messages that the huge room had when the tables were last analysed."""

# No foreign key is checked: the rows are right by construction, and checking them takes longer than writing.
BUILD = """
SET LOCAL session_replication_role = replica;
INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active, date_joined)
SELECT 'user' || n, '', n = 1, '', '', '', n = 1, true, now() FROM generate_series(1, {users}) n;
INSERT INTO {app}userstatus (user_id, is_online, connections) SELECT id, id % 2 = 0, '{{}}' FROM auth_user;
INSERT INTO {app}chatroom (kind, name, created_at, epoch, changed_seq, direct_key)
SELECT CASE WHEN n % 3 = 2 THEN 'direct' ELSE 'group' END, CASE WHEN n % 3 = 2 THEN '' ELSE 'room ' || n END,
       now(), gen_random_uuid(), 0, CASE WHEN n % 3 = 2 THEN n::text END
FROM generate_series(1, {rooms} + 2) n;
INSERT INTO {app}roomcounter (room_id, last_seq, last_activity_at)
SELECT id, CASE id WHEN 1 THEN {messages} WHEN 2 THEN {unread} ELSE 20 END, now() - id * interval '1 s'
FROM {app}chatroom;
-- The huge room's first member owns it; nine in ten members came later, one by one. The third is in the direct room.
INSERT INTO {app}membership (room_id, user_id, role, last_read_seq, visible_after_seq, joined_seq, joined_at,
                             changed_seq)
SELECT room, who, CASE WHEN who = 1 THEN 'owner' ELSE 'member' END, 0, 0, came, now() - interval '1 day', came
FROM (SELECT 1 AS room, n AS who, CASE WHEN n * 10 > {members} THEN n ELSE 0 END AS came
      FROM generate_series(1, {members}) n
      UNION ALL SELECT 2, n, 0 FROM generate_series(3, 4) n
      UNION ALL SELECT n, {members} + CASE WHEN n <= {rooms} * 2 / 3 + 2 THEN 2 WHEN n <= {rooms} * 2 / 3 + 52 THEN 1
                                           ELSE 3 END, 0 FROM generate_series(3, {rooms} + 2) n
      UNION ALL SELECT n, {members} + 4 + n, 0 FROM generate_series(3, {rooms} + 2) n) m;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT 1, n, n, n % {members} + 1, NULL, 'what was said, number ' || n, now() - ({messages} - n) * interval '10 s',
       false, gen_random_uuid()
FROM generate_series(1, {messages}) n;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT r.id, n, n, {members} + 4 + r.id, CASE WHEN r.kind = 'direct' THEN {members} + 2 END, 'few words, ' || n, now(),
       false, gen_random_uuid()
FROM {app}chatroom r, generate_series(1, 20) n WHERE r.id > 2;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT 2, n, n, 4, 3, 'to you alone, number ' || n, now(), false, gen_random_uuid() FROM generate_series(1, {unread}) n;
INSERT INTO {app}mention (message_id, user_id)
SELECT id, 3 FROM {app}message WHERE room_id = 1 AND seq % ({messages} / {unread}) = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 3, id, 'told', room_id = 1, timestamp FROM {app}message
WHERE room_id = 2 OR room_id = 1 AND seq % ({messages} / {unread}) = 0;
"""

MAKE_UNREAD = """
UPDATE {app}notification n SET is_read = false FROM {app}message m WHERE m.id = message_id AND room_id = 2 AND n.is_read
UPDATE {app}message SET is_read = false WHERE is_read
UPDATE {app}membership SET last_read_seq = 0 WHERE last_read_seq > 0
VACUUM {app}notification, {app}message, {app}membership
"""


@dataclass(frozen=True)
class Skewed:
    """Who asks, and about how much."""

    messages: int
    unread: int
    message: int
    """Id of a message in the middle of the huge room."""
    writer: Any
    """Wrote it."""
    crowd: list[Any]
    """Fifty members of the huge room."""
    owner: Any
    """Of the huge room; may use the admin."""
    member: Any
    """One of those who came later."""
    told: Any
    """Has as many unread messages as notifications about them, and as many notifications that were read."""
    few: Any
    """In fifty small rooms."""
    many: Any
    """In two thirds of the small rooms."""


def numbers(messages: int) -> dict[str, int]:
    """Return how many there are of everything beside so many messages of the huge room."""
    return {
        "messages": messages,
        "members": messages // 100,
        "users": messages // 100 + max(messages // 10, 3_500),
        "rooms": 3_000,
        "unread": messages // 10,
    }


def tables() -> list[str]:
    """Name the tables that grow."""
    return [f'"{model._meta.db_table}"' for model in [*apps.get_app_config(LABEL).get_models(), get_user_model()]]


def fill(messages: int) -> Skewed:
    """Fill the current tenant; its tables were last analysed when the huge room had few messages."""
    for size in (STALE_MESSAGES, messages):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(tables())} RESTART IDENTITY CASCADE")
            cursor.execute(BUILD.format(app=f"{LABEL}_", **numbers(size)))
        if size == STALE_MESSAGES:
            analyse()
    found = numbers(messages)
    members, middle = found["members"], messages // 2
    users = get_user_model().objects.in_bulk(range(1, members + 3))
    return Skewed(
        messages=messages,
        unread=found["unread"],
        message=middle,
        writer=users[middle % members + 1],
        crowd=[users[key] for key in range(50, 100)],
        owner=users[1],
        member=users[members // 5],
        told=users[3],
        few=users[members + 1],
        many=users[members + 2],
    )


def analyse() -> None:
    """Renew the statistics, and take away what undone writes left."""
    with connection.cursor() as cursor:
        for table in tables():
            cursor.execute(f"VACUUM (ANALYZE) {table}")


def put_back() -> None:
    """Make unread again what was marked, and take away what that left; what the planner believes of values stays."""
    with connection.cursor() as cursor:
        for statement in MAKE_UNREAD.format(app=f"{LABEL}_").strip().splitlines():
            cursor.execute(statement)
