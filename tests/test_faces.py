"""Every face asks the same rule: whose login it is, where it happened, and whether the user is one of the tenant's.

What isn't listed here fails: a new page, admin view, action or step of the handshake has to be tried as well.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client, RequestFactory
from django.urls import reverse

import django_tenant_messaging
from django_tenant_messaging import actions, health_urls, urls
from django_tenant_messaging.models import ChatRoom, Notification
from django_tenant_messaging.permissions import Refusal, user_let_in, why_request_refused
from django_tenant_messaging.realtime import handshake, rights
from django_tenant_messaging.realtime.close_codes import CloseCode
from django_tenant_messaging.realtime.handshake import Standing, identify, identify_together, standing_lost
from django_tenant_messaging.realtime.rights import Connected, lost_rights
from django_tenant_messaging.tenancy import activated, bind_session, handshake_request, public_schema
from tests.harness.peer import scope_for
from tests.harness.stores import STORES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.tenants import Tenant

APP = "django_tenant_messaging"
PACKAGE = Path(django_tenant_messaging.__file__).parent
FACES = {"admin", "health_urls", "middleware", "realtime", "urls", "web"}
OF_THOSE_WHO_RUN_THE_SITE = {"apps", "checks", "management", "metrics"}
"""They know of no user."""
BELOW_THE_FACES = {
    *("actions", "conf", "events", "exceptions", "limits", "migrations", "models"),
    *("payloads", "permissions", "selectors", "signals", "tenancy", "types"),
}
SECRET = "a secret of this tenant"
LOGIN = "/accounts/login/"

PAGES = {
    "room-list": "/messages/",
    "create-room": "/messages/rooms/create/",
    "open-direct": "/messages/rooms/direct/",
    "room": "/messages/rooms/1/",
    "rename-room": "/messages/rooms/1/name/",
    "members": "/messages/rooms/1/members/",
    "leave-room": "/messages/rooms/1/leave/",
    "rejoin-room": "/messages/rooms/1/rejoin/",
    "mark-notifications-read": "/messages/notifications/read/",
}
HEALTH = {"migrations"}
DELETABLE = "chatroom"
MODELS = {"chatroom", "membership", "message", "messagerevision", "notification", "userstatus"}
ADMIN_VIEWS = {"changelist", "add", "history", "delete", "change"}
ADMIN_ACTIONS = {model: {"delete_selected"} for model in MODELS} | {"notification": {"delete_selected", "mark_as_read"}}
DECIDING = {identify, identify_together, standing_lost, lost_rights}
"""The steps of a handshake and of the looks after it that say of somebody whether they may be connected."""
NOT_DECIDING = {
    handshake.find_tenants,
    handshake.find_together,
    handshake.may_identify_together,
    handshake.session_key_of,
    handshake.live_sessions,
    handshake.choose_protocol,
    rights.may_look_together,
    # Of columns alone, and only where neither membership nor place of a login can change.
    rights.plainly_stay,
}


# The lists


def model_admins() -> dict[str, Any]:
    """The app's own admin classes, by the name of their model."""
    return {
        str(model._meta.model_name): found
        for model, found in admin.site._registry.items()
        if model._meta.app_label == APP
    }


def test_every_page_is_listed() -> None:
    assert {pattern.name for pattern in urls.urlpatterns} == PAGES.keys()
    assert {pattern.name for pattern in health_urls.urlpatterns} == HEALTH


def test_every_view_and_action_of_the_admin_is_listed(acme: Tenant) -> None:
    assert model_admins().keys() == MODELS
    for name, model_admin in model_admins().items():
        # The last one leads an object's bare address to its page.
        *views, bare = model_admin.get_urls()
        assert {view.name.removeprefix(f"{APP}_{name}_") for view in views} == ADMIN_VIEWS
        assert bare.name is None
        # Tuples until Django 6.0.
        actions = {getattr(action, "name", None) or action[1] for action in model_admin._get_base_actions()}
        assert actions == ADMIN_ACTIONS[name]
        assert not model_admin.inlines


