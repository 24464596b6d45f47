"""Two people of one tenant talk on a running demo, and somebody of the other tenant listens.

python -m tests.harness.probe PORT PASSWORD
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.harness.sites import Sites

SUBPROTOCOL = "tenant-messaging.v1"
SECONDS = 15


@dataclass(frozen=True)
class Site:
    host: str


ACME, GLOBEX = Site("acme.localhost"), Site("globex.localhost")


@dataclass
class Person:
    """Someone connected, with all frames but the answers kept in order."""

    socket: ClientConnection
    hello: dict[str, Any]
    frames: list[dict[str, Any]]
    unread: deque[dict[str, Any]] = field(default_factory=deque)

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send a frame and return its answer."""
        identifier = uuid.uuid4().hex
        await self.socket.send(json.dumps({"type": kind, "id": identifier, **fields}))
        while (frame := await self.read()).get("id") != identifier:
            self.frames.append(frame)
        assert frame["type"] == "ok", frame
        return frame

    async def message(self, content: str) -> dict[str, Any]:
        """Wait for the message with this content."""
        while True:
            for frame in self.frames:
                if frame["type"] == "message" and frame["message"]["content"] == content:
                    return frame
            self.frames.append(await self.read())

    async def read(self) -> dict[str, Any]:
        while not self.unread:
            found = json.loads(await self.socket.recv())
            self.unread.extend(found if isinstance(found, list) else [found])
        return self.unread.popleft()


async def join(stack: AsyncExitStack, sites: Sites, tenant: Site, username: str, password: str) -> Person:
    """Log in, connect, and ask for what is new from now on."""
    cookie = await asyncio.to_thread(sites.login, tenant, username, password)
    page, text = await asyncio.to_thread(sites.request, tenant, "GET", "/messages/", cookie=cookie)
    assert page.status == 200, text
    assert "general" in text
    socket = await stack.enter_async_context(
        connect(
            sites.websocket(tenant),
            host="127.0.0.1",
            port=sites.port,
            origin=sites.origin(tenant),  # type: ignore[arg-type] # a NewType of str
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # a NewType of str
            additional_headers={"Cookie": cookie},
        )
    )
    person = Person(socket, {}, [])
    person.hello = await person.read()
    assert person.hello["type"] == "hello"
    assert person.hello["user"]["username"] == username
    await person.ask("resume", positions={})
    return person


async def probe(port: int, password: str) -> None:
    """Say something in acme, and fail unless it arrives there and there alone."""
    sites = Sites(port)
    async with asyncio.timeout(SECONDS), AsyncExitStack() as stack:
        alice = await join(stack, sites, ACME, "alice", password)
        bob = await join(stack, sites, ACME, "bob", password)
        stranger = await join(stack, sites, GLOBEX, "bob", password)
        (room,) = (room["id"] for room in alice.hello["rooms"] if room["name"] == "general")
        content = f"probe {uuid.uuid4()}"
        sent = await alice.ask("send", room=room, client_id=str(uuid.uuid4()), content=content)
        assert (await alice.message(content))["message"]["is_own_message"] is True
        received = await bob.message(content)
        assert received["message"]["id"] == sent["message"]["id"]
        assert received["message"]["is_own_message"] is False
        history = await stranger.ask("history", room=room)
        assert content not in json.dumps([history, stranger.frames])


if __name__ == "__main__":
    asyncio.run(probe(int(sys.argv[1]), sys.argv[2]))
    print("Two people talked, and the other tenant saw nothing.")
