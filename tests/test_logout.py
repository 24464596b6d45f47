"""A logout closes what its login opened, in every process, wherever sessions are kept and whatever their key is now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.auth import login, logout, update_session_auth_hash, user_logged_in, user_logged_out
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest

from django_tenant_messaging import actions
from django_tenant_messaging.realtime import access
from django_tenant_messaging.realtime.access import AccessKeeper
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.tenancy.sessions import LOGIN_KEY, SESSION_KEY
from tests.harness.peer import another_hub, scope_for, session_of, session_store
from tests.harness.stores import STORES
from tests.harness.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from django_tenant_messaging.realtime.hub import Hub
    from example.services import LocalRedis
    from tests.harness.peer import Peer, Peers
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("people")
NEVER = {"ACCESS_RECHECK_INTERVAL": 3600, "RECONCILE_INTERVAL": 3600}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> str:
    """Where sessions are kept."""
    for name, value in {**STORES[request.param], "SESSION_FILE_PATH": str(tmp_path)}.items():
        setattr(settings, name, value)
    return str(request.param)


@pytest.fixture
async def other_process(settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a second process, which learns of things by the channel layer."""
    settings.TENANT_MESSAGING = NEVER
    async with another_hub(peers) as hub:
        yield hub


def request_of(user: User, session_key: str) -> HttpRequest:
    request = HttpRequest()
    request.session = session_store(session_key)
    request.user = user
    return request


def log_out(user: User, session_key: str) -> None:
    logout(request_of(user, session_key))


def later_cookie(session_key: str, change: Callable[[Any], None] | None = None) -> str:
    """The cookie that a browser has after another page, which changed something of its session."""
    session = session_store(session_key)
    session["visited"] = True
    if change is not None:
        change(session)
    session.save()
    return str(session.session_key)


async def closed(*peers: Peer) -> list[int | None]:
    for peer in peers:
        await peer.until(lambda peer=peer: peer.close_code is not None)  # type: ignore[misc]
    return [peer.close_code for peer in peers]


async def still_open(*peers: Peer) -> bool:
    for peer in peers:
        await peer.ask("ping")
    return [peer.close_code for peer in peers] == [None] * len(peers)


async def test_logout_closes_the_sockets_of_its_login_everywhere(
    acme: Tenant, globex: Tenant, peers: Peers, other_process: Hub, store: str
) -> None:
    here = await peers.connect(acme, "bob")
    there = await peers.connect(acme, "bob", hub=other_process, session_key=here.session_key)
    others = [
        await peers.connect(acme, "bob", hub=other_process),
        await peers.connect(acme, "alice", hub=other_process),
        await peers.connect(globex, "bob", hub=other_process),
    ]
    await run_in_tenant("acme", log_out, acme.users["bob"], here.session_key)
    assert await closed(here, there) == [4401, 4401]
    assert await still_open(*others)


