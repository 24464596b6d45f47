"""The ASGI applications: the socket's own, and the wrapper that a host puts around Django."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..conf import messaging_settings, require_valid_settings
from ..exceptions import MessagingError, RateLimited, TenantNotReady
from ..limits import Limit, TokenBucket
from ..payloads import PROTOCOL, HelloFrame, RoomPayload, UserPayload, parse_frame, user_payloads
from ..selectors import user_ref
from ..tenancy import close_executor
from .allowance import FREE_BYTES, LONGEST_PAUSE, SHORTEST_PAUSE, Allowance
from .close_codes import CloseCode
from .commands import Commands
from .draining import TerminationGuard
from .handshake import choose_protocol
from .hub import hub_of_this_loop, running_hub
from .server_bounds import bound_server, inspect_server, was_bounded
from .socket import Socket

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from .hub import Hub
    from .outbox import AsgiSend

logger = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

FORGIVEN = 1.0
"""Bad frames that are forgiven each second."""
PATH = "/ws/messages/"
DENIAL = "websocket.http.response"
"""The ASGI extension by which a handshake is answered like an HTTP request."""


def messaging_asgi(django_application: Application, *, hub: Hub | None = None) -> Application:
    """Put the WebSocket beside a Django application.

    In a host's ``asgi.py``::

        application = messaging_asgi(get_asgi_application())

    ``/ws/messages/`` is served here, everything else by Django. It also answers the server's lifespan, so that a
    stopping server tells its clients to come back and stores who is gone. As all WebSockets of the server are its own,
    it lets uvicorn take no larger messages than are of use, and none compressed. A host with WebSockets of its own
    routes to :class:`MessagingWebSocket` instead. ``hub`` is for tests that play several processes.
    """
    websocket = MessagingWebSocket(hub, bounds_server=True)

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: AsgiSend) -> None:
        match scope["type"]:
            case "websocket" if scope["path"] == PATH:
                await websocket(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": int(CloseCode.UNKNOWN_TENANT)})
            case "lifespan":
                websocket.meet_server(receive)
                await _lifespan(receive, send)
            case _:
                await django_application(scope, receive, send)

    return application


class MessagingWebSocket:
    """The ASGI application of the socket, for a host's own routing. It needs no middleware around it.

    Raises ``ImproperlyConfigured`` when a value in ``TENANT_MESSAGING`` is wrong, so that no server starts with it.
    """

    def __init__(self, hub: Hub | None = None, *, bounds_server: bool = False) -> None:
        require_valid_settings()
        self._hub = hub
        self._bounds_server = bounds_server
        self._has_met_server = False

    def meet_server(self, receive: Receive) -> None:
        """Look, the first time, at what the server takes of clients; ``receive`` is the one that it gave."""
        if not self._has_met_server:
            self._has_met_server = True
            (bound_server if self._bounds_server else inspect_server)(receive)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: AsgiSend) -> None:
        """Serve one connection until either side closes it."""
        self.meet_server(receive)
        await receive()
        protocol = choose_protocol(scope.get("subprotocols", ()))
        if isinstance(protocol, CloseCode):
            # A page sees the code only if one of the protocols that it offered is accepted first.
            await _refuse(send, Refusal(protocol), scope, scope["subprotocols"][0])
            return
        hub = self._hub or hub_of_this_loop()
        # A server that doesn't announce its start agrees with its first clients before it can be told anything.
        if hub.is_draining or (self._bounds_server and not was_bounded(receive)):
            await _refuse(send, Refusal(CloseCode.RESTART, 1), scope, protocol)
            return
        asked_at = time.monotonic()
        try:
            admitted = await hub.arrivals.admit(scope)
        except RateLimited as error:
            await _refuse(send, Refusal(CloseCode.RATE_LIMITED, math.ceil(error.retry_after)), scope, protocol)
            return
        if isinstance(admitted, CloseCode):
            await _refuse(send, Refusal(admitted), scope, protocol)
            return
        schema_name, standing = admitted
        await send({"type": "websocket.accept", "subprotocol": protocol})
        backlog = hub.backlog_of(schema_name, standing.user)
        socket = partial(Socket, schema_name=schema_name, standing=standing, scope=scope, send=send, backlog=backlog)
        await _Connection(hub, socket, asked_at).serve(receive)


class _Connection:
    """Serves one client, in one task: the one in which the server called the application."""

    def __init__(self, hub: Hub, socket: Callable[..., Socket], asked_at: float) -> None:
        self._hub = hub
        self._asked_at = asked_at
        self._socket = socket(catch_up=hub.catch_up, on_end=self._end_reading)
        self._commands = Commands(self._socket, hub)
        self._allowance = Allowance(hub.limiter, self._socket)
        self._bad_frames = TokenBucket(Limit(FORGIVEN, messaging_settings.MAX_BAD_FRAMES))
        self._task = asyncio.current_task()
        self._is_receiving = False
        self._is_ended = False

    async def serve(self, receive: Receive) -> None:
        """Greet the client and carry out its frames, until either side closes the connection."""
        try:
            if self._is_one_too_many():
                self._socket.close(CloseCode.RATE_LIMITED)
            elif await self._welcome():
                await self._read(receive)
            else:
                self._socket.close(CloseCode.UNAVAILABLE)
        except asyncio.CancelledError:
            if not self._is_ended or self._task is None or self._task.uncancel():
                raise
        finally:
            self._hub.leave(self._socket)
            self._socket.outbox.reading_ended()
            self._task = None

    def _end_reading(self) -> None:
        """Nothing can be written any more: don't wait for what the client may still say."""
        self._is_ended = True
        if self._is_receiving and self._task is not None:
            self._is_receiving = False
            self._task.cancel()

    def _is_one_too_many(self) -> bool:
        """Say whether the user has all the sockets of this process that one may have."""
        socket = self._socket
        others = len(self._hub.sockets.get((socket.schema_name, socket.user_id), ()))
        if others < messaging_settings.MAX_SOCKETS_PER_USER:
            return False
        logger.info(
            "[%s] Another socket of user %r was refused: there are %s.", socket.schema_name, socket.user_id, others
        )
        return True

    async def _welcome(self) -> bool:
        socket = self._socket
        try:
            online = await self._hub.join(socket, asked_at=self._asked_at)
        except MessagingError as error:
            logger.warning("[%s] A socket couldn't be served: %s", socket.schema_name, error)
            return False
        except Exception:
            logger.exception("[%s] A socket couldn't be served.", socket.schema_name)
            return False
        await socket.outbox.wait_for_room()
        socket.tell(
            HelloFrame(
                protocol=PROTOCOL,
                user=UserPayload.model_validate(user_ref(socket.user)),
                heartbeat_interval=messaging_settings.HEARTBEAT_INTERVAL,
                max_content_length=messaging_settings.MAX_CONTENT_LENGTH,
                rooms=[RoomPayload.of(seat.room) for seat in socket.seats.values()],
                rooms_limited=socket.rooms_limited,
                online=user_payloads(online.users),
                online_limited=online.is_limited,
            )
        )
        self._hub.welcomed(socket)
        return True

    async def _read(self, receive: Receive) -> None:
        while not self._is_ended:
            self._is_receiving = True
            event = await receive()
            self._is_receiving = False
            if event["type"] == "websocket.disconnect":
                return
            if not self._socket.is_closing:
                await self._take(event.get("text"))
            # It may be large, and the next one far.
            del event

    async def _take(self, text: str | None) -> None:
        """Read a frame, once its size is paid for, and carry it out."""
        socket = self._socket
        socket.last_heard = time.monotonic()
        if text is None or (size := _size(text)) > messaging_settings.MAX_FRAME_BYTES:
            await socket.unanswered.at_most(0)
            socket.close(CloseCode.FRAME_TOO_LARGE)
            return
        if size > FREE_BYTES:
            await self._afford(size)
        frame_id, frame = parse_frame(text)
        try:
            self._allowance.spend(frame)
        except RateLimited as error:
            await self._commands.refuse(frame_id, error)
            await self._pause(error)
            return
        if not isinstance(frame, MessagingError):
            await self._commands.carry_out(frame)
            return
        await self._commands.refuse(frame_id, frame)
        self._count_bad_frame(size)

    async def _afford(self, size: int) -> None:
        """Wait until the user may have so many more bytes read: a flood is held up on its way, not in our memory."""
        socket = self._socket
        while (seconds := self._allowance.wait_for(size)) and not socket.is_closing:
            await asyncio.sleep(min(seconds, LONGEST_PAUSE))
            socket.last_heard = time.monotonic()

    def _count_bad_frame(self, size: int) -> None:
        """Count a frame that isn't well-formed, a large one for more: few of those come before one is forgiven."""
        now = time.monotonic()
        part = size / messaging_settings.MAX_FRAME_BYTES if size > FREE_BYTES else 0
        self._bad_frames.take(1 + messaging_settings.MAX_BAD_FRAMES * part / 4, now)
        if self._bad_frames.wait(1, now):
            self._socket.close(CloseCode.BAD_FRAMES)

    async def _pause(self, error: RateLimited) -> None:
        """Read nothing for a while, so that a flood is held up on its way and not in our memory."""
        socket = self._socket
        if self._allowance.is_abused:
            logger.info("[%s] A socket of user %r was closed: it sends too much.", socket.schema_name, socket.user_id)
            socket.close(CloseCode.RATE_LIMITED)
        else:
            await asyncio.sleep(min(max(error.retry_after, SHORTEST_PAUSE), LONGEST_PAUSE))


