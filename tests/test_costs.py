"""What is asked costs the same in a tenant four times as large.

One skewed tenant is made twice: a huge room, many small ones, a user in many of them, a user with many notifications.
In both the same is asked, by every selector, action, page and list of the admin, with statistics of now and of a time
when all was small, with the host's planner and the worker threads'. The database counts the buffers that each
statement touches, as many up to a bound, and no large table is read as a whole. A new one that isn't listed fails.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.core.management import call_command, get_commands
from django.test import Client
from django.utils import timezone

from django_tenant_messaging import actions, selectors, urls
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Message,
    MessageRevision,
    Notification,
    UserStatus,
)
from example.customers.models import Customer, Domain
from tests.harness.queries import fresh_statement
from tests.harness.skewed import LABEL, Skewed, analyse, build, explained
from tests.harness.spare import spare_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLACK = 1.6
"""As much more as a tree has in height, when its table is four times as large."""
SMALL = 500
"""Buffers of a statement that are never too many: to look up a hundred rows, in tables of which each has more pages."""

COUNTED = 1_100
"""Buffers of a page that counts a room's members, and stops at 1,001."""
WINDOW = 10
"""Rows that a list of the admin looks at: as few beside both tenants' as 10,000 are beside many."""


@pytest.fixture(scope="module")
def built(database_url: str, django_db_blocker: Any) -> Iterator[list[Skewed]]:
    with django_db_blocker.unblock(), spare_tenant("skewed1"), spare_tenant("skewed4"):
        for name in ("skewed1", "skewed4"):
            Domain.objects.create(domain=f"{name}.localhost", tenant=Customer.objects.get(schema_name=name))
        yield [build("skewed1", 1), build("skewed4", 4)]


@pytest.fixture(scope="module", params=["old", "fresh"])
def sizes(request: Any, built: list[Skewed]) -> list[Skewed]:
    if request.param == "fresh":
        for tenant in built:
            analyse(tenant)
    return built


# One line for each: what is asked by whom.
SELECTORS: dict[str, Callable[[Skewed], Any]] = {
    "access_membership": lambda t: selectors.access_membership(t.one, 1),
    "access_quietness": lambda t: selectors.access_quietness(t.one, 1),
    "access_room": lambda t: selectors.access_room(t.one, 3),
    "count_members": lambda t: selectors.count_members(t.one, 4),
    "find_users": lambda _t: selectors.find_users(usernames=["user7", "user8"]),
    "left_rooms": lambda t: selectors.left_rooms(t.gone),
    "list_conversations": lambda t: selectors.list_conversations(t.one),
    "list_members": lambda t: selectors.list_members(t.one, 1, limit=50),
    "list_notifications": lambda t: selectors.list_notifications(t.many, unread_only=True),
    "list_revisions": lambda t: selectors.list_revisions(t.one, room_id=1, message_id=49),
    "message_by_id": lambda _t: selectors.message_by_id(50),
    "messages_by_id": lambda _t: selectors.messages_by_id(range(1, 50)),
    "online_contacts_of": lambda t: selectors.online_contacts_of([t.one, t.owner]),
    "owns_room": lambda t: selectors.owns_room(t.one, 1),
    "quiet_room_ids": lambda t: selectors.quiet_room_ids([t.one.pk]),
    "read_changes": lambda _t: selectors.read_changes(1, after=10, limit=50),
    "read_heads": lambda t: selectors.read_heads({t.schema_name: [1, 2, 3]}, kept_as=fresh_statement()),
    "read_joins": lambda t: selectors.read_joins({t.schema_name: [1, 2]}),
    "read_logins": lambda t: selectors.read_logins({t.schema_name: selectors.LoginsAsked(["none"], [1, 2])}),
    "room_history": lambda t: selectors.room_history(t.one, room_id=1),
    "room_positions": lambda t: selectors.room_positions(t.one, limit=50),
    "room_positions_of": lambda t: selectors.room_positions_of([t.one, t.owner], limit=50),
    "rooms_among": lambda t: selectors.rooms_among(t.one, range(1, 41)),
    "was_written_as": lambda _t: selectors.was_written_as(edited(), "before"),
}
ACTIONS: dict[str, Callable[[Skewed], Any]] = {
    "create_room": lambda t: actions.create_room(t.one, name="new", members=[t.many]),
    "delete_message": lambda t: actions.delete_message(t.owner, room_id=1, message_id=3),
    "delete_room": lambda _t: actions.delete_room(room_id=3),
    "edit_message": lambda t: actions.edit_message(t.owner, room_id=1, message_id=3, content="edited"),
    "ensure_userstatus_exists": lambda t: actions.ensure_userstatus_exists(t.one),
    "leave_room": lambda t: actions.leave_room(t.one, room_id=1),
    "look_up_users": lambda t: actions.look_up_users(t.one, usernames=["user7"]),
    "mark_notifications_read": lambda t: actions.mark_notifications_read(t.one, notification_ids=range(1, 50)),
    "mark_notifications_read where none is": lambda t: actions.mark_notifications_read(t.owner),
    "mark_read": lambda t: actions.mark_read(t.many, room_id=1, seq=40),
    "mark_read of few": lambda t: actions.mark_read(t.owner, room_id=1, seq=40),
    "mark_read of a direct room": lambda t: actions.mark_read(t.one, room_id=2, seq=40),
    "mark_read_where_free": lambda t: actions.mark_read_where_free(t.many, room_id=1, seq=40),
    "open_direct_room": lambda t: actions.open_direct_room(t.one, other=t.owner),
    "remove_member": lambda t: actions.remove_member(t.owner, room_id=1, user=t.many),
    "rename_room": lambda t: actions.rename_room(t.one, room_id=3, name="other"),
    "renew_connections": lambda t: actions.renew_connections([t.one.pk], process="here"),
    "renew_connections_of": lambda t: actions.renew_connections_of({t.schema_name: [t.one.pk]}, process="here"),
    "send_message": lambda t: actions.send_message(t.one, room_id=1, content="hello"),
    "set_typing": lambda t: actions.set_typing(t.one, room_id=3, is_typing=True),
    "store_connections": lambda t: actions.store_connections(opened=[t.one], closed=[t.many], process="here"),
}


