"""Sockets of a tenant that isn't ready: refused, told, closed, and back again; the other tenant chats on."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from django.test import override_settings
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from django_tenant_messaging import actions
from django_tenant_messaging.conf import messaging_settings
from django_tenant_messaging.exceptions import TenantNotReady
from django_tenant_messaging.realtime import publisher
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.tenancy.gate import verdicts
from django_tenant_messaging.types import Readiness, SchemaState
from tests.harness.breaking import OURS, STATUS_TABLE, locked_table, without_record, without_table
from tests.harness.peer import scope_for, session_of
from tests.harness.world import TEAM, World, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.peer import Peer, Peers
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

SOON = {"RECONCILE_INTERVAL": 0.1, "MIGRATION_CHECK_TTL": 0.2, "MIGRATION_RECHECK_INTERVAL": 0.1}
MESSAGES = "django_tenant_messaging_message"


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        pass
    verdicts.forget_all()
    with override_settings(TENANT_MESSAGING=SOON):
        yield world


async def chats(peers: Peers, tenant: Tenant, text: str) -> bool:
    """Whether carol's room in the other tenant works."""
    carol, alice = await peers.connect(tenant, "carol"), await peers.connect(tenant, "alice")
    reply = await carol.post(TEAM, text)
    await alice.until(lambda: text in alice.contents())
    return bool(reply["type"] == "ok")


@pytest.mark.parametrize("break_it", [without_table, without_record])
async def test_open_sockets_are_closed_and_the_other_tenants_are_not(
    break_it: Any, world: World, peers: Peers, database_url: str
) -> None:
    alice, foreign = await peers.connect(world.acme, "alice"), await peers.connect(world.globex, "alice")
    with break_it(database_url, "acme"):
        await alice.until(lambda: alice.close_code is not None)
        assert alice.close_code == 4503
        assert await chats(peers, world.globex, "as ever")
        await foreign.until(lambda: "as ever" in foreign.contents())
        assert foreign.close_code is None