class Refusal(NamedTuple):
    """Why a handshake is refused, and after how many seconds another one may be tried."""

    code: CloseCode
    retry_after: int = TenantNotReady.retry_after


#: For what lies with the server or with the moment: by an HTTP answer, where the server can give one.
DENIALS = {
    CloseCode.UNAVAILABLE: (503, b"The service is being prepared; try again later.\n"),
    CloseCode.RESTART: (503, b"The server is being restarted; try again.\n"),
    CloseCode.RATE_LIMITED: (429, b"Too many connections at once; try again later.\n"),
}


def _size(text: str) -> int:
    """Return the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


async def _refuse(send: AsgiSend, refusal: Refusal, scope: MutableMapping[str, Any], protocol: str | None) -> None:
    """Refuse a handshake: by an HTTP status if that says it and the server can, else by a close code, which only an
    accepted socket can carry to a page.
    """
    if refusal.code in DENIALS and DENIAL in (scope.get("extensions") or {}):
        status, body = DENIALS[refusal.code]
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"retry-after", str(refusal.retry_after).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await send({"type": f"{DENIAL}.start", "status": status, "headers": headers})
        await send({"type": f"{DENIAL}.body", "body": body})
        return
    await send({"type": "websocket.accept", "subprotocol": protocol})
    await send({"type": "websocket.close", "code": int(refusal.code)})


async def _lifespan(receive: Receive, send: AsgiSend) -> None:
    guard = TerminationGuard(asyncio.get_running_loop())
    while True:
        event = await receive()
        if event["type"] == "lifespan.startup":
            guard.install()
            await send({"type": "lifespan.startup.complete"})
        else:
            guard.uninstall()
            hub = running_hub()
            try:
                if hub is not None:
                    await hub.stop()
            except Exception:
                logger.exception("The hub couldn't be stopped in order.")
            await asyncio.to_thread(close_executor)
            await send({"type": "lifespan.shutdown.complete"})
            return
