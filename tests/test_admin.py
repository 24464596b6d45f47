from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_tenant_messaging import actions
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Message,
    MessageRevision,
    Notification,
    UserStatus,
)

if TYPE_CHECKING:
    from django.test import Client

    from tests.harness.tenants import Tenant

MODELS = ("chatroom", "membership", "message", "messagerevision", "notification", "userstatus")
PAGE = "/admin/django_tenant_messaging/"


@pytest.fixture
def operator(acme: Tenant, people: tuple[str, ...]) -> Client:
    """A superuser of acme, at the admin."""
    return acme.client(acme.create_user("root", is_staff=True, is_superuser=True))


def fill(tenant: Tenant, number: int) -> None:
    """Add rows to every list, each with a user and a room of its own."""
    alice = tenant.users["alice"]
    for _ in range(number):
        user = tenant.create_user(f"user{len(tenant.users)}")
        with tenant.activated():
            actions.ensure_userstatus_exists(user)
            direct = actions.open_direct_room(user, other=alice)
            first = actions.send_message(user, room_id=direct.pk, content="hello").message
            actions.send_message(alice, room_id=direct.pk, content="welcome", reply_to=first.id)
            group = actions.create_room(user, name=f"of {user}", members=[alice])
            message = actions.send_message(user, room_id=group.pk, content="and you, @alice?").message
            actions.edit_message(user, room_id=group.pk, message_id=message.id, content="and what of you, @alice?")


@pytest.mark.parametrize("model", MODELS)
def test_lists_cost_the_same_for_any_number_of_rows(acme: Tenant, operator: Client, model: str) -> None:
    def cost() -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            response = operator.get(f"{PAGE}{model}/")
        assert response.status_code == 200
        return len(queries), len(re.findall(r'<input[^>]*action-select|<th class="field', response.content.decode()))

    fill(acme, 3)
    few, few_rows = cost()
    fill(acme, 27)
    many, many_rows = cost()
    assert few == many
    assert few_rows < many_rows


@pytest.mark.parametrize("model", MODELS)
def test_rows_are_shown_found_and_not_written(acme: Tenant, operator: Client, model: str) -> None:
    fill(acme, 1)
    classes = {
        cls._meta.model_name: cls for cls in (ChatRoom, Membership, Message, MessageRevision, Notification, UserStatus)
    }
    with acme.activated():
        pk = classes[model]._default_manager.order_by("pk").values_list("pk", flat=True)[0]
        before = list(classes[model]._default_manager.order_by("pk").values())
    page = operator.get(f"{PAGE}{model}/{pk}/change/")
    assert page.status_code == 200
    assert 'name="_save"' not in page.content.decode()
    # Names of users: "alice" and "user4".
    for name, is_found in (("e", True), ("nobody", False)):
        found = operator.get(f"{PAGE}{model}/", {"q": name}).content.decode()
        assert (f"/{model}/{pk}/change/" in found) == is_found
    assert operator.get(f"{PAGE}{model}/add/").status_code == 403
    assert operator.post(f"{PAGE}{model}/{pk}/change/", {"seq": 1, "content": "forged"}).status_code == 403
    if model != "chatroom":
        assert operator.post(f"{PAGE}{model}/{pk}/delete/", {"post": "yes"}).status_code == 403
    with acme.activated():
        assert list(classes[model]._default_manager.order_by("pk").values()) == before


def test_a_message_is_previewed_in_one_short_line(acme: Tenant, operator: Client) -> None:
    with acme.activated():
        room = actions.create_room(acme.users["alice"], name="general")
        actions.send_message(acme.users["alice"], room_id=room.pk, content="<b>long</b>\n" + "word " * 100)
    text = operator.get(f"{PAGE}message/").content.decode()
    assert "&lt;b&gt;long&lt;/b&gt; word word" in text
    assert "word " * 20 not in text
    assert "…" in text


