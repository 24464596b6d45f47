"""Real server processes on one Redis: what one of them is told reaches the clients of the other."""

from __future__ import annotations

import json
import signal
import socket
from collections import deque
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from django_tenant_messaging import actions

if TYPE_CHECKING:
    from collections.abc import Callable

    from example.services import LocalRedis
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

PATIENCE = 15.0


class Wire:
    """A client on a real connection."""

    def __init__(self, server: Server, tenant: Tenant, username: str, positions: dict[str, Any] | None = None) -> None:
        self.messages: list[str] = []
        self._ids = count(1)
        self._stack = ExitStack()
        opened = connect(
            server.websocket(tenant),
            sock=socket.create_connection(("127.0.0.1", server.port)),
            origin=Origin(server.origin(tenant)),
            subprotocols=[Subprotocol("tenant-messaging.v1")],
            additional_headers={"Cookie": server.login(tenant, username)},
        )
        self._socket = self._stack.enter_context(opened)
        self._read: deque[dict[str, Any]] = deque()
        self.hello = self._receive()
        self.room = self.hello["rooms"][0]
        self.position = {"epoch": self.room["epoch"], "seq": self.room["seq"]}
        if positions:
            self.position["seq"] = positions["seq"]
        self.ask("resume", positions={str(self.room["id"]): self.position})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        frame_id = str(next(self._ids))
        self._socket.send(json.dumps({"type": kind, "id": frame_id, **fields}))
        while (frame := self._receive()).get("id") != frame_id:
            pass
        return frame

    def post(self, content: str, client_id: str | None = None) -> dict[str, Any]:
        return self.ask("send", room=self.room["id"], client_id=client_id or str(uuid4()), content=content)

    def await_messages(self, *contents: str) -> None:
        while len(self.messages) < len(contents):
            self._receive()
        self.ask("ping")
        assert self.messages == list(contents)

    def closed_with(self) -> int:
        try:
            while True:
                self._receive()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006

    def _receive(self) -> dict[str, Any]:
        while not self._read:
            found = json.loads(self._socket.recv(PATIENCE))
            self._read.extend(found if isinstance(found, list) else [found])
        frame = self._read.popleft()
        if frame["type"] == "message":
            self.messages.append(frame["message"]["content"])
        if "after" in frame:
            assert frame["after"] == self.position["seq"]
            self.position["seq"] = frame["seq"]
        return frame


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
