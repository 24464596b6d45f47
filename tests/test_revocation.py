"""Who loses the right to be connected is disconnected, in every process, and gets nothing after it."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from django.contrib.auth import logout
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpRequest

from django_tenant_messaging import actions
from django_tenant_messaging.realtime import access
from django_tenant_messaging.realtime.access import PARTS, AccessKeeper
from django_tenant_messaging.realtime.rights import lost_rights
from django_tenant_messaging.tenancy import run_in_tenant
from example.customers.models import Domain
from tests.harness.peer import another_hub, scope_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django_tenant_messaging.realtime.hub import Hub
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1
NEVER = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 3600}
OFTEN = {"ACCESS_RECHECK_INTERVAL": 1, "RECONCILE_INTERVAL": 3600}


@pytest.fixture(autouse=True)
def rooms(acme: Tenant, globex: Tenant, people: Any) -> None:
    """Room 1 with alice, bob and carol in both tenants."""
    for tenant in (acme, globex):
        with tenant.activated():
            first, *others = (tenant.users[name] for name in people)
            assert actions.create_room(first, name="team", members=others).pk == ROOM


@pytest.fixture
async def other_process(settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a second process, which learns of things by the channel layer."""
    settings.TENANT_MESSAGING = NEVER
    async with another_hub(peers) as hub:
        yield hub


def logged_out(tenant: Tenant, peer: Peer) -> None:
    request = HttpRequest()
    request.session = SessionStore(peer.session_key)
    request.user = tenant.users["bob"]
    logout(request)


def deactivated(tenant: Tenant, _peer: Peer) -> None:
    user = User.objects.get(username="bob")
    user.is_active = False
    user.save()


def given_another_password(tenant: Tenant, _peer: Peer) -> None:
    user = User.objects.get(username="bob")
    user.set_password("another")
    user.save(update_fields=["password"])


def deleted(tenant: Tenant, _peer: Peer) -> None:
    User.objects.get(username="bob").delete()


def changed_in_bulk(tenant: Tenant, _peer: Peer) -> None:
    User.objects.filter(username="bob").update(is_active=False)
    actions.recheck_access(tenant.users["bob"])


def changed_in_bulk_with_everyone_looked_at(_tenant: Tenant, _peer: Peer) -> None:
    User.objects.filter(username="bob").update(password=make_password("another"))
    actions.recheck_access()


REVOCATIONS = [
    logged_out,
    deactivated,
    given_another_password,
    deleted,
    changed_in_bulk,
    changed_in_bulk_with_everyone_looked_at,
]


@pytest.mark.parametrize("revoke", REVOCATIONS)
async def test_revoked_user_is_disconnected_at_once_everywhere(
    acme: Tenant, globex: Tenant, peers: Peers, other_process: Hub, revoke: Callable[[Tenant, Peer], None]
) -> None:
    here = await peers.connect(acme, "bob")
    there = await peers.connect(acme, "bob", hub=other_process, session_key=here.session_key)
    alice, namesake = await peers.connect(acme, "alice"), await peers.connect(globex, "bob", hub=other_process)
    await run_in_tenant("acme", revoke, acme, here)
    await run_in_tenant("acme", actions.send_message, acme.users["alice"], room_id=ROOM, content="a secret")
    for peer in (here, there):
        await peer.until(lambda peer=peer: peer.close_code is not None)  # type: ignore[misc]
        assert peer.close_code == 4401
    await alice.until(lambda: alice.contents() == ["a secret"])
    await namesake.ask("ping")
    assert (alice.close_code, namesake.close_code) == (None, None)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("revoke", [logged_out, deactivated])
async def test_who_is_revoked_while_being_let_in_does_not_stay(
    acme: Tenant,
    peers: Peers,
    other_process: Hub,
    monkeypatch: pytest.MonkeyPatch,
    revoke: Callable[[Tenant, Peer], None],
    is_first: bool,
) -> None:
    """After the session was read, but before the socket can be found by what is said of it."""
    here = await peers.connect(acme, "bob")
    if not is_first:
        await peers.connect(acme, "alice", hub=other_process)
    admit = other_process.arrivals.admit

    async def admit_and_revoke(scope: Any) -> Any:
        admitted = await admit(scope)
        await run_in_tenant("acme", revoke, acme, here)
        await here.until(lambda: here.close_code is not None)
        await asyncio.sleep(0.2)
        return admitted

    monkeypatch.setattr(other_process.arrivals, "admit", admit_and_revoke)
    there = await peers.open(scope_for(acme.host, cookie=here.session_key), hub=other_process)
    await there.until(lambda: there.close_code is not None)
    assert there.close_code == 4401


async def test_logout_leaves_the_users_other_sessions(acme: Tenant, peers: Peers, settings: Any) -> None:
    settings.TENANT_MESSAGING = NEVER
    one, other = await peers.connect(acme, "bob"), await peers.connect(acme, "bob")
    await run_in_tenant("acme", logged_out, acme, one)
    await one.until(lambda: one.close_code is not None)
    await other.ask("ping")
    assert other.close_code is None


