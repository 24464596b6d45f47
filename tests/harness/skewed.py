"""A tenant in which nothing is even, made by SQL in two sizes, and what its database says about statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connection

from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy import activated
from tests.harness.explaining import LABEL, tables
from tests.harness.run import TEMPLATE, disconnect_django, point_django_at

if TYPE_CHECKING:
    from tests.harness.run import Run

SIZES = {"acme": 1, "globex": 4}
BUILD = """
-- The rows are as they should be: to look up the key of each takes longer than to write it.
SET session_replication_role = replica;
INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active, date_joined)
SELECT 'user' || n, repeat('p', 88), n = 1, 'First name', 'Last name', 'user' || n || '@example.com', n = 1, true, now()
FROM generate_series(1, {users}) n;
INSERT INTO {app}userstatus (user_id, is_online, connections) SELECT id, id % 2 = 0, '{{}}' FROM auth_user;
-- The second room is direct, as is each third one after it.
INSERT INTO {app}chatroom (kind, name, created_at, epoch, changed_seq, direct_key)
SELECT CASE WHEN n % 3 = 2 THEN 'direct' ELSE 'group' END, CASE WHEN n % 3 = 2 THEN '' ELSE 'room ' || n END,
       now(), gen_random_uuid(), 0, CASE WHEN n % 3 = 2 THEN n::text END
FROM generate_series(1, {rooms}) n;
INSERT INTO {app}roomcounter (room_id, last_seq, last_activity_at)
SELECT id, CASE id WHEN 1 THEN {messages} WHEN 2 THEN {messages} / 4 ELSE {each} END, now() - id * interval '1 s'
FROM {app}chatroom;
-- The huge room has half of the users, among them the first, who is in forty small rooms besides. The fourth has
-- left, and is in many other groups.
INSERT INTO {app}membership (room_id, user_id, role, last_read_seq, visible_after_seq, joined_seq, joined_at,
                             changed_seq, left_seq, left_at, left_by_choice)
SELECT room, who, CASE WHEN who = 1 AND room <> 1 OR who = 3 AND room = 1 THEN 'owner' ELSE 'member' END, 0, 0,
       CASE WHEN room = 1 THEN who ELSE 0 END, now() - interval '1 day', CASE WHEN room = 1 THEN who ELSE 0 END,
       CASE WHEN room = 1 AND who = 4 THEN 4 END, CASE WHEN room = 1 AND who = 4 THEN now() END, room = 1 AND who = 4
FROM (SELECT 1 AS room, n AS who FROM generate_series(1, {members}) n
      UNION SELECT n, 1 FROM generate_series(2, {rooms_of_one} + 1) n
      UNION SELECT n, n % {users} + 1 FROM generate_series(2, {rooms}) n
      UNION SELECT 3 * n, 4 FROM generate_series(20, 20 + {members} / 2) n WHERE 3 * n <= {rooms}) m
ORDER BY hashint8(room * 100000 + who);
-- Messages come to all rooms in turn, so that those of one lie far from each other.
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT room, seq, seq, sender, receiver, 'message ' || seq, now(), false, gen_random_uuid()
FROM (SELECT 1 AS room, n AS seq, (n - 1) % {members} + 1 AS sender, NULL AS receiver
      FROM generate_series(1, {messages}) n
      UNION ALL SELECT 2, n, 3, 1 FROM generate_series(1, {messages} / 4) n
      UNION ALL SELECT id, n, id % {users} + 1, CASE WHEN kind = 'direct' AND id <= 41 THEN 1 END
      FROM {app}chatroom, generate_series(1, {each}) n WHERE id > 2) m
ORDER BY hashint8(room * 100000 + seq);
INSERT INTO {app}mention (message_id, user_id) SELECT id, 2 FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 2, id, 'told', false, now() FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 1, id, 'told', false, now() FROM {app}message WHERE receiver_id = 1;
-- The fifth has read nearly all, and not the oldest.
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 5, id, 'told', seq > 50, now() FROM {app}message WHERE room_id = 1 AND seq % 4 = 1;
INSERT INTO {app}messagerevision (message_id, content, written_at, replaced_at)
SELECT id, 'before', now(), now() FROM {app}message WHERE seq % 4 = 1;
RESET session_replication_role;
"""
# As a sample of a table a hundred times as large counts rooms.
FRESH = f"ALTER TABLE {LABEL}_message ALTER COLUMN room_id SET (n_distinct = 10); ANALYZE {{every}}"
STATISTICS = {
    "old": "",
    "even": """
UPDATE pg_statistic SET stadistinct = -1, stakind1 = 0, stakind2 = 0, stakind3 = 0, stakind4 = 0, stakind5 = 0
WHERE starelid IN (SELECT attrelid FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
                   WHERE relnamespace = current_schema()::regnamespace)
""",
    "fresh": FRESH,
}
"""What a tenant's statistics are of: a time when all was small, one when nothing came twice, and now."""


@dataclass(frozen=True)
class Skewed:
    """The tenant in one size, and those who ask."""

    schema_name: str
    one: Any
    """A member of the huge room and of forty small ones, and a superuser."""
    many: Any
    """Has unread notifications of a quarter of the huge room."""
    owner: Any
    gone: Any
    """Has left the huge room, and is in many others."""
    told: Any
    """Has read nearly all of as many notifications."""
    message: int
    """A message of the owner in the huge room."""
    edited: int
    """One that has an earlier version."""


def skewed(run: Run, name: str, statistics: str) -> list[Skewed]:
    """Make a database with the tenant in both sizes and point Django at it. It is filled once for all of a run."""
    template = run.template(_fill, name="skewed", source=TEMPLATE)
    point_django_at(run.create(f"{name}_skewed_{statistics}", template=template))
    for schema_name in SIZES:
        with activated(schema_name), connection.cursor() as cursor:
            cursor.execute(STATISTICS[statistics].format(every=_every()))
    return [_found(schema_name) for schema_name in SIZES]


def _fill(url: str) -> None:
    point_django_at(url)
    for schema_name, size in SIZES.items():
        with activated(schema_name), connection.cursor() as cursor:
            for table in tables():
                cursor.execute(f'ALTER TABLE "{table}" SET (autovacuum_enabled = false)')
            early = {"users": 40, "rooms": 40, "messages": 4, "members": 4, "rooms_of_one": 1, "each": 1}
            cursor.execute(BUILD.format(app=f"{LABEL}_", **early))
            cursor.execute(f"ANALYZE {_every()}")
            cursor.execute(f"TRUNCATE {_every()} RESTART IDENTITY CASCADE")
            numbers = {"users": 2_500, "rooms": 2_500, "messages": 8_000, "members": 1_250}
            numbers = {of: number * size for of, number in numbers.items()}
            cursor.execute(BUILD.format(app=f"{LABEL}_", **numbers, rooms_of_one=40, each=2))
    disconnect_django()


def _every() -> str:
    return ", ".join(f'"{table}"' for table in tables())


def _found(schema_name: str) -> Skewed:
    with activated(schema_name):
        users = get_user_model().objects
        one, many, owner, gone, told = (users.get(username=f"user{number}") for number in range(1, 6))
        return Skewed(schema_name, one, many, owner, gone, told, message=_message_of(3), edited=_message_of(49))


def _message_of(seq: int) -> int:
    """The id of a message of the huge room."""
    return int(Message.objects.get(room_id=1, seq=seq).pk)
