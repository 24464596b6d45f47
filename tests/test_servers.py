"""Real server processes on one Redis: what one of them is told reaches the clients of the other."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from tests.harness.wire import Wire

APART = {"RECONCILE_INTERVAL": 0.5, "ACCESS_RECHECK_INTERVAL": 3600}
"""Of processes that hear nothing of each other: whatever one learns it learns in each interval."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from example.services import LocalRedis
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant


def logged_out(server: Server, tenant: Tenant, cookie: str) -> None:
    server.logout(tenant, cookie)


def deactivated(_server: Server, tenant: Tenant, _cookie: str) -> None:
    user = tenant.users["bob"]
    user.is_active = False
    user.save()


def given_another_password(_server: Server, tenant: Tenant, _cookie: str) -> None:
    user = tenant.users["bob"]
    user.set_password("another")
    user.save()


def deleted(_server: Server, tenant: Tenant, _cookie: str) -> None:
    tenant.users["bob"].delete()


REVOCATIONS = [logged_out, deactivated, given_another_password, deleted]


@pytest.fixture
def servers(
    acme: Tenant, globex: Tenant, people: Any, redis_server: LocalRedis, start_server: Callable[..., Server]
) -> tuple[Server, Server]:
    """Two processes on a Redis of the test's own; the same room in both tenants."""
    for tenant in (acme, globex):
        with tenant.activated():
            first, *others = (tenant.users[name] for name in people)
            actions.create_room(first, name="team", members=others)
    return start_server(REDIS_URL=redis_server.url()), start_server(REDIS_URL=redis_server.url())


def test_members_on_two_servers_see_each_other_and_no_other_tenant(
    servers: tuple[Server, Server], acme: Tenant, globex: Tenant
) -> None:
    with (
        Wire(servers[0], acme, "alice") as alice,
        Wire(servers[1], acme, "bob") as bob,
        Wire(servers[1], globex, "bob") as stranger,
    ):
        for number in range(20):
            assert (alice if number % 2 else bob).post(f"number {number}")["type"] == "ok"
        alice.await_messages(*(f"number {number}" for number in range(20)))
        bob.await_messages(*(f"number {number}" for number in range(20)))
        stranger.await_messages()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_of_a_stopped_server_resumes_on_the_other(
    number: signal.Signals, servers: tuple[Server, Server], acme: Tenant
) -> None:
    with ExitStack() as stack:
        alice = stack.enter_context(Wire(servers[0], acme, "alice"))
        bob = stack.enter_context(Wire(servers[1], acme, "bob"))
        alice.post("one")
        bob.await_messages("one")
        servers[1].stop(number)
        assert bob.closed_with() in {1012, 1006, 1001}
        alice.post("two")
        again = stack.enter_context(Wire(servers[0], acme, "bob", positions=bob.position))
        alice.post("three")
        again.await_messages("two", "three")


def test_nothing_is_lost_or_refused_while_redis_is_away(
    servers: tuple[Server, Server], acme: Tenant, redis_server: LocalRedis
) -> None:
    with Wire(servers[0], acme, "alice") as alice, Wire(servers[1], acme, "bob") as bob:
        alice.post("before")
        bob.await_messages("before")
        redis_server.stop(signal.SIGKILL)
        assert alice.post("during")["type"] == "ok"
        bob.await_messages("before", "during")
        with Wire(servers[1], acme, "carol") as carol:
            alice.post("to a newcomer")
            carol.await_messages("to a newcomer")
        redis_server.start()
        alice.post("after")
        bob.await_messages("before", "during", "to a newcomer", "after")


@pytest.fixture
def apart(acme: Tenant, globex: Tenant, people: Any, start_server: Callable[..., Server]) -> tuple[Server, Server]:
    """Two processes whose layers are in memory, each its own; the same room in both tenants."""
    for tenant in (acme, globex):
        with tenant.activated():
            first, *others = (tenant.users[name] for name in people)
            actions.create_room(first, name="team", members=others)
    env = {"REDIS_URL": "", "TENANT_MESSAGING": json.dumps(APART)}
    return start_server(**env), start_server(**env)


@pytest.mark.parametrize("revoke", REVOCATIONS)
def test_who_lost_the_right_in_a_process_that_is_not_heard(
    apart: tuple[Server, Server], acme: Tenant, globex: Tenant, revoke: Callable[[Server, Tenant, str], None]
) -> None:
    """Another server, or a shell as this one: a layer in memory doesn't say whether there are any."""
    cookie = apart[0].login(acme, "bob")
    with (
        Wire(apart[1], acme, "bob", cookie=cookie) as bob,
        Wire(apart[1], acme, "alice") as alice,
        Wire(apart[1], globex, "bob") as namesake,
    ):
        with acme.activated():
            revoke(apart[0], acme, cookie)
        assert bob.closed_with() == 4401
        for other in (alice, namesake):
            assert other.ask("ping")["type"] == "ok"


def test_memberships_and_messages_of_a_process_that_is_not_heard(
    apart: tuple[Server, Server], acme: Tenant, globex: Tenant
) -> None:
    with (
        Wire(apart[0], acme, "alice") as alice,
        Wire(apart[1], acme, "bob") as bob,
        Wire(apart[1], globex, "bob") as namesake,
    ):
        alice.post("before")
        bob.await_messages("before")
        with acme.activated():
            other = actions.create_room(acme.users["carol"], name="other", members=[acme.users["bob"]])
        assert bob.await_frame("room_added")["room"]["id"] == other.pk
        with acme.activated():
            actions.remove_member(acme.users["alice"], room_id=bob.room["id"], user=acme.users["bob"])
        assert bob.await_frame("room_removed")["room"] == bob.room["id"]
        alice.post("after")
        bob.ask("ping")
        bob.await_messages("before")
        namesake.await_messages()