NEVER_SO = {
    # Only a worker thread asks. Elsewhere the planner would sort a large room's members for the first of them.
    ("online_contacts_of", "host"),
}


def edited() -> Any:
    """Message 49, as edited since."""
    return replace(selectors.message_by_id(49), edited_at=timezone.now())


PAGES = {
    "room-list": "",
    "room": "rooms/1/",
    "members": "rooms/1/members/?after=9",
}
POSTS: dict[str, tuple[str, dict[str, str]]] = {
    "create-room": ("rooms/create/", {"room-name": "new", "room-people": "user7, user8"}),
    "open-direct": ("rooms/direct/", {"direct-people": "user7"}),
    "rename-room": ("rooms/3/name/", {"rename-name": "other"}),
    "leave-room": ("rooms/1/leave/", {}),
    "room": ("rooms/1/", {"content": "hello"}),
    "members": ("rooms/4/members/", {"add-people": "user7"}),
}
POSTS_FOR_ALL = {
    # It counts the room's members, MAX_ROOM_MEMBERS at most, to refuse more.
    "rejoin-room",
    # It marks all, in steps: see "mark_notifications_read" above for one.
    "mark-notifications-read",
}
LISTS = {
    ChatRoom: ["", "?q=user7", "?o=1"],
    Membership: ["", "?q=user7", "?role__exact=owner", "?member=left"],
    Message: ["", "?q=message", "?q=nowhere", "?o=5", "?mentions=some", "?mentions=none", "?p=2"],
    MessageRevision: ["", "?q=x"],
    Notification: ["", "?q=told", "?is_read__exact=1"],
    UserStatus: ["", "?q=user7", "?is_online__exact=1"],
}
EXEMPT = {
    # They count a room's members, MAX_ROOM_MEMBERS at most, to refuse more.
    "add_members", "rejoin_room",
    # It finds those who joined since, which is what is asked.
    "read_returns",
    # It compares the names of a room's members, in any case: see test_mentions.
    "mentioned_members",
    # Several of what `send_message` does, by the same statement.
    "send_messages", "send_messages_where_free",
    # All whose process has gone, which is what is asked.
    "expire_connections",
    # No query: they announce, or give types and texts.
    "end_login", "end_replaced_login", "recheck_access", "unlimited", "user_key_type", "user_ref", "username_field",
}  # fmt: skip
COMMANDS = {
    # It looks at every user, in steps: see below for one.
    "create_user_statuses",
    # It compares each schema's structure with the models, and reads no rows.
    "verify_tenant_migrations",
}