def test_every_step_of_a_handshake_is_listed() -> None:
    steps: set[Any] = {
        function
        for module in (handshake, rights)
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert steps == DECIDING | NOT_DECIDING


def test_every_module_is_a_face_or_none() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__"} == FACES | OF_THOSE_WHO_RUN_THE_SITE | BELOW_THE_FACES


def test_no_face_has_a_rule_of_its_own() -> None:
    """What the rule is made of is asked by the rule alone; `actions` and `selectors` ask it of other people."""
    parts = re.compile(r"\b(may_use_tenant|belongs_to_tenant|login_belongs_here|TENANT_MEMBERSHIP)\b")
    for face in FACES:
        files = [*PACKAGE.glob(f"{face}.py"), *(PACKAGE / face).rglob("*.py")]
        assert files
        asking = {file.name for file in files if parts.search(file.read_text())}
        # That one only asks whether there is a hook at all.
        assert asking <= {"handshake.py"}, asking
    assert parts.findall((PACKAGE / "realtime/handshake.py").read_text()) == ["TENANT_MEMBERSHIP"]


# Trying them


@pytest.fixture
def twins(tenants: tuple[Tenant, Tenant]) -> tuple[Tenant, Tenant]:
    """Tenants with the same people of equal ids and password hashes, and a secret in all that can be shown."""
    acme, globex = tenants
    for tenant in tenants:
        root = tenant.create_user("root", is_staff=True, is_superuser=True)
        bob = tenant.create_user("bob")
        with tenant.activated():
            room = actions.create_room(root, name=SECRET, members=[bob])
            sent = actions.send_message(bob, room_id=room.pk, content=f"{SECRET}, @root").message
            actions.edit_message(bob, room_id=room.pk, message_id=sent.id, content=f"another, {SECRET}, @root")
            actions.ensure_userstatus_exists(root)
    for name, user in globex.users.items():
        with globex.activated():
            user.password = acme.users[name].password
            user.save()
    return tenants


def admin_requests(pk: int = 1) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """All that can be asked of our part of the admin, as method, address and form."""
    # What can be deleted last: the rest is in it.
    for model in sorted(MODELS, key=lambda name: name == DELETABLE):
        for view in sorted(ADMIN_VIEWS, key=lambda name: (name == "delete", name)):
            arguments = [] if view in {"changelist", "add"} else [pk]
            path = reverse(f"admin:{APP}_{model}_{view}", args=arguments, urlconf="example.urls")
            yield "get", path, {}
            yield "post", path, {"post": "yes"}
        for action in ADMIN_ACTIONS[model]:
            path = reverse(f"admin:{APP}_{model}_changelist", urlconf="example.urls")
            yield "post", path, {"action": action, "_selected_action": [pk], "post": "yes"}
    for source, field in (("membership", "room"), ("notification", "message")):
        query = {"app_label": APP, "model_name": source, "field_name": field, "term": "a"}
        yield "get", "/admin/autocomplete/", query


def refused_everywhere(client: Client, *, by: set[int]) -> None:
    """Try every page and admin view: each answers one of these statuses, or leads to the login, and shows nothing."""
    pages: list[Any] = [(method, path, {}) for method in ("get", "post") for path in PAGES.values()]
    asked = [*pages, *admin_requests()]
    for method, path, form in asked:
        response = getattr(client, method)(path, form)
        assert response.status_code in by, (method, path, form, response.status_code)
        assert response.status_code != 302 or "login/?next=" in response["Location"], response["Location"]
        assert SECRET not in response.content.decode()
    index = client.get("/admin/", follow=True).content.decode()
    assert f"/admin/{APP}/" not in index
    assert client.get(f"/admin/{APP}/").status_code in {404, 302}


def unread(tenant: Tenant) -> int:
    with tenant.activated():
        return Notification.objects.filter(is_read=False).count()


def test_who_is_let_in_is_let_in_everywhere(twins: tuple[Tenant, Tenant]) -> None:
    acme, globex = twins
    client = acme.client(acme.users["root"])
    assert SECRET in client.get("/messages/").content.decode()
    for method, path, form in admin_requests():
        response = getattr(client, method)(path, form)
        is_deletion = path.endswith("/delete/") and f"/{DELETABLE}/" not in path
        may_not = is_deletion or path.endswith("/add/") or (path.endswith("/change/") and method == "post")
        assert (response.status_code == 403) == may_not, (method, path, form, response.status_code)
    assert f"/admin/{APP}/" in client.get("/admin/").content.decode()
    with acme.activated():
        assert not ChatRoom.objects.exists()
    with globex.activated():
        assert ChatRoom.objects.exists()
    assert (unread(acme), unread(globex)) == (0, 1)


def test_staff_whom_the_tenant_does_not_admit(twins: tuple[Tenant, Tenant], settings: Any) -> None:
    """Shared users, as staff of another tenant are here; that they are superusers makes no difference."""
    acme, _globex = twins
    client = acme.client(acme.users["root"])
    settings.TENANT_MESSAGING = {"TENANT_MEMBERSHIP": lambda user, schema_name: (user.pk, schema_name) != (1, "acme")}
    refused_everywhere(client, by={403})
    # The rest of the admin is the host's.
    assert client.get("/admin/auth/user/").status_code == 200
    assert unread(acme) == 1


@pytest.mark.parametrize("store", STORES)
def test_session_of_another_tenant(twins: tuple[Tenant, Tenant], settings: Any, tmp_path: Path, store: str) -> None:
    acme, globex = twins
    for name, value in {**STORES[store], "SESSION_FILE_PATH": str(tmp_path)}.items():
        setattr(settings, name, value)
    client = acme.client(acme.users["root"])
    assert client.get("/admin/", SERVER_NAME=acme.host).status_code == 200
    client.defaults["SERVER_NAME"] = globex.host
    # Where each tenant has its own sessions, nobody is logged in, and the login page is shown.
    refused_everywhere(client, by={302} if store in {"db", "cache", "cached_db"} else {403})
    assert (unread(acme), unread(globex)) == (1, 1)


def test_nobody(twins: tuple[Tenant, Tenant]) -> None:
    refused_everywhere(twins[0].client(), by={302})


# Sockets


def standing_of(tenant: Tenant, client: Client) -> Connected:
    scope = scope_for(tenant.host, cookie=client.cookies["sessionid"].value)
    with tenant.activated():
        standing = identify(tenant.schema_name, handshake_request(scope))
    assert isinstance(standing, Standing)
    return Connected(scope, standing)


def at_the_handshake(tenant: Tenant, client: Client) -> tuple[Any, Any]:
    """What both ways of reading who connects say."""
    request = handshake_request(scope_for(tenant.host, cookie=client.cookies["sessionid"].value))
    with tenant.activated():
        (together,) = identify_together(tenant.schema_name, [request])
        return identify(tenant.schema_name, request), together


def test_socket_of_staff_whom_the_tenant_does_not_admit(twins: tuple[Tenant, Tenant], settings: Any) -> None:
    acme, _globex = twins
    client = acme.client(acme.users["root"])
    connected = standing_of(acme, client)
    with acme.activated():
        assert lost_rights("acme", [connected]) == [None]
    settings.TENANT_MESSAGING = {"TENANT_MEMBERSHIP": lambda _user, schema_name: schema_name != "acme"}
    assert at_the_handshake(acme, client) == (CloseCode.FORBIDDEN, None)
    with acme.activated():
        user = get_user_model().objects.get(pk=connected.standing.user.pk)
        assert lost_rights("acme", [connected]) == [CloseCode.FORBIDDEN]
        assert standing_lost(connected.standing, user, "acme") == CloseCode.FORBIDDEN


@pytest.mark.parametrize("store", STORES)
def test_socket_with_a_session_of_another_tenant(
    twins: tuple[Tenant, Tenant], settings: Any, tmp_path: Path, store: str
) -> None:
    acme, globex = twins
    for name, value in {**STORES[store], "SESSION_FILE_PATH": str(tmp_path)}.items():
        setattr(settings, name, value)
    client = acme.client(acme.users["root"])
    standing = standing_of(acme, client).standing
    request = handshake_request(scope_for(globex.host, cookie=client.cookies["sessionid"].value))
    with globex.activated():
        assert identify("globex", request) == CloseCode.UNAUTHENTICATED
        assert standing_lost(standing, globex.users["root"], "globex") == CloseCode.UNAUTHENTICATED


# Where there is no tenant, no session, no user


def test_where_there_are_no_messages_the_admin_names_none(acme: Tenant, settings: Any) -> None:
    root = acme.create_user("root", is_staff=True, is_superuser=True)
    kinds: dict[str, Any] = {"HAS_MULTI_TYPE_TENANTS": True, "MULTI_TYPE_DATABASE_FIELD": "name"}
    kinds["TENANT_TYPES"] = {"public": {"APPS": []}, "Acme": {"APPS": ["django.contrib.auth"]}}
    for schema_name, changed in ((public_schema(), {}), ("acme", kinds)):
        for name, value in changed.items():
            setattr(settings, name, value)
        request: Any = RequestFactory().get("/")
        request.user = root
        with activated(schema_name):
            assert why_request_refused(request) is Refusal.NO_MESSAGES
            for model_admin in model_admins().values():
                assert not any(model_admin.get_model_perms(request).values())
                assert not model_admin.has_module_permission(request)


@pytest.mark.parametrize("lacking", ["session", "user"])
def test_request_that_lacks_what_middleware_gives(acme: Tenant, lacking: str) -> None:
    """The admin of a host's other models names ours, if they may be seen; that nobody can be found is no error."""
    root = acme.create_user("root", is_staff=True, is_superuser=True)
    request: Any = RequestFactory().get("/")
    request.session = acme.client(root).session
    request.user = root
    delattr(request, lacking)
    with acme.activated():
        assert why_request_refused(request) is not None
        assert not user_let_in(request).is_authenticated
        assert not any(model_admin.has_module_permission(request) for model_admin in model_admins().values())
        if lacking == "session":
            shown = {app["app_label"] for app in admin.site.get_app_list(request)}
            assert shown == {"auth"}


@pytest.mark.parametrize(
    "lacking",
    [
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
    ],
)
def test_page_without_the_middleware_of_logins_lets_nobody_in(acme: Tenant, settings: Any, lacking: str) -> None:
    cookies = acme.client(acme.create_user("root")).cookies
    needed = ("AuthenticationMiddleware", "MessageMiddleware", "SessionMiddleware")
    left_out = needed if "Session" in lacking else needed[:1]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith(left_out)]
    client = acme.client()
    client.cookies = cookies
    response = client.get("/messages/")
    assert response.status_code == 302
    assert response["Location"].startswith(LOGIN)


