"""The permission to view a model shows that model's texts, and no other's: neither in a page nor by probing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission

from django_tenant_messaging import actions
from django_tenant_messaging.models import Notification
from tests.harness.queries import exactly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.test import Client

    from tests.harness.tenants import Tenant

APP = "django_tenant_messaging"
PAGE = f"/admin/{APP}/"
TEXTS = {
    "chatroom": "zebra-room",
    "message": "zebra-now",
    "messagerevision": "zebra-before",
    "notification": "zebra-told",
}
"""By model, what its rows say."""
MODELS = ("chatroom", "membership", "message", "messagerevision", "notification", "userstatus")
ADMINS = {name: found for found in admin.site._registry.values() if (name := str(found.opts.model_name)) in MODELS}


@pytest.fixture
def said(acme: Tenant, people: tuple[str, ...]) -> None:
    """A room, a message that was edited and an answer to it, with a text of its own in each model."""
    with acme.activated():
        alice, bob = acme.users["alice"], acme.users["bob"]
        room = actions.create_room(alice, name=TEXTS["chatroom"], members=[bob])
        sent = actions.send_message(alice, room_id=room.pk, content=f"{TEXTS['messagerevision']} @bob").message
        content = f"{TEXTS['message']} @bob"
        actions.edit_message(alice, room_id=room.pk, message_id=sent.id, content=content)
        actions.send_message(bob, room_id=room.pk, content=content, reply_to=sent.id)
        Notification.objects.update(notification_text=TEXTS["notification"])
        actions.ensure_userstatus_exists(alice)


def staff_with(tenant: Tenant, *codenames: str) -> Client:
    user = tenant.create_user("staff", is_staff=True)
    with tenant.activated():
        user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    return tenant.client(user)


def rows(client: Client, path: str, query: dict[str, Any]) -> int | None:
    """How many rows a list has for a query; nothing if that isn't allowed."""
    response = client.get(path, query)
    if response.status_code != 200:
        return None
    return response.content.decode().partition("<tbody>")[2].count("/change/")


def text_paths(model: Any, depth: int = 2) -> Iterator[str]:
    """Look-ups that lead from a model to the texts of others of the app, there and back, and by way of users."""
    for field in model._meta.get_fields():
        other = field.related_model
        if other is None or other._meta.app_label not in {APP, "auth"} or depth == 0:
            continue
        for name in ("content", "name", "notification_text"):
            if other._meta.app_label == APP and name in {found.name for found in other._meta.concrete_fields}:
                yield f"{field.name}__{name}"
        yield from (f"{field.name}__{path}" for path in text_paths(other, depth - 1))


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("right", ["view", "change"])
@pytest.mark.parametrize("model", MODELS)
def test_texts_of_other_models_are_not_shown(acme: Tenant, model: str, right: str) -> None:
    client = staff_with(acme, f"{right}_{model}")
    with acme.activated():
        keys = list(ADMINS[model].model._default_manager.values_list("pk", flat=True))
    paths = [f"{PAGE}{model}/", *(f"{PAGE}{model}/{key}/{view}/" for key in keys for view in ("change", "history"))]
    pages = "".join(response_of(client, path) for path in paths)
    assert {name for name, text in TEXTS.items() if text in pages} == {model} & TEXTS.keys()
    assert len(keys) > 0


def response_of(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200, path
    return str(response.content.decode())


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("model", MODELS)
def test_texts_of_other_models_can_not_be_probed(acme: Tenant, model: str) -> None:
    """What a search, a filter or a look-up in the address finds doesn't hang on a text that may not be seen."""
    client = staff_with(acme, f"view_{model}")
    path = f"{PAGE}{model}/"
    for text in (text for name, text in TEXTS.items() if name != model):
        assert rows(client, path, {"q": text}) == rows(client, path, {"q": "nothing like it"})
    probes = [f"{lookup}__{kind}" for lookup in text_paths(ADMINS[model].model) for kind in ("startswith", "regex")]
    assert probes
    for probe in probes:
        assert rows(client, path, {probe: "zebra"}) is None, probe


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("model", MODELS)
def test_filters_and_order_go_by_what_may_be_seen(acme: Tenant, model: str) -> None:
    client = staff_with(acme, f"view_{model}")
    page = response_of(client, f"{PAGE}{model}/")
    offered = set(re.findall(r"\?(\w+?)(?:__\w+)?=", page))
    foreign = {"room", "message", "memberships", "messages", "reply_to", "revisions", "counter"}
    assert not offered & foreign
    columns = re.findall(r'class="(?:sortable )?column-(\w+)', page)
    assert columns
    assert not set(columns) & {"room", "message", "about"}


@pytest.mark.usefixtures("said")
def test_autocomplete_searches_only_what_may_be_seen(acme: Tenant) -> None:
    """Any foreign key of any model leads there; what it searches is what the list searches."""
    client = staff_with(acme, "view_membership", "view_notification")
    for source, field in (("membership", "room"), ("notification", "message"), ("messagerevision", "message")):
        query = {"app_label": APP, "model_name": source, "field_name": field, "term": "zebra"}
        assert client.get("/admin/autocomplete/", query).status_code == 403


@pytest.mark.usefixtures("said")
def test_both_permissions_show_both(acme: Tenant) -> None:
    client = staff_with(acme, "view_notification", "view_message", "view_chatroom")
    page = response_of(client, f"{PAGE}notification/")
    assert TEXTS["message"] in page
    assert TEXTS["chatroom"] in response_of(client, f"{PAGE}message/")
    assert rows(client, f"{PAGE}message/", {"q": TEXTS["chatroom"]}) == 2


@pytest.mark.usefixtures("said")
def test_nothing_is_written_to_the_log_of_the_admin(acme: Tenant) -> None:
    """Its entries hold the object's text, and are there for staff with other rights."""
    client = staff_with(acme, "view_notification", "change_notification")
    with acme.activated():
        keys = list(Notification.objects.values_list("pk", flat=True))
    response = client.post(f"{PAGE}notification/", {"action": "mark_as_read", "_selected_action": keys}, follow=True)
    assert "marked as read" in response.content.decode()
    with acme.activated():
        assert not LogEntry.objects.exists()


@pytest.mark.usefixtures("said")
@pytest.mark.parametrize("model", MODELS)
def test_what_rows_are_called_shows_no_text_of_another_model(acme: Tenant, model: str) -> None:
    """It stands in titles, in logs, and wherever a host's own admin refers to a row; it costs no query either."""
    with acme.activated():
        found = list(ADMINS[model].model._default_manager.all())
        with exactly(0):
            called = " ".join(map(str, found))
    assert not {name for name, text in TEXTS.items() if text in called} - {model}
