"""What is asked costs the same in a tenant four times as large.

One skewed tenant is made twice: a huge room, many small ones, a user in many of them, a user with many notifications.
In both the same is asked, by every selector, action, page and list of the admin. The database counts the buffers that
it touches: as many, up to a bound, whatever the statistics say. A new one that isn't listed fails.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import get_commands
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.test import Client

from django_tenant_messaging import actions, selectors, urls
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Message,
    MessageRevision,
    Notification,
    UserStatus,
)
from django_tenant_messaging.tenancy import activated
from example.customers.models import Customer, Domain
from tests.harness.queries import fresh_statement, queries
from tests.harness.spare import spare_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LABEL = "django_tenant_messaging"
SLACK = 1.6
"""As much more as a tree has in height, when its table is four times as large."""
SMALL = 60
"""Buffers that are never too many."""

WINDOW = 100
"""Rows that a list of the admin looks at."""
BUFFERS_OF_A_ROW = 20
"""With all that a list shows of it, looked up twice: to count and to show."""

BUILD = """
INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, is_staff, is_active, date_joined)
SELECT 'user' || n, '', n = 1, '', '', '', n = 1, true, now() FROM generate_series(1, {users}) n;
INSERT INTO {app}userstatus (user_id, is_online, connections) SELECT id, id % 2 = 0, '{{}}' FROM auth_user;
INSERT INTO {app}chatroom (kind, name, created_at, epoch, changed_seq, direct_key)
SELECT CASE WHEN n % 3 = 2 THEN 'direct' ELSE 'group' END, CASE WHEN n % 3 = 2 THEN '' ELSE 'room ' || n END,
       now(), gen_random_uuid(), 0, CASE WHEN n % 3 = 2 THEN n::text END
FROM generate_series(1, {rooms}) n;
INSERT INTO {app}roomcounter (room_id, last_seq, last_activity_at)
SELECT id, CASE WHEN id = 1 THEN {messages} ELSE 5 END, now() - id * interval '1 s' FROM {app}chatroom;
-- The huge room has half of the users, among them the first, who is in forty small rooms besides.
INSERT INTO {app}membership (room_id, user_id, role, last_read_seq, visible_after_seq, joined_seq, joined_at,
                             changed_seq, left_by_choice)
SELECT room, who, CASE WHEN who = 1 AND room <> 1 OR who = 3 AND room = 1 THEN 'owner' ELSE 'member' END, 0, 0,
       CASE WHEN room = 1 THEN who ELSE 0 END, now() - interval '1 day', CASE WHEN room = 1 THEN who ELSE 0 END, false
FROM (SELECT 1 AS room, n AS who FROM generate_series(1, {users} / 2) n
      UNION SELECT n, 1 FROM generate_series(2, 41) n
      UNION SELECT n, n % {users} + 2 FROM generate_series(2, {rooms}) n WHERE n % {users} + 2 <= {users}) m;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT 1, n, n, n % ({users} / 2) + 1, NULL, 'message ' || n, now(), false, gen_random_uuid()
FROM generate_series(1, {messages}) n;
INSERT INTO {app}message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT r.id, n, n, r.id % {users} + 1, CASE WHEN r.kind = 'direct' AND r.id <= 41 THEN 1 END, 'small ' || n, now(),
       false, gen_random_uuid()
