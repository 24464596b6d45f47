"""Who may stay connected: looked at in many tenants together, and by itself where that doesn't tell."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User, UserManager
from django.contrib.sessions.models import Session
from django.test import override_settings
from django.utils import timezone

from django_tenant_messaging.exceptions import TenantNotReady
from django_tenant_messaging.realtime import access, rights
from django_tenant_messaging.realtime.close_codes import CloseCode
from django_tenant_messaging.realtime.handshake import Standing, identify
from django_tenant_messaging.realtime.hub import running_hub
from django_tenant_messaging.realtime.rights import Connected, lost_rights, may_look_together, plainly_stay
from django_tenant_messaging.tenancy import (
    activated,
    forget_readiness,
    handshake_request,
    public_schema,
    run_in_tenant,
)
from example.customers.models import Domain
from tests.harness.breaking import STATUS_TABLE, without_table
from tests.harness.peer import scope_for, session_of
from tests.harness.queries import exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

PEOPLE = ("alice", "bob", "carol")


def connected_as(tenant: Tenant, username: str) -> Connected:
    """What a connection of a user who just logged in rests on."""
    with tenant.activated():
        scope = scope_for(tenant.host, cookie=session_of(tenant.users[username]))
        standing = identify(tenant.schema_name, handshake_request(scope))
    assert isinstance(standing, Standing)
    return Connected(scope, standing)


@pytest.fixture
def connected(acme: Tenant, globex: Tenant) -> dict[str, list[Connected]]:
    """Three people in each of the two tenants, with equal ids and names."""
    for tenant in (acme, globex):
        for name in PEOPLE:
            tenant.create_user(name)
    assert [user.pk for user in acme.users.values()] == [user.pk for user in globex.users.values()]
    return {tenant.schema_name: [connected_as(tenant, name) for name in PEOPLE] for tenant in (acme, globex)}


def look(connected: dict[str, list[Connected]]) -> dict[str, list[bool]]:
    with activated(public_schema()):
        return plainly_stay(connected)


def logged_out(bob: Connected) -> None:
    Session.objects.filter(session_key=bob.standing.session_key).delete()


def expired(bob: Connected) -> None:
    just_now = timezone.now() - timedelta(seconds=1)
    Session.objects.filter(session_key=bob.standing.session_key).update(expire_date=just_now)


def deactivated(_bob: Connected | None = None) -> None:
    User.objects.filter(username="bob").update(is_active=False)


def given_another_password(_bob: Connected) -> None:
    user = User.objects.get(username="bob")
    user.set_password("another")
    User.objects.filter(username="bob").update(password=user.password)


def deleted(bob: Connected) -> None:
    User.objects.filter(pk=bob.standing.user.pk).delete()


@pytest.mark.parametrize("change", [logged_out, expired, deactivated, given_another_password, deleted])
def test_who_lost_the_right_does_not_plainly_stay(
    acme: Tenant, connected: dict[str, list[Connected]], change: Callable[[Connected], None]
) -> None:
    with acme.activated():
        change(connected["acme"][1])
    assert look(connected) == {"acme": [True, False, True], "globex": [True, True, True]}
    with acme.activated():
        assert lost_rights("acme", connected["acme"]) == [None, CloseCode.UNAUTHENTICATED, None]


@pytest.mark.parametrize("becomes", ["globex", "suspended"])
def test_nobody_stays_at_an_address_that_is_another_tenants_or_nobodys(
    acme: Tenant, globex: Tenant, connected: dict[str, list[Connected]], becomes: str
) -> None:
    with activated(public_schema()):
        domain = Domain.objects.get(domain=acme.host)
        theirs = Domain.objects.get(domain=globex.host).tenant
        changed = {"tenant": theirs} if becomes == "globex" else {"domain": "suspended.localhost"}
        try:
            Domain.objects.filter(pk=domain.pk).update(**changed)
            assert look(connected) == {"acme": [False] * 3, "globex": [True] * 3}
            with acme.activated():
                assert lost_rights("acme", connected["acme"]) == [CloseCode.UNKNOWN_TENANT] * 3
        finally:
            Domain.objects.filter(pk=domain.pk).update(tenant=domain.tenant, domain=acme.host)


def test_another_login_and_other_changes_of_a_user_take_nobody_out(
    acme: Tenant, connected: dict[str, list[Connected]]
) -> None:
    with acme.activated():
        session_of(acme.users["bob"])
        User.objects.filter(username="bob").update(first_name="Bob", last_login=timezone.now())
    assert look(connected) == {"acme": [True] * 3, "globex": [True] * 3}


def test_one_statement_for_all_tenants_and_one_for_their_addresses(connected: dict[str, list[Connected]]) -> None:
    # The third says how the first is planned, and how long it waits.
    with activated(public_schema()), exactly(3):
        plainly_stay({"acme": connected["acme"][:1]})
    with activated(public_schema()), exactly(3):
        plainly_stay(connected)


def test_a_tenant_that_is_not_ready_is_not_looked_at_with_others(
    database_url: str, connected: dict[str, list[Connected]]
) -> None:
    with without_table(database_url, "acme", STATUS_TABLE):
        forget_readiness("acme")
        with pytest.raises(TenantNotReady):
            look(connected)


class KnownUsers(UserManager[Any]):
    """A host's own idea of whom it knows."""

    def get_queryset(self) -> Any:
        return super().get_queryset().exclude(username="stranger")


