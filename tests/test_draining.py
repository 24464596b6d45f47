"""A stopping server sends its clients away in good order."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging.models import Message, RoomCounter
from django_tenant_messaging.realtime.draining import drain
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub
from tests.harness.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django_tenant_messaging.realtime.hub import Hub
    from tests.harness.peer import Peers
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

ROOM = 1


pytestmark = pytest.mark.usefixtures("team")


@pytest.fixture
async def stopping(peers: Peers) -> AsyncIterator[Hub]:
    async with another_hub(peers) as hub:
        yield hub


async def test_each_client_is_answered_before_it_is_sent_away(acme: Tenant, peers: Peers, stopping: Hub) -> None:
    clients = [await peers.connect(acme, name, hub=stopping) for name in ("alice", "bob", "carol")]
    posts = [asyncio.create_task(client.post(ROOM, f"last words {n}")) for client in clients for n in range(5)]
    # Whatever was read by then is on its way.
    await clients[0].until(lambda: bool(clients[0].contents()))
    draining = asyncio.create_task(drain(stopping))
    replies = await asyncio.gather(*posts)
    await draining
    assert {reply["type"] for reply in replies} == {"ok"}
    for client in clients:
        await client.until(lambda client=client: client.close_code is not None)  # type: ignore[misc]
        assert client.close_code == 1012
    assert await run_in_tenant("acme", Message.objects.count) == 15


async def test_nobody_is_let_in_any_more(acme: Tenant, peers: Peers, stopping: Hub) -> None:
    client = await peers.connect(acme, "alice", hub=stopping)
    await drain(stopping)
    late = await peers.open(client.scope, hub=stopping)
    assert late.close_code == 1012
    elsewhere = await peers.connect(acme, "alice")
    assert (await elsewhere.post(ROOM, "here I am"))["type"] == "ok"


async def test_room_that_is_locked_holds_the_drain_up_for_a_moment_only(
    acme: Tenant, peers: Peers, stopping: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import transaction

    monkeypatch.setattr("django_tenant_messaging.realtime.draining.PATIENCE", 0.1)
    client = await peers.connect(acme, "alice", hub=stopping)
    drained = asyncio.Event()
    loop = asyncio.get_running_loop()

    def keep_locked() -> None:
        with transaction.atomic():
            RoomCounter.objects.select_for_update().get(room_id=ROOM)
            loop.call_soon_threadsafe(
                client.send_text,
                f'{{"type":"send","id":"x","room":{ROOM},"client_id":'
                '"7a1d1c6e-0c0d-4b7e-9f57-6cf5ad0e3c55","content":"stuck"}',
            )
            asyncio.run_coroutine_threadsafe(drained.wait(), loop).result(10)

    locked = asyncio.create_task(run_in_tenant("acme", keep_locked))
    while stopping.sends.is_idle:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await drain(stopping)
    drained.set()
    await locked
    assert client.close_code == 1012


def test_sigterm_drains_and_then_stops_the_server(
    acme: Tenant, people: Any, start_server: Callable[..., Server]
) -> None:
    server = start_server(DJANGO_SETTINGS_MODULE="tests.settings_logging")
    with Wire(server, acme, "alice") as alice, Wire(server, acme, "bob") as bob:
        alice.post("hello")
        bob.await_messages("hello")
        server.stop(signal.SIGTERM)
        assert (alice.closed_with(), bob.closed_with()) == (1012, 1012)
    assert "2 sockets are sent to other processes" in server.log.read_text()
    server.start()
    with Wire(server, acme, "bob", positions=bob.position) as again:
        again.post("back again")
        again.await_messages("back again")
