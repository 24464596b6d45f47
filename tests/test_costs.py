"""What is asked costs the same in a tenant four times as large.

One skewed tenant is made twice: a huge room, many small ones, a user in many of them, users with many notifications.
In both the same is asked, by every selector, action, page and list of the admin, with statistics of now, of a time when
all was small and of one when nothing came twice, by the host's connections and the worker threads', with values and
prepared without them. The database counts the buffers that each statement touches and the rows that each part of its
plan looks at, as many up to a bound, and no large table is read as a whole. A new one that isn't listed fails.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.core.management import call_command, get_commands
from django.test import Client
from django.utils import timezone

from django_tenant_messaging import actions, selectors, urls
from django_tenant_messaging.actions.messages import Draft
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Message,
    MessageRevision,
    Notification,
    UserStatus,
)
from django_tenant_messaging.tenancy import activated
from tests.harness.explaining import LABEL, WAYS, explained
from tests.harness.queries import fresh_statement
from tests.harness.run import point_django_at
from tests.harness.skewed import STATISTICS, Skewed, skewed
from tests.harness.tenants import leave_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.harness.run import Run

SLACK = 1.6
"""As much more as a tree has in height, when its table is four times as large."""
SMALL = 500
"""Buffers of a statement that are never too many: to look up a hundred rows, in tables of which each has more pages."""

COUNTED = 1_100
"""Buffers of a page that counts a room's members, and stops at 1,001."""
LIMIT = 10_000
"""Members that a room has at most: all, in few buffers, where the planner believes them to be few."""
FEW = 1_100
"""Rows that a part of a plan may always look at: more than a room's members are counted, and fewer than it has."""
OLD_OR_FRESH = pytest.mark.parametrize("sizes", ["old", "fresh"], indirect=True, scope="module")
MEMBERS = 5_000
"""Members of the larger tenant's huge room, one of whom has left."""
SMALL_LOOK = 4
"""Buffers of looking up one row by its key, at most."""
WINDOW = 10
"""Rows that a list of the admin looks at: as few beside both tenants' as 10,000 are beside many."""


@pytest.fixture(scope="module", params=list(STATISTICS))
def sizes(request: Any, run: Run, worker_id: str, database_url: str, django_db_blocker: Any) -> Iterator[list[Skewed]]:
    with django_db_blocker.unblock():
        leave_tenant()
        yield skewed(run, worker_id, request.param)
        leave_tenant()
        point_django_at(database_url)


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
    "list_notifications of few unread": lambda t: selectors.list_notifications(t.told, unread_only=True),
    "list_notifications and read ones": lambda t: selectors.list_notifications(t.told),
    "list_revisions": lambda t: selectors.list_revisions(t.one, room_id=1, message_id=t.edited),
    "mentioned_members": lambda _t: selectors.mentioned_members({1: ["user7", "user8"], 3: ["user4"]}),
    "mentioned_members in any case": lambda _t: selectors.mentioned_members({3: ["USER4"], 4: ["nobody"]}),
    "message_by_id": lambda _t: selectors.message_by_id(50),
    "messages_by_id": lambda _t: selectors.messages_by_id(range(1, 21)),
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
    "was_written_as": lambda t: selectors.was_written_as(edited(t), "before"),
}
ACTIONS: dict[str, Callable[[Skewed], Any]] = {
    "create_room": lambda t: actions.create_room(t.one, name="new", members=[t.many]),
    "delete_message": lambda t: actions.delete_message(t.owner, room_id=1, message_id=t.message),
    "delete_room": lambda _t: actions.delete_room(room_id=3),
    "edit_message": lambda t: actions.edit_message(t.owner, room_id=1, message_id=t.message, content="edited"),
    "ensure_userstatus_exists": lambda t: actions.ensure_userstatus_exists(t.one),
    "leave_room": lambda t: actions.leave_room(t.one, room_id=1),
    "leave_room as the last owner": lambda t: actions.leave_room(t.owner, room_id=1),
    "look_up_users": lambda t: actions.look_up_users(t.one, usernames=["user7"]),
    "mark_notifications_read": lambda t: actions.mark_notifications_read(t.one, notification_ids=range(1, 50)),
    "mark_notifications_read where none is": lambda t: actions.mark_notifications_read(t.owner),
    "mark_notifications_read where few are": lambda t: actions.mark_notifications_read(t.told),
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
    "send_message with a mention": lambda t: actions.send_message(t.one, room_id=1, content="hello @user7"),
    "send_message in answer": lambda t: actions.send_message(t.one, room_id=1, content="hi", reply_to=t.message),
    "send_message to one": lambda t: actions.send_message(t.one, room_id=2, content="hello"),
    "send_messages": lambda t: actions.send_messages(drafts(t, "hello")),
    "send_messages_where_free": lambda t: actions.send_messages_where_free(drafts(t, "hello")),
    "set_typing": lambda t: actions.set_typing(t.one, room_id=3, is_typing=True),
    "store_connections": lambda t: actions.store_connections(opened=[t.one], closed=[t.many], process="here"),
}