FROM {app}chatroom r, generate_series(1, 5) n WHERE r.id > 1;
INSERT INTO {app}mention (message_id, user_id) SELECT id, 2 FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 2, id, 'told', false, now() FROM {app}message WHERE room_id = 1 AND seq % 4 = 0;
INSERT INTO {app}notification (user_id, message_id, notification_text, is_read, created_at)
SELECT 1, id, 'told', false, now() FROM {app}message WHERE receiver_id = 1;
"""


@dataclass(frozen=True)
class Skewed:
    """The tenant in one size, and those who ask."""

    schema_name: str
    one: Any
    many: Any
    other: Any


def build(schema_name: str, size: int, *, statistics: str) -> None:
    """Fill a tenant; its statistics are of now, or of a time when it had a few rows."""
    tables = [f'"{model._meta.db_table}"' for model in [*apps.get_app_config(LABEL).get_models(), get_user_model()]]

    def fill(**numbers: int) -> None:
        cursor.execute(BUILD.format(app=f"{LABEL}_", **numbers))

    with activated(schema_name), connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        if statistics == "old":
            fill(users=40, rooms=50, messages=100)
            cursor.execute(f"ANALYZE {', '.join(tables)}")
            cursor.execute(f"TRUNCATE {', '.join(tables)} RESTART IDENTITY CASCADE")
        fill(users=400 * size, rooms=600 * size, messages=5_000 * size)
        if statistics == "fresh":
            cursor.execute(f"ANALYZE {', '.join(tables)}")


@pytest.fixture(scope="module", params=["fresh", "old"])
def sizes(request: Any, database_url: str, django_db_blocker: Any) -> Iterator[list[Skewed]]:
    with django_db_blocker.unblock(), spare_tenant("skewed1"), spare_tenant("skewed4"):
        found = []
        for name, size in (("skewed1", 1), ("skewed4", 4)):
            Domain.objects.create(domain=f"{name}.localhost", tenant=Customer.objects.get(schema_name=name))
            build(name, size, statistics=request.param)
            with activated(name):
                users = get_user_model().objects
                found.append(Skewed(name, *(users.get(username=f"user{number}") for number in (1, 2, 3))))
        yield found


# One line for each: what is asked by whom.
SELECTORS: dict[str, Callable[[Skewed], Any]] = {
    "access_membership": lambda t: selectors.access_membership(t.one, 1),
    "access_quietness": lambda t: selectors.access_quietness(t.one, 1),
    "access_room": lambda t: selectors.access_room(t.one, 3),
    "count_members": lambda t: selectors.count_members(t.one, 4),
    "find_users": lambda _t: selectors.find_users(usernames=["user7", "user8"]),
    "list_conversations": lambda t: selectors.list_conversations(t.one),
    "list_members": lambda t: selectors.list_members(t.one, 1, limit=50),
    "list_notifications": lambda t: selectors.list_notifications(t.many, unread_only=True),
    "list_revisions": lambda t: selectors.list_revisions(t.one, room_id=1, message_id=50),
    "message_by_id": lambda _t: selectors.message_by_id(50),
    "messages_by_id": lambda _t: selectors.messages_by_id(range(1, 50)),
    "online_contacts_of": lambda t: selectors.online_contacts_of([t.one, t.other]),
    "owns_room": lambda t: selectors.owns_room(t.one, 1),
    "quiet_room_ids": lambda t: selectors.quiet_room_ids([t.one.pk]),
    "read_changes": lambda _t: selectors.read_changes(1, after=10, limit=50),
    "read_heads": lambda t: selectors.read_heads({t.schema_name: [1, 2, 3]}, kept_as=fresh_statement()),
    "read_joins": lambda t: selectors.read_joins({t.schema_name: [1, 2]}),
    "read_logins": lambda t: selectors.read_logins({t.schema_name: selectors.LoginsAsked(["none"], [1, 2])}),
    "room_history": lambda t: selectors.room_history(t.one, room_id=1),
    "room_positions": lambda t: selectors.room_positions(t.one, limit=50),
    "room_positions_of": lambda t: selectors.room_positions_of([t.one, t.other], limit=50),
    "rooms_among": lambda t: selectors.rooms_among(t.one, range(1, 41)),
}
ACTIONS: dict[str, Callable[[Skewed], Any]] = {
    "delete_message": lambda t: actions.delete_message(t.other, room_id=1, message_id=2),
    "edit_message": lambda t: actions.edit_message(t.other, room_id=1, message_id=2, content="edited @user4"),
    "leave_room": lambda t: actions.leave_room(t.one, room_id=1),
    "mark_notifications_read": lambda t: actions.mark_notifications_read(t.one),
    "mark_read": lambda t: actions.mark_read(t.many, room_id=1, seq=40),
    "open_direct_room": lambda t: actions.open_direct_room(t.one, other=t.other),
    "rename_room": lambda t: actions.rename_room(t.one, room_id=3, name="other"),
    "send_message": lambda t: actions.send_message(t.one, room_id=1, content="hello @user5"),
    "set_typing": lambda t: actions.set_typing(t.one, room_id=3, is_typing=True),
    "create_room": lambda t: actions.create_room(t.one, name="new", members=[t.many]),
    "ensure_userstatus_exists": lambda t: actions.ensure_userstatus_exists(t.one),
    "store_connections": lambda t: actions.store_connections(opened=[t.one], closed=[t.many], process="here"),
    "renew_connections": lambda t: actions.renew_connections([t.one.pk], process="here"),
}


PAGES = {
    "room-list": "",
    "room": "rooms/1/",
    "members": "rooms/1/members/?after=9",
}
"""The pages that are read; what is posted to the others goes to one action each, which is listed above."""
LISTS = {
    ChatRoom: ["", "?q=user7", "?o=1"],
    Membership: ["", "?q=user7", "?role__exact=owner", "?member=left"],
    Message: ["", "?q=message", "?q=nowhere", "?o=5", "?mentions=some", "?mentions=none", "?p=2"],
    MessageRevision: ["", "?q=x"],
    Notification: ["", "?q=told", "?is_read__exact=1"],
    UserStatus: ["", "?q=user7", "?is_online__exact=1"],
}
ADDED = {
    # Their cost is what they are given, and the statements are those of the actions above.
    "add_members", "remove_member", "rejoin_room", "mark_read_where_free", "renew_connections_of", "expire_connections",
    "send_messages", "send_messages_where_free", "end_login", "look_up_users",
    "end_replaced_login", "end_session", "recheck_access", "unlimited",
    # It finds those who joined since, which is what is asked.
    "read_returns",
    # By a partial index that holds nothing else.
    "left_rooms",
    # Texts and types: no query.
    "user_key_type", "user_ref", "username_field", "was_written_as",
    # By people's names: see test_mentions.
    "mentioned_members",
}  # fmt: skip
COMMANDS = {
    # Both look at every user, or every schema, as they are asked to.
    "create_user_statuses",
    "verify_tenant_migrations",
}


def functions_of(module: Any) -> set[str]:
    return {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}


def test_all_that_asks_is_listed() -> None:
    assert functions_of(selectors) <= {*SELECTORS, *ADDED}
    assert functions_of(actions) <= {*ACTIONS, *ADDED}
    assert {model for model in admin.site._registry if model._meta.app_label == LABEL} == set(LISTS)
    read = {pattern.name for pattern in urls.urlpatterns if "GET" in allowed(pattern)}
    assert read == set(PAGES)
    commands = {name for name, app in get_commands().items() if app == LABEL}
    assert commands == COMMANDS


def allowed(pattern: Any) -> set[str]:
    """The methods that a page takes, as the decorator around it answers to one that nobody has."""
    view = pattern.callback
    while view is not None:
        found = inspect.getclosurevars(view).nonlocals.get("request_method_list")
        if found is not None:
            return set(found)
        view = getattr(view, "__wrapped__", None)
    return {"GET"}


def buffers(plan: dict[str, Any]) -> int:
    return int(plan.get("Shared Hit Blocks", 0)) + int(plan.get("Shared Read Blocks", 0))


@contextmanager
def undone() -> Iterator[None]:
    """Undo what the body writes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def cost_of(tenant: Skewed, ask: Callable[[Skewed], Any]) -> tuple[int, str]:
    """Buffers of all that is asked, and its statements with theirs."""
    with activated(tenant.schema_name):
        with undone(), queries() as made:
            ask(tenant)
        told, number = [], 0
        for statement in made:
            with undone(), connection.cursor() as cursor, suppress(ProgrammingError, IntegrityError):
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}")
                ((plan,),) = cursor.fetchall()
                found = buffers(plan[0]["Plan"])
                number += found
                told.append(f"{found}: {' '.join(statement.split())[:600]}")
    assert told, made
    return number, "\n".join(told)