def functions_of(module: Any) -> set[str]:
    return {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}


def test_all_that_asks_is_listed() -> None:
    listed = {name.partition(" ")[0] for name in (*SELECTORS, *ACTIONS)}
    assert listed.isdisjoint(EXEMPT)
    assert functions_of(selectors) | functions_of(actions) == listed | EXEMPT
    assert {model for model in admin.site._registry if model._meta.app_label == LABEL} == set(LISTS)
    posted = POSTS.keys() | POSTS_FOR_ALL
    # A GET of a form's own address leads to the page that holds the form.
    for method, pages in (("GET", PAGES.keys() | posted), ("POST", posted)):
        assert {pattern.name for pattern in urls.urlpatterns if method in allowed(pattern)} == pages
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


def compare(
    sizes: list[Skewed], ask: Callable[[Skewed], Any], *, settings: str = "host", never_many: int = SMALL
) -> None:
    small, large = (explained(tenant, settings, ask) for tenant in sizes)
    assert small
    assert len(small) == len(large), "\n".join(map(str, large))
    for before, after in zip(small, large, strict=True):
        found = f"{before}\n\nbecame\n\n{after}"
        assert after.buffers <= max(before.buffers * SLACK, never_many), found
        assert not after.read_whole, found


@pytest.mark.parametrize("settings", ["host", "worker"])
@pytest.mark.parametrize("name", [*SELECTORS, *ACTIONS])
def test_it_costs_the_same_in_a_tenant_four_times_as_large(sizes: list[Skewed], name: str, settings: str) -> None:
    if (name, settings) not in NEVER_SO:
        compare(sizes, {**SELECTORS, **ACTIONS}[name], settings=settings)


def test_a_step_of_a_command_costs_the_same(sizes: list[Skewed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tenant_messaging.actions.status_backfill.BATCH", 100)
    steps = explained(
        sizes[1], "host", lambda t: call_command("create_user_statuses", schema=[t.schema_name], verbosity=0)
    )
    assert len(steps) > 100
    for step in steps:
        # Who lacks a status, the planner may find by all statuses: 90 pages here.
        assert step.buffers <= SMALL, step


def getting(path: str) -> Callable[[Skewed], Any]:
    return lambda tenant: answered(tenant, lambda client: client.get(path), 200)


def posting(path: str, data: dict[str, str]) -> Callable[[Skewed], Any]:
    return lambda tenant: answered(tenant, lambda client: client.post(path, data), 302)


def answered(tenant: Skewed, ask: Callable[[Client], Any], status: int) -> None:
    client = Client(SERVER_NAME=f"{tenant.schema_name}.localhost")
    client.force_login(tenant.one)
    response = ask(client)
    assert response.status_code == status, response.content.decode()[-3000:]


@pytest.mark.parametrize("path", PAGES.values())
def test_a_page_costs_the_same(sizes: list[Skewed], path: str) -> None:
    compare(sizes, getting(f"/messages/{path}"), never_many=COUNTED)


@pytest.mark.parametrize("name", POSTS)
def test_what_a_page_does_costs_the_same(sizes: list[Skewed], name: str) -> None:
    path, data = POSTS[name]
    compare(sizes, posting(f"/messages/{path}", data))


@pytest.mark.parametrize(
    ("model", "asked"), [(model, asked) for model, of_model in LISTS.items() for asked in of_model]
)
def test_a_list_of_the_admin_costs_the_same(
    sizes: list[Skewed], model: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_tenant_messaging.admin.looking.WINDOW", WINDOW)
    monkeypatch.setattr("django_tenant_messaging.admin.looking.LookOnlyAdmin.list_per_page", WINDOW // 2)
    compare(sizes, getting(f"/admin/{LABEL}/{model._meta.model_name}/{asked}"))