def test_the_query_of_membership_is_asked_once_for_a_page_of_the_admin(
    twins: tuple[Tenant, Tenant], settings: Any
) -> None:
    acme, _globex = twins
    client = acme.client(acme.users["root"])
    is_member = Mock(return_value=True)
    settings.TENANT_MESSAGING = {"TENANT_MEMBERSHIP": is_member}
    assert client.get("/admin/").status_code == 200
    is_member.assert_called_once()


def test_what_is_known_of_a_request_is_known_of_one_schema(twins: tuple[Tenant, Tenant]) -> None:
    """A host's own code may look into several tenants in one request."""
    acme, globex = twins
    request: Any = RequestFactory().get("/")
    request.user, request.session = acme.users["root"], acme.client(acme.users["root"]).session
    for tenant, is_let_in in ((acme, True), (globex, False), (acme, True)):
        with tenant.activated():
            assert model_admins()["message"].has_view_permission(request) is is_let_in


# Forms from elsewhere


@pytest.mark.parametrize("has_middleware", [True, False])
def test_form_of_another_site_does_nothing(twins: tuple[Tenant, Tenant], settings: Any, has_middleware: bool) -> None:
    acme, _globex = twins
    if not has_middleware:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith("CsrfViewMiddleware")]
    strict = Client(SERVER_NAME=acme.host, enforce_csrf_checks=True)
    strict.cookies = acme.client(acme.users["root"]).cookies
    for path in PAGES.values():
        assert strict.post(path).status_code == 403, path
    for method, path, form in admin_requests():
        if method == "post":
            assert strict.post(path, form).status_code == 403, path
    assert unread(acme) == 1