async def test_what_is_closed_is_told_once_and_nothing_when_there_is_nothing(
    world: World, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    """Each comparison and each look at the rights that is under way learns of the tenant by itself."""
    with override_settings(TENANT_MESSAGING={"RECONCILE_INTERVAL": 60}):
        alice = await peers.connect(world.acme, "alice")
        foreign = await peers.connect(world.globex, "alice")
        hub, missing = hub_of_this_loop(), Readiness("acme", SchemaState.MISSING)
        hub.close_tenant("acme", missing)
        hub.close_tenant("acme", missing)
        await alice.until(lambda: alice.close_code is not None)
        await alice.close()
        assert hub.sockets_of("acme") == []
        hub.close_tenant("acme", missing)
        assert [record.getMessage() for record in caplog.records] == [f"[acme] 1 sockets are closed: {missing.reason}"]
        assert (await foreign.ask("ping"))["type"] == "ok"


async def test_what_keeps_the_gate_from_knowing_is_not_told_to_clients(
    world: World, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(schema_name: str, _kind: str) -> Any:
        raise OperationalError(f"connection to 10.1.2.3 refused, for {schema_name}")

    with override_settings(TENANT_MESSAGING={"RECONCILE_INTERVAL": 60}):
        alice = await peers.connect(world.acme, "alice")
        monkeypatch.setattr(sys.modules[verdicts.__class__.__module__], "inspect_schema", away)
        verdicts.forget("acme")
        reply = await alice.ask("history", room=TEAM)
    assert (reply["type"], reply["code"]) == ("error", "unavailable")
    assert reply["message"] == "The database did not answer; try again."
    assert "10.1.2.3" not in str(reply)
    assert "acme" not in str(reply)


async def test_a_repaired_tenant_is_served_again_without_a_restart(
    world: World, peers: Peers, database_url: str
) -> None:
    cookie = await run_in_tenant("acme", session_of, world.alice)
    alice = await peers.connect(world.acme, "alice")
    with without_table(database_url, "acme"):
        await alice.until(lambda: alice.close_code is not None)
        refused = await peers.open(scope_for(world.acme.host, cookie=cookie))
        assert (refused.close_code, refused.events) == (4503, [])
    async with asyncio.timeout(10):
        while (await peers.open(scope_for(world.acme.host, cookie=cookie))).close_code is not None:
            pass
    assert await chats(peers, world.globex, "undisturbed")


@override_settings(TENANT_MESSAGING={"RECONCILE_INTERVAL": 60.0})
async def test_a_missing_table_is_told_to_who_meets_it_however_fresh_the_verdict_is(
    world: World, peers: Peers, database_url: str
) -> None:
    alice = await peers.connect(world.acme, "alice")
    with without_table(database_url, "acme", MESSAGES):
        reply = await alice.post(TEAM, "lost?")
        assert (reply["type"], reply["code"], reply["details"]) == ("error", "tenant_not_ready", {})
        assert "acme" not in reply["message"]
        assert MESSAGES not in reply["message"]


async def test_work_in_a_tenant_that_is_not_ready_is_refused_before_it_begins(world: World, database_url: str) -> None:
    done: list[str] = []
    with without_record(database_url, "acme"):
        with pytest.raises(TenantNotReady) as refused:
            await run_in_tenant("acme", done.append, "acme")
        await run_in_tenant("globex", done.append, "globex")
    assert refused.value.readiness.missing_migrations == OURS
    assert done == ["globex"]


async def test_a_tenant_whose_tables_are_locked_keeps_no_other_waiting(
    world: World, peers: Peers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await peers.connect(world.acme, "alice")
    foreign = await peers.connect(world.globex, "alice")
    # No hint of what is written reaches the hub: only its comparison with the database finds it.
    monkeypatch.setattr(publisher, "running_hub", lambda: None)
    monkeypatch.setattr(publisher, "get_channel_layer", lambda _alias: None)
    with locked_table(database_url, "acme", "django_tenant_messaging_roomcounter"):
        for number in range(2 * messaging_settings.DATABASE_THREADS):
            carol = world.globex.users["carol"]
            await run_in_tenant("globex", actions.send_message, carol, room_id=TEAM, content=f"number {number}")
            await foreign.until(partial(holds, foreign, f"number {number}"))


def holds(peer: Peer, text: str) -> bool:
    """Whether a message has come."""
    return text in peer.contents()


async def until_refused(open_socket: Callable[[], connect]) -> InvalidStatus:
    """Connect until a handshake is answered by an HTTP status."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with open_socket() as socket:
                    await socket.wait_closed()
            except InvalidStatus as refused:
                return refused


async def until_welcome(open_socket: Callable[[], connect]) -> None:
    """Connect until the server says hello."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with open_socket() as socket:
                    assert "hello" in str(await socket.recv())
                    return
            except InvalidStatus:
                await asyncio.sleep(0.1)


async def test_a_server_that_can_answers_503(world: World, server: Server, database_url: str) -> None:
    cookies = {
        tenant.schema_name: await asyncio.to_thread(server.login, tenant, "alice")
        for tenant in (world.acme, world.globex)
    }

    def open_socket(tenant: Tenant) -> connect:
        headers = {"Origin": server.origin(tenant), "Cookie": cookies[tenant.schema_name]}
        url = server.websocket(tenant)
        return connect(url, host="127.0.0.1", port=server.port, additional_headers=headers, proxy=None)

    with ExitStack() as stack:
        async with open_socket(world.acme) as before:
            stack.enter_context(without_table(database_url, "acme", STATUS_TABLE))
            refused = await until_refused(lambda: open_socket(world.acme))
            response = refused.response
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "30"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert b"acme" not in response.body
            async with asyncio.timeout(10):
                await before.wait_closed()
            assert before.close_code == 4503
            async with open_socket(world.globex) as foreign:
                assert "hello" in str(await foreign.recv())
    await until_welcome(lambda: open_socket(world.acme))