async def test_another_login_and_other_changes_of_a_user_close_nothing(
    acme: Tenant, peers: Peers, settings: Any
) -> None:
    settings.TENANT_MESSAGING = NEVER
    bob = await peers.connect(acme, "bob")
    await peers.connect(acme, "bob")

    def rename() -> None:
        user = User.objects.get(username="bob")
        user.first_name = "Bob"
        user.save()

    await run_in_tenant("acme", rename)
    await bob.ask("ping")
    await bob.ask("ping")
    assert bob.close_code is None


def without_a_session() -> None:
    Session.objects.all().delete()


def inactive() -> None:
    User.objects.filter(username="bob").update(is_active=False)


@pytest.mark.parametrize("change", [without_a_session, inactive])
async def test_what_nobody_announced_is_noticed_in_time(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, change: Callable[[], None]
) -> None:
    settings.TENANT_MESSAGING = OFTEN
    bob, namesake = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")
    await run_in_tenant("acme", change)
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 4401
    await namesake.ask("ping")
    assert namesake.close_code is None


async def test_tenant_without_its_domain_is_served_no_longer(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any
) -> None:
    settings.TENANT_MESSAGING = NEVER
    bob, namesake = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")

    def suspend() -> None:
        Domain.objects.filter(domain=acme.host).update(domain="suspended.localhost")
        actions.recheck_access()

    def resume() -> None:
        Domain.objects.filter(domain="suspended.localhost").update(domain=acme.host)

    try:
        await run_in_tenant("acme", suspend)
        await bob.until(lambda: bob.close_code is not None)
        assert bob.close_code == 4404
        await namesake.ask("ping")
        assert namesake.close_code is None
    finally:
        await run_in_tenant("acme", resume)


async def test_tenant_that_left_the_hook_is_forbidden(acme: Tenant, peers: Peers, settings: Any) -> None:
    members = {"alice", "bob"}
    settings.TENANT_MESSAGING = NEVER | {"TENANT_MEMBERSHIP": lambda user, _schema: user.username in members}
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    members.discard("bob")
    await run_in_tenant("acme", actions.recheck_access, acme.users["bob"])
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 4403
    await alice.ask("ping")
    assert alice.close_code is None


@pytest.mark.parametrize("layer", ["down", "in memory", "none"])
async def test_where_other_processes_may_go_unheard_rights_are_looked_at_in_each_interval(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 0.1}
    if layer == "none":
        settings.CHANNEL_LAYERS = {}
    bob, namesake = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")
    if layer == "down":
        monkeypatch.setattr("django_tenant_messaging.realtime.link.LayerLink.is_local", False)
        monkeypatch.setattr("django_tenant_messaging.realtime.link.LayerLink.is_whole", False)
    await run_in_tenant("acme", inactive)
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 4401
    await namesake.ask("ping")
    assert namesake.close_code is None


async def test_a_tenant_that_does_not_answer_keeps_no_other_unseen(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is asked once, not again in each interval, until it has answered."""
    settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 0.1}
    monkeypatch.setattr(access, "may_look_together", lambda: False)
    monkeypatch.setattr(access, "PATIENCE", 0.05)
    answers = threading.Event()
    asked: list[str] = []

    def slow(schema_name: str, connected: Any) -> Any:
        asked.append(schema_name)
        if schema_name == "acme":
            answers.wait(20)
        return lost_rights(schema_name, connected)

    bob, namesake = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")
    monkeypatch.setattr(access, "lost_rights", slow)
    try:
        for tenant in (acme, globex):
            await run_in_tenant(tenant.schema_name, inactive)
        await namesake.until(lambda: namesake.close_code is not None)
        await asyncio.sleep(0.5)
        assert asked.count("acme") == 1
    finally:
        answers.set()
    await bob.until(lambda: bob.close_code is not None)
    assert (bob.close_code, namesake.close_code) == (4401, 4401)


class TestWhatIsDue:
    """Each socket is looked at once in an interval, and never later for what its tenant has become."""

    @pytest.fixture
    def keeper(self, monkeypatch: pytest.MonkeyPatch) -> AccessKeeper:
        monkeypatch.setattr(access, "FEW_SOCKETS", 3)
        # Sockets are numbers here: no more of one is asked for than its hash.
        return AccessKeeper(cast("Hub", SimpleNamespace(sockets={})))

    def sockets(self, keeper: AccessKeeper, schema_name: str, number: int) -> None:
        found: Any = keeper._hub.sockets
        for key in [key for key in found if key[0] == schema_name]:
            del found[key]
        found.update({(schema_name, f"{user}"): {user} for user in range(number)})

    def test_once_in_an_interval(self, keeper: AccessKeeper) -> None:
        self.sockets(keeper, "acme", 3)
        self.sockets(keeper, "globex", 30)
        assert len(keeper._due(0)["globex"]) == 30
        rounds: list[dict[str, Any]] = [keeper._due(part) for part in range(PARTS)]
        assert [due["acme"] for due in rounds if "acme" in due] == [[0, 1, 2]]
        assert [due["globex"] for due in rounds] == [list(range(part, 30, PARTS)) for part in range(PARTS)]

    def test_as_a_whole_when_the_tenant_has_become_another(self, keeper: AccessKeeper) -> None:
        away = (hash("acme") + 1) % PARTS
        for number, is_due in ((3, False), (4, True), (3, True), (3, False), (0, False), (2, False)):
            self.sockets(keeper, "acme", number)
            due: Any = keeper._due(away)
            assert due.get("acme", []) == (list(range(number)) if is_due else [])