def compare(sizes: list[Skewed], ask: Callable[[Skewed], Any], *, never_many: int = SMALL) -> None:
    (small, _), (large, told) = (cost_of(tenant, ask) for tenant in sizes)
    assert large <= max(small * SLACK, never_many), f"{small} buffers became {large}:\n{told}"


@pytest.mark.parametrize("name", [*SELECTORS, *ACTIONS])
def test_it_costs_the_same_in_a_tenant_four_times_as_large(sizes: list[Skewed], name: str) -> None:
    compare(sizes, {**SELECTORS, **ACTIONS}[name])


def getting(path: str) -> Callable[[Skewed], Any]:
    def get(tenant: Skewed) -> None:
        client = Client(SERVER_NAME=f"{tenant.schema_name}.localhost")
        client.force_login(tenant.one)
        response = client.get(path)
        assert response.status_code == 200, (path, response.status_code)

    return get


@pytest.mark.parametrize("path", PAGES.values())
def test_a_page_costs_the_same(sizes: list[Skewed], path: str) -> None:
    compare(sizes, getting(f"/messages/{path}"))


@pytest.mark.parametrize(
    ("model", "asked"), [(model, asked) for model, of_model in LISTS.items() for asked in of_model]
)
def test_a_list_of_the_admin_costs_the_same(
    sizes: list[Skewed], model: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both tenants have more rows than a list looks at.
    monkeypatch.setattr("django_tenant_messaging.admin.looking.WINDOW", WINDOW)
    compare(sizes, getting(f"/admin/{LABEL}/{model._meta.model_name}/{asked}"), never_many=WINDOW * BUFFERS_OF_A_ROW)
