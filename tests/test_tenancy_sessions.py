"""A login is valid in its own tenant, even where the other has a user of equal id, name and password hash."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user, get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.test import override_settings

from django_tenant_messaging.permissions import may_use_tenant, why_refused
from django_tenant_messaging.tenancy import bind_session, login_belongs_here, login_of, users_are_shared
from django_tenant_messaging.tenancy.sessions import SESSION_KEY
from tests.harness.peer import scope_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User
    from django.test import Client

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

STORES: dict[str, dict[str, Any]] = {
    "cookie": {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
    "cache": {
        "SESSION_ENGINE": "django.contrib.sessions.backends.cache",
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    },
}


@pytest.fixture
def twins(tenants: tuple[Tenant, Tenant], people: tuple[str, ...]) -> tuple[Tenant, Tenant]:
    """Tenants whose alices can't be told apart, as in a cloned template."""
    acme, globex = tenants
    with globex.activated():
        globex.users["alice"].password = acme.users["alice"].password
        globex.users["alice"].save()
    return tenants


@pytest.fixture(params=STORES)
def shared_store(request: pytest.FixtureRequest) -> Iterator[None]:
    with override_settings(**STORES[request.param]):
        yield


def carried_over(client: Client, other: Tenant) -> Client:
    """The same browser at the other tenant, with a cookie of their common parent domain."""
    client.defaults["SERVER_NAME"] = other.host
    return client


def user_by_django(client: Client, tenant: Tenant) -> Any:
    """Whom Django alone takes a session for."""
    request = HttpRequest()
    request.session = client.session
    with tenant.activated():
        return get_user(request)


def belongs_here(session: Any, schema_name: str) -> bool:
    return login_belongs_here(login_of(session, "key"), schema_name)


def signed_in_here(user: Any, session: Any, schema_name: str) -> bool:
    return why_refused(user, login_of(session, "key"), schema_name) is None


def test_session_of_the_other_tenant(twins: tuple[Tenant, Tenant], shared_store: None) -> None:
    acme, globex = twins
    client = acme.client(acme.users["alice"])
    assert client.get("/messages/").status_code == 200

    thief = carried_over(client, globex)
    assert user_by_django(thief, globex).is_authenticated  # the naive check: globex's alice
    assert not signed_in_here(user_by_django(thief, globex), thief.session, "globex")
    assert signed_in_here(user_by_django(thief, acme), thief.session, "acme")
    assert thief.get("/messages/").status_code == 403


async def test_session_of_the_other_tenant_at_the_websocket(
    twins: tuple[Tenant, Tenant], shared_store: None, peers: Peers
) -> None:
    from asgiref.sync import sync_to_async

    acme, globex = twins
    client = await sync_to_async(acme.client)(acme.users["alice"])
    cookie = client.cookies["sessionid"].value
    codes = [(await peers.open(scope_for(tenant.host, cookie=cookie))).close_code for tenant in (acme, globex)]
    assert codes == [None, 4401]


def test_new_login_rebinds_the_session(twins: tuple[Tenant, Tenant], shared_store: None) -> None:
    acme, globex = twins
    client = carried_over(acme.client(acme.users["alice"]), globex)
    client.post("/accounts/logout/")
    client.post("/accounts/login/", {"username": "alice", "password": "password"})
    assert client.get("/messages/").status_code == 200
    assert belongs_here(client.session, "globex")
    assert not belongs_here(client.session, "acme")


def test_session_without_a_binding_belongs_nowhere_if_the_store_is_shared(
    acme: Tenant, people: tuple[str, ...], shared_store: None
) -> None:
    session: Any = {}
    assert not belongs_here(session, "acme")
    assert not signed_in_here(acme.users["alice"], session, "acme")
    with acme.activated():
        bind_session(session)
    assert signed_in_here(acme.users["alice"], session, "acme")
    assert "acme" not in str(session)


def test_session_from_before_the_installation_counts_if_the_store_is_the_tenants_own(
    twins: tuple[Tenant, Tenant],
) -> None:
    acme, globex = twins
    client = acme.client(acme.users["alice"])
    session = client.session
    del session[SESSION_KEY]
    with acme.activated():
        session.save()
    assert client.get("/messages/").status_code == 200
    assert carried_over(client, globex).get("/messages/").status_code == 302


@pytest.mark.parametrize("shared", [["django.contrib.sessions"], ["django.contrib.sessions", "django.contrib.auth"]])
def test_session_without_a_binding_belongs_nowhere_if_its_table_is_shared(shared: list[str]) -> None:
    with override_settings(SHARED_APPS=shared):
        assert not belongs_here({}, "acme")


@contextmanager
def users_in_the_shared_schema() -> Iterator[None]:
    with override_settings(TENANT_APPS=["django.contrib.contenttypes", "django_tenant_messaging"]):
        yield


def is_customer(user: User, schema_name: str) -> bool:
    return (user.get_username(), schema_name) == ("alice", "acme")


@pytest.mark.parametrize("hook", [is_customer, f"{__name__}.is_customer"], ids=["callable", "path"])
def test_membership_hook_decides(acme: Tenant, people: tuple[str, ...], hook: Any) -> None:
    alice, bob = acme.users["alice"], acme.users["bob"]
    with override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": hook}):
        assert may_use_tenant(alice, "acme")
        assert not may_use_tenant(alice, "globex")
        assert not may_use_tenant(bob, "acme")
        alice.is_active = False
        assert not may_use_tenant(alice, "acme")


def test_shared_users_need_the_hook(acme: Tenant, people: tuple[str, ...]) -> None:
    alice = acme.users["alice"]
    assert not users_are_shared()
    assert may_use_tenant(alice, "acme")
    with users_in_the_shared_schema():
        assert users_are_shared()
        assert not may_use_tenant(alice, "acme")
        with override_settings(TENANT_MESSAGING={"TENANT_MEMBERSHIP": is_customer}):
            assert may_use_tenant(alice, "acme")


def test_users_app_may_be_named_by_its_config() -> None:
    with override_settings(TENANT_APPS=["django.contrib.auth.apps.AuthConfig"]):
        assert not users_are_shared()
    types = {"public": {"APPS": ["django.contrib.auth"]}, "firm": {"APPS": ["django_tenant_messaging"]}}
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, TENANT_TYPES=types):
        assert users_are_shared()
    types["firm"]["APPS"].append("django.contrib.auth")
    with override_settings(HAS_MULTI_TYPE_TENANTS=True, TENANT_TYPES=types):
        assert not users_are_shared()


def test_nobody_in_particular_uses_no_tenant(acme: Tenant) -> None:
    assert not may_use_tenant(AnonymousUser(), "acme")
    assert not may_use_tenant(get_user_model()(username="gone", is_active=False), "acme")