def test_a_deleted_message_is_listed_as_such(acme: Tenant, operator: Client) -> None:
    with acme.activated():
        alice = acme.users["alice"]
        room = actions.create_room(alice, name="general")
        message = actions.send_message(alice, room_id=room.pk, content="a secret").message
        actions.edit_message(alice, room_id=room.pk, message_id=message.id, content="another secret")
        actions.delete_message(alice, room_id=room.pk, message_id=message.id)
    text = operator.get(f"{PAGE}message/").content.decode()
    assert "This message was deleted." in text
    assert "secret" not in text + operator.get(f"{PAGE}messagerevision/").content.decode()


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("message/?is_read__exact=0", 3),
        ("message/?is_read__exact=1", 0),
        ("message/?mentions=some", 1),
        ("message/?mentions=none", 2),
        ("message/?edited_at__isempty=0", 1),
        ("message/?deleted_at__isempty=0", 0),
        ("message/?room__kind__exact=direct", 2),
        ("membership/?member=now", 4),
        ("membership/?member=left", 0),
        ("notification/?is_read__exact=0", 3),
        ("chatroom/?kind__exact=group", 1),
        ("userstatus/?is_online__exact=1", 0),
    ],
)
def test_filters(acme: Tenant, operator: Client, query: str, number: int) -> None:
    fill(acme, 1)
    text = operator.get(f"{PAGE}{query}").content.decode()
    assert len(re.findall(r"<tr><(?:td|th)", text.partition("<tbody>")[2])) == number


def test_notifications_are_marked_as_read_by_the_action(acme: Tenant, operator: Client) -> None:
    fill(acme, 2)
    with acme.activated():
        ids = list(Notification.objects.values_list("pk", flat=True))
    form = {"action": "mark_as_read", "_selected_action": ids}
    response = operator.post(f"{PAGE}notification/", form, follow=True)
    assert f"{len(ids)} notifications marked as read." in response.content.decode()
    with acme.activated():
        assert not Notification.objects.filter(is_read=False).exists()


def test_who_may_only_view_gets_no_action(acme: Tenant, operator: Client) -> None:
    from django.contrib.auth.models import Permission

    fill(acme, 1)
    viewer = acme.create_user("viewer", is_staff=True)
    with acme.activated():
        viewer.user_permissions.add(*Permission.objects.filter(codename__startswith="view_"))
    text = acme.client(viewer).get(f"{PAGE}notification/").content.decode()
    assert "mark_as_read" not in text


def test_the_other_tenants_rows_are_not_there(acme: Tenant, globex: Tenant, operator: Client) -> None:
    fill(globex, 2)
    for model in MODELS:
        rows = operator.get(f"{PAGE}{model}/").content.decode().partition("<tbody>")[2]
        # Each user of acme has a status.
        assert rows.count("/change/") == (len(acme.users) if model == "userstatus" else 0)
        assert not any(name in rows for name in globex.users.keys() - acme.users.keys())


@pytest.mark.parametrize(
    "query",
    [
        "message/?room__kind__exact=%00",
        "message/?q=%00",
        "membership/?role__exact=a%00b",
        "chatroom/?kind__exact=direct&kind__exact=%00",
        "chatroom/?id__lt=%00",
        "notification/?is_read__exact=%00",
        "userstatus/?%00=1",
    ],
)
def test_a_text_that_no_column_holds_is_a_bad_lookup(acme: Tenant, operator: Client, query: str) -> None:
    fill(acme, 1)
    answer = operator.get(f"{PAGE}{query}")
    assert (answer.status_code, answer["Location"]) == (302, f"{PAGE}{query.partition('?')[0]}?e=1")
    assert operator.get(answer["Location"]).status_code == 200


def test_history_is_shown_where_each_tenant_has_its_own(acme: Tenant, operator: Client, settings: Any) -> None:
    """With one table for all, the room of this id in another tenant would have its history here."""
    with acme.activated():
        room = actions.create_room(acme.users["alice"], name="Lobby")
    address = f"{PAGE}chatroom/{room.pk}/history/"
    assert operator.get(address).status_code == 200
    admin = "django.contrib.admin"
    settings.TENANT_APPS = [app for app in settings.TENANT_APPS if app != admin]
    settings.SHARED_APPS = [*settings.SHARED_APPS, admin]
    assert operator.get(address).status_code == 403