def test_form_of_our_own_page_works_without_the_hosts_middleware(twins: tuple[Tenant, Tenant], settings: Any) -> None:
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith("CsrfViewMiddleware")]
    acme, _globex = twins
    strict = Client(SERVER_NAME=acme.host, enforce_csrf_checks=True)
    strict.cookies = acme.client(acme.users["root"]).cookies
    page = strict.get("/messages/").content.decode()
    (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page))
    form = {"room-name": "another room", "room-people": "bob", "csrfmiddlewaretoken": token}
    response = strict.post("/messages/rooms/create/", form)
    assert response.status_code == 302, response.content.decode()


# Details


@pytest.mark.parametrize("store", ["db", "signed_cookies"])
def test_details_of_health_go_by_the_user_whom_the_rule_lets_in(
    twins: tuple[Tenant, Tenant], settings: Any, store: str
) -> None:
    acme, globex = twins
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith("MigrationHealthMiddleware")]
    for name, value in STORES[store].items():
        setattr(settings, name, value)
    staff_see = {"SHOW_HEALTH_DETAILS": lambda request: request.user.is_staff}
    settings.TENANT_MESSAGING = staff_see
    client = acme.client(acme.users["root"])
    assert "tenants" in client.get("/health/migrations/").json()
    assert "tenants" not in client.get("/health/migrations/", SERVER_NAME=globex.host).json()
    settings.TENANT_MESSAGING = staff_see | {"TENANT_MEMBERSHIP": lambda _user, _schema_name: False}
    assert "tenants" not in client.get("/health/migrations/").json()


def test_user_of_the_shared_schema_is_let_in_there_by_a_login_of_there(acme: Tenant) -> None:
    root = acme.create_user("root")
    request: Any = RequestFactory().get("/")
    request.user, request.session = root, acme.client(root).session
    with acme.activated():
        assert user_let_in(request) is root
    with activated(public_schema()):
        assert not user_let_in(request).is_authenticated
        bind_session(request.session)
        assert user_let_in(request) is root
