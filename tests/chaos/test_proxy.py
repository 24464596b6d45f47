"""The proxy is a network in all its moods, and a good one unless told otherwise."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from tests.chaos.chance import until
from tests.chaos.proxy import LOOPBACK, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE = 10.0


class Wire(asyncio.Protocol):
    """One end of a connection; an echoing one says back what it hears, after an exclamation mark."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.heard = bytearray()
        self.is_lost = False
        self.error: Exception | None = None
        self.is_held_up = False
        self.transport: asyncio.Transport
        self._echoes = echoes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._echoes:
            self.transport.write(b"!")

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self._echoes:
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost, self.error = True, exc

    def pause_writing(self) -> None:
        self.is_held_up = True

    def resume_writing(self) -> None:
        self.is_held_up = False


class Network:
    """A proxy, its workers, and the clients of a test."""

    def __init__(self) -> None:
        self.proxy = Proxy()
        self.clients: list[Wire] = []
        self._servers: list[asyncio.Server] = []

    async def add_worker(self) -> list[Wire]:
        """Start a worker; its connections are added to the list that is returned."""
        wires: list[Wire] = []

        def accept() -> Wire:
            wires.append(Wire(echoes=True))
            return wires[-1]

        server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        self.proxy.targets.append(server.sockets[0].getsockname())
        return wires

    async def dial(self) -> Wire:
        """Connect a client."""
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self.proxy.port)
        self.clients.append(wire)
        assert await until(lambda: bool(wire.heard or wire.is_lost), PATIENCE)
        return wire

    async def stop(self) -> None:
        await self.proxy.stop()
        for client in self.clients:
            client.transport.abort()
        for server in self._servers:
            server.close()
            await server.wait_closed()
        await asyncio.sleep(0)


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    network = Network()
    await network.proxy.start()
    yield network
    await network.stop()


async def test_it_brings_everything_there_and_back_unchanged(network: Network) -> None:
    worker = await network.add_worker()
    client = await network.dial()
    sent = bytes(range(256)) * 8_000
    client.transport.write(sent)
    assert await until(lambda: len(client.heard) == 1 + len(sent), PATIENCE)
    assert client.heard == b"!" + sent
    client.transport.close()
    assert await until(lambda: worker[0].is_lost, PATIENCE)
    assert worker[0].error is None
    assert await until(lambda: not network.proxy.links, PATIENCE)


async def test_it_goes_to_another_worker_when_one_refuses(network: Network) -> None:
    await network.add_worker()
    network.proxy.targets.append((LOOPBACK, 9))
    for _ in range(8):
        assert not (await network.dial()).is_lost
    network.proxy.targets.pop(0)
    assert (await network.dial()).is_lost


async def test_it_chooses_among_the_workers(network: Network) -> None:
    one, other = await network.add_worker(), await network.add_worker()
    for _ in range(40):
        await network.dial()
    assert one
    assert other


async def test_what_is_late_keeps_its_order(network: Network) -> None:
    await network.add_worker()
    client = await network.dial()
    network.proxy.delay = 0.2
    for number in range(20):
        client.transport.write(bytes([number]))
        await asyncio.sleep(0.005)
    # There and back takes twice the delay.
    assert client.heard == b"!"
    assert await until(lambda: len(client.heard) > 1, PATIENCE)
    network.proxy.delay = 0.0
    client.transport.write(b"end")
    assert await until(lambda: client.heard == b"!" + bytes(range(20)) + b"end", PATIENCE)


async def test_a_cut_is_seen_by_both_sides(network: Network) -> None:
    worker = await network.add_worker()
    client = await network.dial()
    assert network.proxy.cut(network.proxy.sample(1.0)) == 1
    assert await until(lambda: client.is_lost and worker[0].is_lost, PATIENCE)
    assert isinstance(client.error, ConnectionResetError)
    assert isinstance(worker[0].error, ConnectionResetError)
    assert not network.proxy.links


async def test_nobody_notices_that_a_connection_is_half_open(network: Network) -> None:
    worker = await network.add_worker()
    client = await network.dial()
    (link,) = network.proxy.links
    link.is_frozen = True
    client.transport.write(b"lost")
    client.transport.close()
    assert await until(lambda: link.client.is_gone, PATIENCE)
    await asyncio.sleep(0.1)
    assert not worker[0].is_lost
    assert worker[0].heard == b""
    assert network.proxy.links == {link}


async def test_a_slow_client_gets_a_byte_a_second_and_the_worker_has_to_wait(network: Network) -> None:
    worker = await network.add_worker()
    client = await network.dial()
    (link,) = network.proxy.links
    link.slow_down()
    for _ in range(400):
        worker[0].transport.write(b"x" * 65536)
    assert await until(lambda: len(client.heard) > 1, PATIENCE)
    assert worker[0].is_held_up
    assert client.heard == b"!x"