@pytest.mark.parametrize("store", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_logout_on_one_server_closes_the_sockets_on_another(
    acme: Tenant,
    globex: Tenant,
    redis_server: LocalRedis,
    start_server: Callable[..., Server],
    tmp_path: Path,
    store: str,
) -> None:
    for tenant in (acme, globex):
        with tenant.activated():
            actions.create_room(tenant.users["bob"], name="team", members=[tenant.users["alice"]])
    env = {"REDIS_URL": redis_server.url(), "SESSION_STORE": store, "SESSION_FILE_PATH": str(tmp_path)}
    here, there = (start_server(DJANGO_SETTINGS_MODULE="tests.settings_sessions", **env) for _number in range(2))
    cookie = here.login(acme, "bob")
    token = dict(part.split("=", 1) for part in cookie.split("; "))["csrftoken"]
    with (
        Wire(there, acme, "bob", cookie=cookie) as bob,
        Wire(there, acme, "bob") as elsewhere,
        Wire(there, globex, "bob") as stranger,
    ):
        form = {"csrfmiddlewaretoken": token}
        assert here.request(acme, "POST", "/accounts/logout/", data=form, cookie=cookie)[0].status == 302
        assert bob.closed_with() == 4401
        for other in (elsewhere, stranger):
            assert other.ask("ping")["type"] == "ok"


async def test_logout_after_the_session_got_another_key(
    acme: Tenant, peers: Peers, other_process: Hub, store: str
) -> None:
    """As where the session is the cookie itself, and with each rotation of keys."""
    there = await peers.connect(acme, "bob", hub=other_process)
    other = await peers.connect(acme, "bob", hub=other_process)
    cookie = await run_in_tenant("acme", later_cookie, there.session_key, lambda session: session.cycle_key())
    await run_in_tenant("acme", log_out, acme.users["bob"], cookie)
    assert await closed(there) == [4401]
    assert await still_open(other)


async def test_change_of_password_ends_the_other_logins_and_logout_the_one_that_goes_on(
    acme: Tenant, peers: Peers, other_process: Hub, store: str
) -> None:
    before = await peers.connect(acme, "bob", hub=other_process)
    other = await peers.connect(acme, "bob", hub=other_process)

    def change_password() -> str:
        user = User.objects.get(username="bob")
        request = request_of(user, before.session_key)
        user.set_password("another")
        user.save()
        update_session_auth_hash(request, user)
        request.session.save()
        return str(request.session.session_key)

    cookie = await run_in_tenant("acme", change_password)
    assert await closed(before, other) == [4401, 4401]
    after = await peers.connect(acme, "bob", hub=other_process, session_key=cookie)
    await run_in_tenant("acme", log_out, acme.users["bob"], cookie)
    assert await closed(after) == [4401]


async def test_who_logs_in_again_goes_on_with_the_same_login(
    acme: Tenant, peers: Peers, other_process: Hub, store: str
) -> None:
    first = await peers.connect(acme, "bob", hub=other_process)

    def log_in_again() -> str:
        request = request_of(acme.users["bob"], first.session_key)
        login(request, acme.users["bob"])
        request.session.save()
        return str(request.session.session_key)

    cookie = await run_in_tenant("acme", log_in_again)
    second = await peers.connect(acme, "bob", hub=other_process, session_key=cookie)
    await run_in_tenant("acme", log_out, acme.users["bob"], cookie)
    assert await closed(first, second) == [4401, 4401]


async def test_login_of_somebody_else_without_a_logout(
    acme: Tenant, peers: Peers, other_process: Hub, settings: Any, store: str
) -> None:
    """The server deletes the session that it replaces, or knows from the cookie which login that was."""
    there = await peers.connect(acme, "bob", hub=other_process)
    other = await peers.connect(acme, "bob", hub=other_process)

    def log_in_as_alice() -> None:
        request = request_of(acme.users["bob"], there.session_key)
        request.COOKIES[settings.SESSION_COOKIE_NAME] = there.session_key
        login(request, acme.users["alice"])

    await run_in_tenant("acme", log_in_as_alice)
    if store != "signed_cookies":
        other_process.access.recheck_all()
    assert await closed(there) == [4401]
    assert await still_open(other)


async def test_logout_while_the_socket_is_being_let_in(
    acme: Tenant, peers: Peers, other_process: Hub, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the session was read, but before the socket can be found by what is said of it."""
    await peers.connect(acme, "alice", hub=other_process)
    cookie = await run_in_tenant("acme", session_of, acme.users["bob"])
    admit, login_ended, heard = other_process.arrivals.admit, other_process.access.login_ended, asyncio.Event()

    def hear(schema_name: str, mark: str) -> None:
        login_ended(schema_name, mark)
        heard.set()

    async def admit_and_log_out(scope: Any) -> Any:
        admitted = await admit(scope)
        await run_in_tenant("acme", log_out, acme.users["bob"], cookie)
        await asyncio.wait_for(heard.wait(), 10)
        return admitted

    monkeypatch.setattr(other_process.access, "login_ended", hear)
    monkeypatch.setattr(other_process.arrivals, "admit", admit_and_log_out)
    late = await peers.open(scope_for(acme.host, cookie=cookie), hub=other_process)
    assert await closed(late) == [4401]


@pytest.mark.parametrize("name", ["signed_cookies", "shared cache"])
async def test_logout_at_another_tenants_address(
    acme: Tenant, peers: Peers, other_process: Hub, settings: Any, name: str
) -> None:
    """With a cookie of the common domain and a store that all share, Django ends the session there just as well."""
    for setting, value in STORES[name].items():
        setattr(settings, setting, value)
    there = await peers.connect(acme, "bob", hub=other_process)
    other = await peers.connect(acme, "bob", hub=other_process)
    await run_in_tenant("globex", log_out, acme.users["bob"], there.session_key)
    assert await closed(there) == [4401]
    assert await still_open(other)


async def test_logout_of_a_session_from_before_the_installation(acme: Tenant, peers: Peers, other_process: Hub) -> None:
    cookie = await run_in_tenant("acme", session_of, acme.users["bob"])

    def forget(session: Any) -> None:
        del session[SESSION_KEY], session[LOGIN_KEY]

    cookie = await run_in_tenant("acme", later_cookie, cookie, forget)
    there = await peers.connect(acme, "bob", hub=other_process, session_key=cookie)
    await run_in_tenant("acme", log_out, acme.users["bob"], cookie)
    assert await closed(there) == [4401]


def test_id_of_a_login_is_its_own(acme: Tenant, globex: Tenant) -> None:
    """It is a new one for another login, user or tenant: who knows one can't end another."""
    found = set()
    for tenant in (acme, globex):
        with tenant.activated():
            for name in ("bob", "bob", "alice"):
                session = session_store(session_of(tenant.users[name]))
                assert session[LOGIN_KEY] not in str(session.session_key)
                found.add(session[LOGIN_KEY])
    assert len(found) == 6


def test_login_in_another_tenant_is_another_login(acme: Tenant, globex: Tenant, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with globex.activated():
        globex.users["bob"].password = acme.users["bob"].password
        globex.users["bob"].save()
    with acme.activated():
        session = session_store(session_of(acme.users["bob"]))
        first = session[LOGIN_KEY]
    request = HttpRequest()
    request.session = session
    with globex.activated():
        login(request, globex.users["bob"])
    assert request.session[LOGIN_KEY] != first


@pytest.mark.parametrize("session", [None, {}], ids=["no session", "a session that isn't logged in"])
def test_logins_of_something_else_are_left_alone(acme: Tenant, session: Any) -> None:
    """Packages of API tokens send Django's signals too, for requests that have no session or don't use it."""
    request = HttpRequest()
    if session is not None:
        request.session = session_store()
    with acme.activated():
        for given in (request, None):
            user_logged_in.send(User, request=given, user=acme.users["bob"])
            user_logged_out.send(User, request=given, user=acme.users["bob"])
    assert session is None or not request.session.modified


def test_anonymous_logout_tells_nobody(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("django_tenant_messaging.actions.access.emit_on_commit", told.append)
    request = HttpRequest()
    request.session, request.user = session_store(), AnonymousUser()
    with acme.activated():
        request.session["cart"] = 1
        request.session.save()
        assert USER_KEY not in request.session
        logout(request)
    assert told == []


def test_ended_logins_are_remembered_no_longer_than_a_handshake_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = AccessKeeper(Any)  # type: ignore[arg-type]
    for second, mark in enumerate(["a", "b", "a", "c"]):
        keeper._remember_ended(mark, float(second))
    assert list(keeper._ended) == ["b", "a", "c"]
    keeper._remember_ended("d", 1.5 + access.HANDSHAKE)
    assert list(keeper._ended) == ["a", "c", "d"]
