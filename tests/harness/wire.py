"""A client on a real connection to a server."""

from __future__ import annotations

import json
import socket
from collections import deque
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

if TYPE_CHECKING:
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

PATIENCE = 15.0


class Wire:
    """A client on a real connection."""

    def __init__(
        self,
        server: Server,
        tenant: Tenant,
        username: str,
        positions: dict[str, Any] | None = None,
        *,
        cookie: str | None = None,
    ) -> None:
        self.messages: list[str] = []
        self._ids = count(1)
        self._stack = ExitStack()
        opened = connect(
            server.websocket(tenant),
            sock=socket.create_connection(("127.0.0.1", server.port)),
            origin=Origin(server.origin(tenant)),
            subprotocols=[Subprotocol("tenant-messaging.v1")],
            additional_headers={"Cookie": cookie or server.login(tenant, username)},
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

    def await_frame(self, kind: str) -> dict[str, Any]:
        while (frame := self._receive())["type"] != kind:
            pass
        return frame

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