class TestWhetherItCanBeTold:
    """Only where nothing of the host's decides who may stay."""

    def test_of_the_example_project(self) -> None:
        assert may_look_together()

    @pytest.mark.parametrize(
        "changed",
        [
            {"TENANT_MESSAGING": {"TENANT_MEMBERSHIP": lambda _user, _schema: True}},
            {"SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"},
            {"SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies"},
        ],
    )
    def test_not_where_settings_say_otherwise(self, changed: dict[str, Any]) -> None:
        with override_settings(**changed):
            assert not may_look_together()

    def test_not_where_sessions_or_users_are_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(rights, "sessions_are_per_tenant", lambda: False)
            assert not may_look_together()
        monkeypatch.setattr(rights, "users_are_shared", lambda: True)
        assert not may_look_together()

    def test_not_where_the_user_model_decides_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as changed:
            changed.setattr(User, "get_session_auth_hash", lambda _user: "of its own")
            assert not may_look_together()
        with monkeypatch.context() as changed:
            is_active = get_user_model()._meta.get_field("is_active")
            fields = [field for field in User._meta.local_concrete_fields if field is not is_active]
            changed.setattr(User._meta, "local_concrete_fields", fields)
            assert not may_look_together()
        manager = KnownUsers()
        manager.model = User
        monkeypatch.setattr(User._meta, "default_manager", manager)
        assert not may_look_together()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The tenants that are looked at by themselves, with the number of connections."""
    found: list[tuple[str, int]] = []

    def noted(schema_name: str, connected: Any) -> Any:
        found.append((schema_name, len(connected)))
        return lost_rights(schema_name, connected)

    monkeypatch.setattr(access, "lost_rights", noted)
    return found


@pytest.mark.usefixtures("team")
@pytest.mark.parametrize("is_whole", [True, False])
async def test_only_those_are_looked_at_by_themselves_who_may_have_lost_the_right(
    acme: Tenant,
    globex: Tenant,
    peers: Peers,
    settings: Any,
    looked_at: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    is_whole: bool,
) -> None:
    """Regularly, and with every comparison while the channel layer is down."""
    if is_whole:
        settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 1, "RECONCILE_INTERVAL": 3600}
    else:
        settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 0.5}
        monkeypatch.setattr("django_tenant_messaging.realtime.link.LayerLink.is_whole", False)
    alice, bob = [await peers.connect(acme, name) for name in ("alice", "bob")]
    namesake = await peers.connect(globex, "bob")
    await asyncio.sleep(0.5)
    looked_at.clear()
    await asyncio.sleep(1.5)
    assert not looked_at
    await run_in_tenant("acme", deactivated)
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 4401
    assert set(looked_at) == {("acme", 1)}
    for other in (alice, namesake):
        await other.ask("ping")
        assert other.close_code is None


@pytest.mark.usefixtures("team")
async def test_a_tenant_that_can_not_be_looked_at_takes_no_other_along(
    database_url: str, acme: Tenant, globex: Tenant, peers: Peers, settings: Any, looked_at: list[tuple[str, int]]
) -> None:
    settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 1, "RECONCILE_INTERVAL": 3600}
    await peers.connect(acme, "bob")
    namesake = await peers.connect(globex, "bob")
    await run_in_tenant("globex", deactivated)
    with without_table(database_url, "acme", "django_session"):
        await namesake.until(lambda: namesake.close_code is not None)
    assert namesake.close_code == 4401
    assert ("globex", 1) in looked_at


@pytest.mark.usefixtures("team")
async def test_no_group_of_tenants_is_left_out(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "MAX_TENANTS", 1)
    settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 3600}
    bobs = [await peers.connect(tenant, "bob") for tenant in (acme, globex)]
    for tenant in (acme, globex):
        await run_in_tenant(tenant.schema_name, deactivated)
    hub = running_hub()
    assert hub is not None
    hub.access.recheck_all()
    for bob in bobs:
        await bob.until(lambda bob=bob: bob.close_code is not None)  # type: ignore[misc]
        assert bob.close_code == 4401
