"""A tenant in which nothing is even, made by SQL in two sizes, and what its database says about statements."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from django_tenant_messaging.tenancy import activated
from django_tenant_messaging.tenancy.thread_connections import RANDOM_PAGE_COST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABEL = "django_tenant_messaging"
SETTINGS = {"host": [], "worker": [f"SET LOCAL random_page_cost = {RANDOM_PAGE_COST}"]}
"""How the host's own connections plan, and those of the worker threads."""
NOT_EXPLAINED = ("SET ", "SAVEPOINT ", "RELEASE ", "ROLLBACK ", "PREPARE ")
"""What PostgreSQL has no plan for. What is prepared is executed next, and explained then."""

BUILD = """
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
SELECT id, CASE id WHEN 1 THEN {messages} WHEN 2 THEN {messages} / 4 ELSE 2 END, now() - id * interval '1 s'
FROM {app}chatroom;
-- The huge room has half of the users, among them the first, who is in forty small rooms besides. The fourth has left.
INSERT INTO {app}membership (room_id, user_id, role, last_read_seq, visible_after_seq, joined_seq, joined_at,
                             changed_seq, left_seq, left_at, left_by_choice)
SELECT room, who, CASE WHEN who = 1 AND room <> 1 OR who = 3 AND room = 1 THEN 'owner' ELSE 'member' END, 0, 0,
       CASE WHEN room = 1 THEN who ELSE 0 END, now() - interval '1 day', CASE WHEN room = 1 THEN who ELSE 0 END,
       CASE WHEN room = 1 AND who = 4 THEN 4 END, CASE WHEN room = 1 AND who = 4 THEN now() END, room = 1 AND who = 4
FROM (SELECT 1 AS room, n AS who FROM generate_series(1, {members}) n
      UNION SELECT n, 1 FROM generate_series(2, {rooms_of_one} + 1) n
      UNION SELECT n, n % {users} + 1 FROM generate_series(2, {rooms}) n) m;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT 1, n, n, (n - 1) % {members} + 1, NULL, 'message ' || n, now(), false, gen_random_uuid()
FROM generate_series(1, {messages}) n;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT 2, n, n, 3, 1, 'told ' || n, now(), false, gen_random_uuid() FROM generate_series(1, {messages} / 4) n;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT r.id, n, n, r.id % {users} + 1, CASE WHEN r.kind = 'direct' AND r.id <= 41 THEN 1 END, 'small ' || n, now(),
       false, gen_random_uuid()
FROM {app}chatroom r, generate_series(1, 2) n WHERE r.id > 2;
INSERT INTO {app}mention (message_id, user_id) SELECT id, 2 FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 2, id, 'told', false, now() FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 1, id, 'told', false, now() FROM {app}message WHERE receiver_id = 1;
INSERT INTO {app}messagerevision (message_id, content, written_at, replaced_at)
SELECT id, 'before', now(), now() FROM {app}message WHERE seq % 4 = 1;
"""


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
    """Has left the huge room."""


@dataclass(frozen=True)
class Explained:
    """A statement and its plan, as it was run."""

    sql: str
    plan: dict[str, Any]

    @property
    def buffers(self) -> int:
        """How many the statement touched."""
        return buffers_of(self.plan)

    @property
    def read_whole(self) -> set[str]:
        """The large tables of which it read all rows."""
        found = {
            node["Relation Name"] for _, node in nodes(self.plan) if node["Node Type"] == "Seq Scan" and is_run(node)
        }
        return found & set(tables())

    def __str__(self) -> str:
        return "\n".join([" ".join(self.sql.split())[:300], *self._lines()])

    def _lines(self) -> Iterator[str]:
        for depth, node in nodes(self.plan):
            if is_run(node):
                where = " ".join(node[key] for key in ("Node Type", "Relation Name", "Index Name") if key in node)
                rows = f"{node['Actual Rows']:g} rows {node['Actual Loops']} times"
                yield f"{'  ' * depth}{where}: {buffers_of(node)} buffers, {rows}"


def nodes(plan: dict[str, Any], depth: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a plan's nodes, each with its depth."""
    yield depth, plan
    for part in plan.get("Plans", ()):
        yield from nodes(part, depth + 1)


def buffers_of(node: dict[str, Any]) -> int:
    """How many buffers a node and those below it touched."""
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


def is_run(node: dict[str, Any]) -> bool:
    """Say whether a node had anything to do."""
    return bool(node["Actual Loops"])


def tables() -> list[str]:
    """The tables that grow with what a tenant's users do."""
    return [model._meta.db_table for model in [*apps.get_app_config(LABEL).get_models(), get_user_model()]]


def build(schema_name: str, size: int) -> Skewed:
    """Fill a tenant, whose statistics are of a time when all was small and even."""
    every = ", ".join(f'"{table}"' for table in tables())

    def fill(**numbers: int) -> None:
        cursor.execute(BUILD.format(app=f"{LABEL}_", **numbers))

    with activated(schema_name), connection.cursor() as cursor:
        for table in tables():
            cursor.execute(f'ALTER TABLE "{table}" SET (autovacuum_enabled = false)')
        fill(users=40, rooms=40, messages=4, members=4, rooms_of_one=1)
        cursor.execute(f"ANALYZE {every}")
        cursor.execute(f"TRUNCATE {every} RESTART IDENTITY CASCADE")
        fill(users=2_500 * size, rooms=2_500 * size, messages=8_000 * size, members=1_250 * size, rooms_of_one=40)
        users = get_user_model().objects
        return Skewed(schema_name, *(users.get(username=f"user{number}") for number in (1, 2, 3, 4)))


def analyse(tenant: Skewed) -> None:
    """Give a tenant statistics of now, as coarse as a sample of a table a hundred times as large makes them."""
    with activated(tenant.schema_name), connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {LABEL}_message ALTER COLUMN room_id SET (n_distinct = 10)")
        cursor.execute("ANALYZE " + ", ".join(f'"{table}"' for table in tables()))


@contextmanager
def undone() -> Iterator[None]:
    """Undo what the body writes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def explained(tenant: Skewed, settings: str, ask: Callable[[Skewed], Any]) -> list[Explained]:
    """Do what is asked, and explain each statement in the state that it finds."""
    found: list[Explained] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.lstrip().startswith(NOT_EXPLAINED):
            with _without_wrappers():
                found.extend(_explain(sql, values, settings) for values in (params if many else [params]))
        return execute(sql, params, many, context)

    with activated(tenant.schema_name), undone(), connection.execute_wrapper(explain):
        ask(tenant)
    return found


@contextmanager
def _without_wrappers() -> Iterator[None]:
    wrappers, connection.execute_wrappers = connection.execute_wrappers, []
    try:
        yield
    finally:
        connection.execute_wrappers = wrappers


def _explain(sql: str, values: Any, settings: str) -> Explained:
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT explained")
        for setting in SETTINGS[settings]:
            cursor.execute(setting)
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}", values)
        ((told,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT explained")
        cursor.execute("RELEASE SAVEPOINT explained")
    return Explained(sql, told[0]["Plan"])
