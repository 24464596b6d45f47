"""A client of the WebSocket in the test's own process and event loop, without a server between."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import login
from django.http import HttpRequest

from django_tenant_messaging.realtime import messaging_asgi
from django_tenant_messaging.realtime.asgi import PATH
from django_tenant_messaging.realtime.hub import Hub
from django_tenant_messaging.tenancy import run_in_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django.contrib.auth.models import User

    from tests.harness.tenants import Tenant

PATIENCE = 10.0


def session_store(session_key: str | None = None) -> Any:
    """A session of the engine that the settings name."""
    return import_module(settings.SESSION_ENGINE).SessionStore(session_key)


def session_of(user: User, *, backend: str | None = None) -> str:
    """Log a user in, in the current tenant, and return the session's key."""
    request = HttpRequest()
    request.session = session_store()
    login(request, user, backend=backend)
    request.session.save()
    return str(request.session.session_key)


class Peer:
    """One connection. Events arrive in `events`, replies go to whoever sent the frame."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.events: list[dict[str, Any]] = []
        self.unasked: list[dict[str, Any]] = []
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.session_key = ""
        self.reads = asyncio.Event()
        self.reads.set()
        self.delay = 0.0
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._changed = asyncio.Condition()
        self._ids = count(1)
        self.task: asyncio.Task[None] | None = None

    async def open(self, hub: Hub | None = None) -> Peer:
        """Connect, and return after the server's hello or its close."""

        async def nothing_else(*_args: Any) -> None:
            raise AssertionError("only the socket is served here")

        async def serve() -> None:
            await messaging_asgi(nothing_else, hub=hub)(self.scope, self._to_app.get, self._from_app)

        self._to_app.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(serve())
        await self.until(lambda: bool(self.events) or self.close_code is not None)
        return self

    @property
    def hello(self) -> dict[str, Any]:
        """The first frame."""
        return self.events[0]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type, in the order in which they came."""
        return [event for event in self.events if event["type"] == kind]

    def contents(self, room_id: int | None = None) -> list[str]:
        """The texts of the messages that came."""
        return [event["message"]["content"] for event in self.of_type("message") if room_id in {None, event["room"]}]

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send a frame and return its reply."""
        frame_id = str(next(self._ids))
        reply = self._replies[frame_id] = asyncio.get_running_loop().create_future()
        self.send_text(json.dumps({"type": kind, "id": frame_id, **fields}))
        return await asyncio.wait_for(reply, PATIENCE)

    async def post(self, room_id: int, content: str, **fields: Any) -> dict[str, Any]:
        """Send a message and return the reply."""
        return await self.ask("send", **{"room": room_id, "client_id": str(uuid4()), "content": content, **fields})

    def send_text(self, text: str) -> None:
        """Send any text as a frame."""
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    def send_event(self, **event: Any) -> None:
        """Give the application any event."""
        self._to_app.put_nowait(event)

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something is true of what came."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(is_true)

    async def close(self) -> None:
        """Disconnect, and return when the application has finished with the connection."""
        self.reads.set()
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        if self.task is not None:
            await asyncio.wait_for(self.task, PATIENCE)

    async def _from_app(self, event: dict[str, Any]) -> None:
        await self.reads.wait()
        if self.delay:
            await asyncio.sleep(self.delay)
        async with self._changed:
            match event["type"]:
                case "websocket.accept":
                    self.subprotocol = event["subprotocol"]
                case "websocket.close":
                    self.close_code = event["code"]
                    self._to_app.put_nowait({"type": "websocket.disconnect", "code": event["code"]})
                case _:
                    found = json.loads(event["text"])
                    for frame in found if isinstance(found, list) else [found]:
                        self._sort(frame)
            self._changed.notify_all()

    def _sort(self, frame: dict[str, Any]) -> None:
        if frame["type"] not in {"ok", "error"}:
            self.events.append(frame)
        elif frame["id"] in self._replies:
            self._replies.pop(frame["id"]).set_result(frame)
        else:
            self.unasked.append(frame)


def scope_for(host: str, *, cookie: str = "", origin: str | None = "", **fields: Any) -> dict[str, Any]:
    """The scope of a handshake; the origin is by default that of the host's own pages."""
    headers = [(b"host", host.encode())]
    if cookie:
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode()))
    if origin is not None:
        headers.append((b"origin", (origin or f"http://{host}").encode()))
    return {
        "type": "websocket",
        "path": PATH,
        "query_string": b"",
        "scheme": "ws",
        "headers": headers,
        "subprotocols": ["tenant-messaging.v1"],
        **fields,
    }


class Peers:
    """Connects users, and disconnects them at the end of the test."""

    def __init__(self) -> None:
        self.opened: list[Peer] = []

    async def connect(
        self,
        tenant: Tenant,
        username: str,
        *,
        resume: Any = None,
        hub: Hub | None = None,
        session_key: str | None = None,
    ) -> Peer:
        """Connect a user, by default in a session of its own, and start the stream of events."""
        if session_key is None:
            session_key = await run_in_tenant(tenant.schema_name, session_of, tenant.users[username])
        peer = await self.open(scope_for(tenant.host, cookie=session_key), hub=hub)
        peer.session_key = session_key
        assert peer.close_code is None, peer.close_code
        if resume is not False:
            reply = await peer.ask("resume", positions=resume or {})
            assert reply["type"] == "ok", reply
        return peer

    async def open(self, scope: dict[str, Any], *, hub: Hub | None = None) -> Peer:
        """Connect with any scope."""
        peer = Peer(scope)
        self.opened.append(peer)
        return await peer.open(hub)


@asynccontextmanager
async def connecting() -> AsyncIterator[Peers]:
    """Connect users for as long as the body runs."""
    peers = Peers()
    try:
        yield peers
    finally:
        for peer in peers.opened:
            await peer.close()


@asynccontextmanager
async def another_hub(peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a second process, as far as the first one can tell; at its end all peers are disconnected."""
    hub = Hub()
    hub.start()
    yield hub
    for peer in peers.opened:
        await peer.close()
    await hub.stop()