HOST = ("host", "host, prepared")
ACCEPTED: dict[str, tuple[str, ...]] = {
    # Only worker threads ask who shares a quiet room with somebody. The host's planner would sort all members of a room
    # for the first of them, or look at their entries in the index.
    "online_contacts_of": HOST,
    "access_quietness": HOST,
    "quiet_room_ids": HOST,
    "set_typing": HOST,
    "store_connections": HOST,
    # A plan without values takes each room for one of middling size, and sorts it for a page. A host that has psycopg
    # prepare its statements gets such plans; Django doesn't by itself.
    "list_members": HOST[1:],
    "read_changes": HOST[1:],
    "room_history": HOST[1:],
    # All who are online are looked at for those whose process has gone, once in a renewal of these. An index by the
    # time would have to be written for each of them.
    "renew_connections_of": tuple(WAYS),
}
"""What grows all the same, and in which ways of asking."""


def drafts(tenant: Skewed, text: str) -> list[Draft]:
    """As many as make the statement for several a prepared one, answers among them."""
    rooms = [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    return [Draft(tenant.one, room, text, reply_to=tenant.message if room == 1 else None) for room in rooms]


def edited(tenant: Skewed) -> Any:
    """A message that was edited since."""
    return replace(selectors.message_by_id(tenant.edited), edited_at=timezone.now())


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
    # They count a room's members, MAX_ROOM_MEMBERS at most, to refuse more: some 200 to a page of their index, each
    # by its own row until the table is vacuumed.
    "add_members", "rejoin_room",
    # It finds those who joined since, which is what is asked.
    "read_returns",
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
    sizes: list[Skewed],
    ask: Callable[[Skewed], Any],
    *,
    ways: Sequence[str] = tuple(WAYS),
    never_many: int = SMALL,
    never_many_rows: int = FEW,
) -> None:
    small, large = (explained(tenant.schema_name, partial(ask, tenant), ways) for tenant in sizes)
    for way in ways:
        assert small[way]
        assert len(small[way]) == len(large[way]), "\n".join(map(str, large[way]))
        for before, after in zip(small[way], large[way], strict=True):
            is_cheap = after.buffers <= max(before.buffers * SLACK, never_many)
            is_narrow = after.rows <= max(before.rows * SLACK, never_many_rows)
            if not (is_cheap and is_narrow) or after.read_whole:
                pytest.fail(f"{before}\n\nbecame\n\n{after}", pytrace=False)


@pytest.mark.parametrize("name", [*SELECTORS, *ACTIONS])
def test_it_costs_the_same_in_a_tenant_four_times_as_large(sizes: list[Skewed], name: str) -> None:
    ways = [way for way in WAYS if way not in ACCEPTED.get(name, ())]
    compare(sizes, {**SELECTORS, **ACTIONS}[name], ways=ways)


def test_a_name_in_another_case_costs_no_more_than_the_members_of_the_room(sizes: list[Skewed]) -> None:
    """Many names of nobody cost the same, as each member's is looked up among them."""
    names = ["USER7", *(f"nobody{n}" for n in range(499))]
    with activated(sizes[1].schema_name):
        assert [user.username for _key, user in selectors.mentioned_members({1: names})[1]] == ["user7"]
    for found in explained(sizes[1].schema_name, lambda: selectors.mentioned_members({1: names})).values():
        for statement in found:
            assert statement.buffers <= SMALL_LOOK * (len(names) + MEMBERS)
            assert statement.rows <= MEMBERS
            assert not statement.read_whole


@OLD_OR_FRESH
def test_a_step_of_a_command_costs_the_same(sizes: list[Skewed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tenant_messaging.actions.status_backfill.BATCH", 100)
    name = sizes[1].schema_name
    found = explained(name, lambda: call_command("create_user_statuses", schema=[name], verbosity=0), ["host"])
    assert len(found["host"]) > 100
    for step in found["host"]:
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


@OLD_OR_FRESH
@pytest.mark.parametrize("path", PAGES.values())
def test_a_page_costs_the_same(sizes: list[Skewed], path: str) -> None:
    compare(sizes, getting(f"/messages/{path}"), ways=["host"], never_many=COUNTED, never_many_rows=LIMIT)


@OLD_OR_FRESH
@pytest.mark.parametrize("name", POSTS)
def test_what_a_page_does_costs_the_same(sizes: list[Skewed], name: str) -> None:
    path, data = POSTS[name]
    compare(sizes, posting(f"/messages/{path}", data), ways=["host"])


@OLD_OR_FRESH
@pytest.mark.parametrize(
    ("model", "asked"), [(model, asked) for model, of_model in LISTS.items() for asked in of_model]
)
def test_a_list_of_the_admin_costs_the_same(
    sizes: list[Skewed], model: Any, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_tenant_messaging.admin.looking.WINDOW", WINDOW)
    monkeypatch.setattr("django_tenant_messaging.admin.looking.LookOnlyAdmin.list_per_page", WINDOW // 2)
    compare(sizes, getting(f"/admin/{LABEL}/{model._meta.model_name}/{asked}"), ways=["host"])
