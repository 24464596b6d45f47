"""A load balancer without sticky sessions that is also a bad network: late, cut, half-open, or a byte at a time."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, cast

from tests.chaos.chance import chance

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT = 1.0
SLOW_BUFFER = 4096


class Proxy:
    """Forwards each connection to a worker chosen at random, to another if that one refuses."""

    def __init__(self, targets: Iterable[tuple[str, int]] = ()) -> None:
        self.targets = list(targets)
        self.delay = 0.0
        """Seconds that each chunk is late, in each direction, on all connections."""
        self.links: set[Link] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str = LOOPBACK, port: int = 0) -> None:
        """Listen, by default on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self).client, address, port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut all connections and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut(self.links)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, links: Iterable[Link]) -> int:
        """Reset connections on both sides; say how many."""
        chosen = list(links)
        for link in chosen:
            link.abort()
        return len(chosen)

    def sample(self, share: float) -> list[Link]:
        """Some of the open connections, at random."""
        return chance.sample(sorted(self.links, key=id), round(len(self.links) * share))

    async def dial(self, link: Link) -> None:
        """Find a worker for a connection that came in."""
        loop = asyncio.get_running_loop()
        for target in chance.sample(self.targets, len(self.targets)):
            connection = socket.socket()
            connection.setblocking(False)
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await loop.sock_connect(connection, target)
                await loop.create_connection(lambda: link.worker, sock=connection)
            except (OSError, TimeoutError):
                connection.close()
                continue
            return
        link.abort()

    def spawn(self, link: Link) -> None:
        """Dial in the background."""
        task = asyncio.create_task(self.dial(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Link:
    """A client's connection and the worker's that belongs to it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.is_slow = False
        """Whether the client is sent one byte a second."""
        self.is_frozen = False
        """Whether nothing passes any more, though neither side is told."""
        self.client = End(self)
        self.worker = End(self)

    @property
    def port(self) -> int:
        """That of the client's side, by which the client knows the connection too."""
        return self.client.peer_port

    def slow_down(self) -> None:
        """From now on send the client one byte a second, and take little more from the worker."""
        self.is_slow = True
        self.worker.shrink(SLOW_BUFFER)

    def other(self, end: End) -> End:
        """The opposite side."""
        return self.worker if end is self.client else self.client

    def carry(self, end: End, data: bytes) -> None:
        """Bring what came from one end to the other."""
        other = self.other(end)
        if self.is_frozen:
            return
        if self.is_slow and end is self.worker:
            other.drip(data)
        elif self.proxy.delay or other.waiting:
            other.write_later(data, self.proxy.delay)
        else:
            other.write(data)

    def lost(self, end: End) -> None:
        """One side is gone: the other is told, unless nothing passes."""
        if not self.is_frozen:
            self.other(end).close_later(self.proxy.delay)
        elif self.other(end).is_gone:
            self.proxy.links.discard(self)
        if end.is_gone and self.other(end).is_gone:
            self.proxy.links.discard(self)

    def abort(self) -> None:
        """Reset both sides."""
        self.proxy.links.discard(self)
        for end in (self.client, self.worker):
            end.abort()


class End(asyncio.Protocol):
    """One side of a link."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.waiting: deque[tuple[float, bytes | None]] = deque()
        self.is_gone = False
        self.peer_port = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drops = bytearray()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer_port = transport.get_extra_info("peername")[1]
        if self is self.link.client:
            self.link.proxy.links.add(self.link)
            self._transport.pause_reading()
            self.link.proxy.spawn(self.link)
        else:
            self.link.client.go()

    def go(self) -> None:
        """The other side is there."""
        if self.is_gone:
            self.link.other(self).abort()
        elif self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.link.carry(self, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.is_gone = True
        if self._timer is not None:
            self._timer.cancel()
        self.link.lost(self)

    def pause_writing(self) -> None:
        if reader := self._reader():
            reader.pause_reading()

    def resume_writing(self) -> None:
        if reader := self._reader():
            reader.resume_reading()

    def _reader(self) -> asyncio.Transport | None:
        """The connection from which this side is fed."""
        found = self.link.other(self)._transport
        return None if found is None or found.is_closing() else found

    # Writing to this side

    def write(self, data: bytes) -> None:
        """Write now."""
        if self._transport is not None:
            self._transport.write(data)

    def write_later(self, data: bytes | None, delay: float) -> None:
        """Write after a while, behind what waits already; `None` closes."""
        loop = asyncio.get_running_loop()
        due = max(loop.time() + delay, self.waiting[-1][0] if self.waiting else 0.0)
        self.waiting.append((due, data))
        if self._timer is None:
            self._timer = loop.call_at(due, self._write_due)

    def close_later(self, delay: float) -> None:
        """Close after what waits."""
        if delay or self.waiting:
            self.write_later(None, delay)
        elif self._transport is not None:
            self._transport.close()

    def drip(self, data: bytes) -> None:
        """Let it through by one byte a second, and read no more of it than there is."""
        self.pause_writing()
        self._drops += data
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._write_drop)

    def shrink(self, size: int) -> None:
        """Let the operating system take in few bytes ahead."""
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def abort(self) -> None:
        """Reset the connection: the other side learns that something went wrong."""
        if self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            if connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _write_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting and self.waiting[0][0] <= loop.time():
            data = self.waiting.popleft()[1]
            if data is not None:
                self.write(data)
            elif self._transport is not None:
                self._transport.close()
        self._timer = loop.call_at(self.waiting[0][0], self._write_due) if self.waiting else None

    def _write_drop(self) -> None:
        self.write(bytes(self._drops[:1]))
        del self._drops[:1]
        if self._drops:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._write_drop)
        else:
            self._timer = None
            self.resume_writing()
