"""The ASGI applications: the socket's own, and the wrapper that a host puts around Django."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..exceptions import FrameError, MessagingError, TenantNotReady, Unavailable
from ..payloads import PROTOCOL, HelloFrame, RoomPayload, UserPayload, parse_frame, user_payloads
from ..selectors import user_ref
from ..signals import tenant_refused
from ..tenancy import close_executor, public_schema, run_in_tenant
from .close_codes import CloseCode
from .commands import Commands
from .handshake import choose_protocol, find_tenant, identify
from .hub import hub_of_this_loop, running_hub
from .socket import Socket

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .handshake import Standing
    from .hub import Hub
    from .outbox import AsgiSend

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

PATH = "/ws/messages/"
DENIAL = "websocket.http.response"
"""The ASGI extension by which a handshake is answered like an HTTP request."""


def messaging_asgi(django_application: Application, *, hub: Hub | None = None) -> Application:
    """Put the WebSocket beside a Django application.

    In a host's ``asgi.py``::

        application = messaging_asgi(get_asgi_application())

    ``/ws/messages/`` is served here, everything else by Django. It also answers the server's lifespan, so that a
    stopping server tells its clients to come back and stores who is gone. A host with WebSockets of its own routes to
    :class:`MessagingWebSocket` instead. ``hub`` is for tests that play several processes.
    """
    websocket = MessagingWebSocket(hub)

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: AsgiSend) -> None:
        match scope["type"]:
            case "websocket" if scope["path"] == PATH:
                await websocket(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": int(CloseCode.UNKNOWN_TENANT)})
            case "lifespan":
                await _lifespan(receive, send)
            case _:
                await django_application(scope, receive, send)

    return application


class MessagingWebSocket:
    """The ASGI application of the socket, for a host's own routing. It needs no middleware around it."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._hub = hub

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: AsgiSend) -> None:
        """Serve one connection until either side closes it."""
        await receive()
        protocol = choose_protocol(scope.get("subprotocols", ()))
        if isinstance(protocol, CloseCode):
            # A page sees the code only if one of the protocols that it offered is accepted first.
            await _refuse(send, protocol, scope, scope["subprotocols"][0])
            return
        admitted = await self._admit(scope)
        if isinstance(admitted, CloseCode):
            await _refuse(send, admitted, scope, protocol)
            return
        schema_name, standing = admitted
        await send({"type": "websocket.accept", "subprotocol": protocol})
        hub = self._hub or hub_of_this_loop()
        socket = partial(Socket, schema_name=schema_name, standing=standing, scope=scope, send=send)
        connection = _Connection(hub, socket)
        await connection.serve(receive)

    async def _admit(self, scope: MutableMapping[str, Any]) -> tuple[str, Standing] | CloseCode:
        """Return the tenant's schema and who connects, or why they may not."""
        try:
            tenant = await run_in_tenant(public_schema(), find_tenant, scope)
            if isinstance(tenant, CloseCode):
                return tenant
            found = await run_in_tenant(tenant.schema_name, identify, scope, tenant)
        except TenantNotReady as error:
            tenant_refused.send_robust(None, readiness=error.readiness, face="websocket")
            return CloseCode.UNAVAILABLE
        except Unavailable:
            return CloseCode.UNAVAILABLE
        except Exception:
            logger.exception("A handshake failed.")
            return CloseCode.UNAVAILABLE
        return found if isinstance(found, CloseCode) else (tenant.schema_name, found)


class _Connection:
    """Serves one client, in one task: the one in which the server called the application."""

    def __init__(self, hub: Hub, socket: Callable[..., Socket]) -> None:
        self._hub = hub
        self._socket = socket(catch_up=hub.catch_up, on_end=self._end_reading)
        self._commands = Commands(self._socket, hub.sends)
        self._task = asyncio.current_task()
        self._is_receiving = False
        self._is_ended = False

    async def serve(self, receive: Receive) -> None:
        """Greet the client and carry out its frames, until either side closes the connection."""
        try:
            if await self._welcome():
                await self._read(receive)
            else:
                self._socket.close(CloseCode.UNAVAILABLE)
        except asyncio.CancelledError:
            if not self._is_ended or self._task is None or self._task.uncancel():
                raise
        finally:
            self._hub.leave(self._socket)

    def _end_reading(self) -> None:
        """Nothing can be written any more: don't wait for what the client may still say."""
        self._is_ended = True
        if self._is_receiving and self._task is not None:
            self._is_receiving = False
            self._task.cancel()

    async def _welcome(self) -> bool:
        socket = self._socket
        try:
            online = await self._hub.join(socket)
        except MessagingError as error:
            logger.warning("[%s] A socket couldn't be served: %s", socket.schema_name, error)
            return False
        except Exception:
            logger.exception("[%s] A socket couldn't be served.", socket.schema_name)
            return False
        socket.tell(
            HelloFrame(
                protocol=PROTOCOL,
                user=UserPayload.model_validate(user_ref(socket.user)),
                heartbeat_interval=messaging_settings.HEARTBEAT_INTERVAL,
                max_content_length=messaging_settings.MAX_CONTENT_LENGTH,
                rooms=[RoomPayload.of(seat.room) for seat in socket.seats.values()],
                online=user_payloads(online),
            )
        )
        self._hub.welcomed(socket)
        return True

    async def _read(self, receive: Receive) -> None:
        socket = self._socket
        bad_frames = 0
        while not self._is_ended:
            self._is_receiving = True
            event = await receive()
            self._is_receiving = False
            if event["type"] == "websocket.disconnect":
                return
            if socket.is_closing:
                continue
            socket.last_heard = time.monotonic()
            text = event.get("text")
            if text is None or _is_too_large(text):
                socket.close(CloseCode.FRAME_TOO_LARGE)
                continue
            frame_id, frame = parse_frame(text)
            if not isinstance(frame, MessagingError):
                await self._commands.carry_out(frame)
                continue
            await self._commands.refuse(frame_id, frame)
            bad_frames += isinstance(frame, FrameError)
            if bad_frames >= messaging_settings.MAX_BAD_FRAMES:
                socket.close(CloseCode.BAD_FRAMES)


def _is_too_large(text: str) -> bool:
    limit = messaging_settings.MAX_FRAME_BYTES
    return len(text) > limit or (not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > limit)


async def _refuse(send: AsgiSend, code: CloseCode, scope: MutableMapping[str, Any], protocol: str | None) -> None:
    """Refuse a handshake: with a 503 if that says it and the server can, else by a close code, which only an accepted
    socket can carry to a page.
    """
    if code is CloseCode.UNAVAILABLE and DENIAL in (scope.get("extensions") or {}):
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"retry-after", str(TenantNotReady.retry_after).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": f"{DENIAL}.start", "status": 503, "headers": headers})
        await send({"type": f"{DENIAL}.body", "body": b"The service is being prepared; try again later.\n"})
        return
    await send({"type": "websocket.accept", "subprotocol": protocol})
    await send({"type": "websocket.close", "code": int(code)})


async def _lifespan(receive: Receive, send: AsgiSend) -> None:
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            hub = running_hub()
            try:
                if hub is not None:
                    await hub.stop()
            except Exception:
                logger.exception("The hub couldn't be stopped in order.")
            await asyncio.to_thread(close_executor)
            await send({"type": "lifespan.shutdown.complete"})
            return
