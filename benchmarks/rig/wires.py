"""Many sockets in one loop of `epoll`, which writes down what comes and when, and looks at it later.

An event loop of the standard library spends some 10 us on each piece that arrives; here it is about 3.
"""

from __future__ import annotations

import base64
import copy
import os
import select
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.rig.dialects import Ask, Ready, events_in
from benchmarks.rig.frames import CLOSE, FINAL, PING, PONG, TEXT, FrameReader, client_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rig.dialects import Dialect, News

READ_SIZE = 1 << 16
PORTS_OF_AN_ADDRESS = 20_000
PINGS = (bytes([FINAL | PING, 4]), bytes([FINAL | PING, 0]))
"""How the pings of uvicorn's and of daphne's WebSocket libraries begin."""
KEEPALIVE_SECONDS = 49
"""Silence after which something is said: two heartbeats, as the client in JavaScript does."""
KEEPALIVE_INTERVAL = 1.0
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Client:
    """Someone who connects: to which port, as whom, and the rooms that they are in."""

    port: int
    host: str
    path: str
    cookie: str
    rooms: tuple[int, ...]

    def handshake(self) -> bytes:
        """The request that opens the WebSocket."""
        authority = f"{self.host}:{self.port}"
        lines = [
            f"GET {self.path} HTTP/1.1",
            f"Host: {authority}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Origin: http://{authority}",
            *([f"Cookie: {self.cookie}"] if self.cookie else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode()


class LostConnectionError(Exception):
    """A server refused or closed a connection that is needed."""


class Wire:
    """One connection and the record of it."""

    __slots__ = ("checked", "client", "number", "outgoing", "reader", "record", "said_at", "socket", "state", "watched")

    def __init__(self, number: int, client: Client) -> None:
        self.number = number
        self.client = client
        self.record: list[tuple[int, bytes]] = []
        """What came: nanoseconds and bytes."""
        self.reader = FrameReader()
        self.checked = FrameReader()
        """Reads the record, when that is checked."""
        self.watched = True
        """Whether what comes is read at once."""
        self.state = "shaking hands"
        self.outgoing = b""
        self.said_at = 0.0
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # One address has no more than some 28,000 ports to connect from.
        address = f"127.0.0.{1 + number // PORTS_OF_AN_ADDRESS}"
        if address != "127.0.0.1":
            self.socket.bind((address, 0))


class Wires:
    """All connections of a run."""

    def __init__(self, dialect: Dialect, on_news: Callable[[Wire, News], object]) -> None:
        self.dialect = dialect
        self.wires: list[Wire] = []
        self.last_heard = time.monotonic_ns()
        self._looked_at = 0.0
        self._on_news = on_news
        self._by_descriptor: dict[int, Wire] = {}
        self._epoll = select.epoll()

    # Connecting

    def connect(self, clients: list[Client], *, at_once: int) -> float:
        """Open a connection for each, so many at the same time. Returns the seconds until the last one was served."""
        began = time.monotonic()
        waiting = deque(clients)
        opened: list[Wire] = []
        opening: set[Wire] = set()
        deadline = began + PATIENCE
        while waiting or opening:
            while waiting and len(opening) < at_once:
                wire = self._open(waiting.popleft())
                opened.append(wire)
                opening.add(wire)
            self.poll(0.05)
            served = {wire for wire in opening if wire.state == "served"}
            if served:
                opening -= served
                deadline = time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise LostConnectionError(
                    f"{len(opening)} of {len(clients)} connections aren't served: {opening.pop().state}"
                )
        seconds = time.monotonic() - began
        for wire in opened:
            wire.checked = copy.deepcopy(wire.reader)
            wire.record.clear()
        return seconds

    def _open(self, client: Client) -> Wire:
        wire = Wire(len(self.wires), client)
        wire.socket.connect(("127.0.0.1", client.port))
        wire.socket.setblocking(False)
        self.wires.append(wire)
        self._by_descriptor[wire.socket.fileno()] = wire
        self._epoll.register(wire.socket, select.EPOLLIN)
        self.write(wire, client.handshake())
        return wire

    def close(self) -> None:
        """Close all, without a word."""
        for wire in self.wires:
            wire.socket.close()
        self.wires.clear()
        self._by_descriptor.clear()

    # Reading

    def poll(self, timeout: float) -> None:
        """Read what comes within so many seconds; returns after the first that came."""
        # Unlike epoll's own, this timeout isn't rounded up to a millisecond.
        self._keep_alive()
        if timeout > 0 and not select.select([self._epoll], [], [], timeout)[0]:
            return
        by_descriptor, clock = self._by_descriptor, time.monotonic_ns
        for descriptor, mask in self._epoll.poll(0):
            wire = by_descriptor[descriptor]
            if mask & select.EPOLLOUT:
                self._flush(wire)
                if not wire.outgoing:
                    self._epoll.modify(wire.socket, select.EPOLLIN)
            if not mask & ~select.EPOLLOUT:
                continue
            try:
                data = wire.socket.recv(READ_SIZE)
            except OSError:
                data = b""
            now = clock()
            if not data:
                self._lost(wire)
                continue
            wire.record.append((now, data))
            if wire.watched:
                self._read(wire, data)
            else:
                self._answer_ping(wire, data)
        self.last_heard = time.monotonic_ns()

    def _answer_ping(self, wire: Wire, data: bytes) -> None:
        """Answer a ping in what isn't read now: a server closes a connection whose pings aren't answered for long.

        In JSON the bytes of its head don't occur. One that is cut by the end of the piece is answered by the check.
        """
        for head in PINGS:
            place = data.find(head)
            if place >= 0:
                self.write(wire, client_frame(data[place + 2 : place + 2 + head[1]], PONG))

    def _read(self, wire: Wire, data: bytes) -> None:
        if wire.state == "shaking hands":
            data = self._shaken(wire)
        for opcode, payload in wire.reader.feed(data):
            if opcode == TEXT:
                for event in events_in(payload):
                    news = self.dialect.read(event)
                    if news is not None:
                        self._hear(wire, news)
            elif opcode == PING:
                self.write(wire, client_frame(payload, PONG))
            elif opcode == CLOSE:
                raise LostConnectionError(f"The server closed a connection with {int.from_bytes(payload[:2])}.")

    def _shaken(self, wire: Wire) -> bytes:
        """What follows the answer to the handshake, once that is whole."""
        so_far = b"".join(data for _, data in wire.record)
        head, end, rest = so_far.partition(b"\r\n\r\n")
        if not end:
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            raise LostConnectionError(f"The server answers the handshake with: {head.splitlines()[0].decode()}")
        wire.state = "served" if self.dialect.ready_when_open else "opened"
        wire.record = [(time.monotonic_ns(), rest)] if rest else []
        return rest

    def _hear(self, wire: Wire, news: News) -> None:
        if isinstance(news, Ready):
            wire.state = "served"
        elif isinstance(news, Ask):
            self.say(wire, news.payload)
        else:
            self._on_news(wire, news)

    def _lost(self, wire: Wire) -> None:
        self._epoll.unregister(wire.socket)
        raise LostConnectionError(f"The server dropped a connection that was {wire.state}.")

    def watch(self, numbers: set[int]) -> None:
        """Read at once what these get, and nobody else."""
        for wire in self.wires:
            if wire.number in numbers and not wire.watched:
                wire.reader = copy.deepcopy(wire.checked)
                for _, data in wire.record:
                    wire.reader.feed(data)
            wire.watched = wire.number in numbers

    # Writing

    def say(self, wire: Wire, *payloads: str) -> None:
        """Send texts."""
        wire.said_at = time.monotonic()
        self.write(wire, b"".join([client_frame(payload.encode()) for payload in payloads]))

    def write(self, wire: Wire, data: bytes) -> None:
        """Send bytes, what the socket doesn't take later."""
        if wire.outgoing:
            wire.outgoing += data
            return
        wire.outgoing = data
        self._flush(wire)
        if wire.outgoing:
            self._epoll.modify(wire.socket, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, wire: Wire) -> None:
        try:
            sent = wire.socket.send(wire.outgoing)
        except BlockingIOError:
            return
        except OSError as error:
            raise LostConnectionError(f"The server doesn't take what is sent: {error.strerror}.") from error
        wire.outgoing = wire.outgoing[sent:]

    def _keep_alive(self) -> None:
        """Say what keeps connections that were silent for long; looked at once in a while."""
        now = time.monotonic()
        if self.dialect.keepalive is None or now < self._looked_at + KEEPALIVE_INTERVAL:
            return
        self._looked_at = now
        for wire in self.wires:
            if wire.state == "served" and wire.said_at < now - KEEPALIVE_SECONDS:
                self.say(wire, self.dialect.keepalive)
