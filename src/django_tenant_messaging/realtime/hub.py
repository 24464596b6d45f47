"""The process's hub: who is connected, which rooms they follow, and how events reach them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict, defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..conf import messaging_settings
from ..exceptions import MessagingError
from ..limits import Limiter, limits_of_settings, share_limiter, unshare_limiter
from ..selectors import Changes, read_changes, read_returns
from ..tenancy import run_in_tenant
from . import link
from .access import AccessKeeper
from .arrivals import Arrivals
from .backlog import Backlog
from .callers import Callers
from .catchup import CatchUp
from .close_codes import CloseCode
from .comparison import Comparison
from .feeds import RoomFeed
from .following import Following
from .garbage import GarbageKeeper
from .hints import Hint, from_rows, hint_of
from .link import LayerLink
from .outbox import joined_in_parts
from .presence import PresenceKeeper
from .sending import Sends
from .turns import Turns

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Mapping

    from django.contrib.auth.models import AbstractBaseUser

    from ..types import Readiness, RoomPosition
    from .following import Online
    from .sealing import Message
    from .socket import Socket

logger = logging.getLogger(__name__)

FILL_PAGE = 500
STOP_PATIENCE = 5.0
"""Seconds that a stopping hub gives the database to take note."""
GAP_PATIENCE = 0.02
"""Seconds to wait for a hint that was overtaken, before the database is asked."""
SHARE_INTERVAL = 0.25
"""Seconds between two reports to the other processes of what heavy users were granted; none without such users."""
BEATS = 20
"""Times in an interval that heartbeats are sent to those for whom they are due."""
SILENT_BEATS = 3
"""Heartbeats after which a client that has said nothing is closed."""

_hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def running_hub() -> Hub | None:
    """Return the hub of this process's server, if it serves sockets."""
    return next((hub for loop, hub in list(_hubs.items()) if loop.is_running()), None)


def hub_of_this_loop() -> Hub:
    """Return the running event loop's hub, starting it when there is none."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        for stopped in [other for other in _hubs if other.is_closed()]:
            gone = _hubs.pop(stopped)
            gone.retire()
            gone.garbage.stop()
        hub = _hubs[loop] = Hub()
        hub.start()
    return hub


class Hub:
    """Lives on one event loop; every method runs there, except :meth:`publish_from_thread`.

    The hints of a tenant come in once for all its sockets. They are routed to the feeds of their rooms, and from there
    as one and the same text to the sockets. A comparison with the database every ``RECONCILE_INTERVAL`` finds what the
    channel layer lost, also the last event, which no successor would expose.
    """

    running = 0
    """How many hubs run in this process."""

    def __init__(self) -> None:
        self.process = uuid.uuid4().hex
        self.loop = asyncio.get_running_loop()
        self.link = LayerLink(messaging_settings.CHANNEL_LAYER, self.process, self._on_message)
        self.presence = PresenceKeeper(self)
        self.access = AccessKeeper(self)
        self.turns = Turns()
        self.sends = Sends(self.spawn, self._publish, self.turns)
        self.limiter = Limiter(limits_of_settings(), self._share_soon)
        self.arrivals = Arrivals(self.spawn, Callers(self.limiter))
        self.following = Following(self)
        self.garbage = GarbageKeeper()
        self.feeds: dict[tuple[str, int], RoomFeed] = {}
        self.sockets: dict[tuple[str, str], set[Socket]] = defaultdict(set)
        self._backlogs: WeakValueDictionary[tuple[str, str], Backlog] = WeakValueDictionary()
        self.is_draining = False
        """Whether the process is about to stop, so that nobody is let in."""
        self._is_running = False
        self._schemas: dict[str, int] = {}
        self._beating: OrderedDict[Socket, None] = OrderedDict()
        """All sockets, the one whose heartbeat is due next first."""
        self._catch_up = CatchUp(self._on_return)
        self._comparison = Comparison(self)
        self._reading_rooms = 0
        self._unheard: dict[tuple[str, int], int] = {}
        self._background: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin the background work."""
        self._is_running = True
        Hub.running += 1
        share_limiter(self.limiter)
        self.garbage.start()
        self.link.start()
        self.spawn(self._comparison.run_forever())
        self.spawn(self._beat_forever())
        self.spawn(self.presence.renew_forever())
        self.spawn(self.access.run_forever())
        self.spawn(self.access.make_up_forever())

    async def stop(self) -> None:
        """Finish the sends that are on their way, close the sockets for a restart, store that their users are gone, and
        end the background work. A second time does nothing.
        """
        if not self._is_running:
            return
        self.retire()
        self.is_draining = True
        try:
            await self.sends.finished(STOP_PATIENCE)
            for sockets in list(self.sockets.values()):
                for socket in list(sockets):
                    socket.close(CloseCode.RESTART)
                    self.leave(socket)
            await self.presence.settled(STOP_PATIENCE)
            for task in list(self._background):
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            await self.link.stop()
        finally:
            # Not sooner: looking through all connections again would hold up those that are being closed.
            self.garbage.stop()
        if _hubs.get(self.loop) is self:
            del _hubs[self.loop]

    def retire(self) -> None:
        """Count as running no more, because it stops or because its loop ended without that."""
        if self._is_running:
            self._is_running = False
            Hub.running -= 1
            unshare_limiter(self.limiter)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine in the background, as long as the hub runs."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def begun(self, work: Coroutine[Any, Any, None], patience: float) -> bool:
        """Run a coroutine in the background; wait for its end, but not for more than so many seconds.

        Says whether it has ended. What it raises is asyncio's to report, like that of any other task.
        """
        ended, _pending = await asyncio.wait({self.spawn(work)}, timeout=patience)
        return bool(ended)

    # Sockets

    async def join(self, socket: Socket, *, asked_at: float) -> Online:
        """Let a socket in: subscribe to what concerns it first, then read where its rooms are. Returns who is online
        among those that its user shares a room with. ``asked_at`` is when the handshake began, by the monotonic clock.
        """
        self.sockets[socket.schema_name, socket.user_id].add(socket)
        self._schemas[socket.schema_name] = self._schemas.get(socket.schema_name, 0) + 1
        self._beating[socket] = None
        await self.link.subscribe(socket.schema_name)
        self.access.let_in(socket, asked_at)
        online = await self.following.enter(socket)
        self.presence.sockets_changed(socket.schema_name, socket.user)
        return online

    def welcomed(self, socket: Socket) -> None:
        """The socket's hello is queued: frames may follow it."""
        socket.is_welcomed = True
        if socket.rooms_changed:
            self.spawn(self.following.refresh(socket.schema_name, socket.user_id))

    def leave(self, socket: Socket) -> None:
        """Forget a socket. Its rooms' feeds stay until the next comparison finds them empty."""
        key = socket.schema_name, socket.user_id
        if socket not in self.sockets.get(key, ()):
            return
        for room_id in list(socket.seats):
            socket.leave_room(room_id)
        self.sockets[key].discard(socket)
        del self._beating[socket]
        self._schemas[socket.schema_name] -= 1
        if not self.sockets[key]:
            del self.sockets[key]
        if not self._schemas[socket.schema_name]:
            del self._schemas[socket.schema_name]
            self.link.unsubscribe(socket.schema_name)
        self.presence.sockets_changed(socket.schema_name, socket.user)
        self.garbage.connection_ended()

    def backlog_of(self, schema_name: str, user: AbstractBaseUser) -> Backlog:
        """Return what counts the texts that wait for a user's sockets, as long as there is one."""
        return self._backlogs.setdefault((schema_name, str(user.pk)), Backlog())

    def schemas(self) -> list[str]:
        """Return the schemas of the tenants that have sockets here."""
        return list(self._schemas)

    def sockets_of(self, schema_name: str) -> list[Socket]:
        """Return the sockets of a tenant."""
        return [socket for (schema, _user), found in self.sockets.items() if schema == schema_name for socket in found]

    def catch_up(self, socket: Socket) -> None:
        """Read for a socket what it missed."""
        self._catch_up.start(socket, self.spawn)

    def close_tenant(self, schema_name: str, readiness: Readiness) -> None:
        """Close the sockets of a tenant that may no longer be served."""
        sockets = [socket for socket in self.sockets_of(schema_name) if not socket.is_closing]
        if sockets:
            logger.warning("[%s] %s sockets are closed: %s", schema_name, len(sockets), readiness.reason)
        for socket in sockets:
            socket.close(CloseCode.UNAVAILABLE)

    def tidy(self) -> None:
        """Forget the rooms that nobody follows."""
        self.garbage.tidy(sum(self._schemas.values()))
        now = time.monotonic()
        for key, feed in list(self.feeds.items()):
            if feed.is_idle(now):
                del self.feeds[key]

    # Rooms

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note what is said of rooms that nobody follows yet, while their positions are being read."""
        self._reading_rooms += 1
        try:
            yield
        finally:
            self._reading_rooms -= 1
            if not self._reading_rooms:
                self._unheard.clear()

    def feed_at(self, schema_name: str, room: RoomPosition) -> RoomFeed:
        """Return the feed of a room whose position was just read while listening."""
        key = schema_name, room.room_id
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = RoomFeed(*key, self._on_gap, self._on_return)
            feed.start(room.seq)
            self._read_up_to(feed, self._unheard.get(key, 0))
        return feed

    def welcomed_sockets(self, schema_name: str, user_id: str) -> list[Socket]:
        """Return the sockets of a user that have said hello."""
        return [socket for socket in self.sockets.get((schema_name, user_id), ()) if socket.is_welcomed]

    # Events

    def publish_from_thread(self, hints: list[Hint]) -> None:
        """Deliver hints to this process's sockets and send them to the other processes; from any thread."""
        self.loop.call_soon_threadsafe(self._publish, hints)

    def _publish(self, hints: list[Hint]) -> None:
        by_tenant: defaultdict[str, list[Hint]] = defaultdict(list)
        for hint in hints:
            by_tenant[hint.schema_name].append(hint)
        for schema_name, found in by_tenant.items():
            self._dispatch(schema_name, found)
            if Hub.running > 1 or not self.link.is_local:
                self.link.publish(schema_name, found)

    def _on_message(self, message: Message) -> None:
        match message.kind:
            case link.HINTS:
                self._dispatch(message.about, from_rows(message.about, message.content))
            case link.LIMITS:
                self.limiter.absorb(message.content, time.monotonic())

    def _share_soon(self) -> None:
        # A page asks from its own thread, and maybe after the loop was closed.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.call_later, SHARE_INTERVAL, self._share)

    def _share(self) -> None:
        """Tell the other processes what heavy users, rooms and tenants were granted here."""
        shares = self.limiter.report(time.monotonic())
        if Hub.running > 1 or not self.link.is_local:
            self.link.publish_shares(shares)

    def _dispatch(self, schema_name: str, hints: list[Hint]) -> None:
        rooms: defaultdict[int, list[Hint]] = defaultdict(list)
        presence: list[Hint] = []
        for hint in hints:
            match hint.target:
                case "room":
                    rooms[int(hint.key)].append(hint)
                case "presence":
                    presence.append(hint)
                case _:
                    self._act_on(hint)
        for room_id, of_room in rooms.items():
            feed = self.feeds.get((schema_name, room_id))
            if feed is not None:
                feed.offer(of_room)
            elif self._reading_rooms:
                key = schema_name, room_id
                self._unheard[key] = max(self._unheard.get(key, 0), *(hint.seq for hint in of_room))
        if presence:
            self._tell_presence(schema_name, presence)

    def _act_on(self, hint: Hint) -> None:
        schema_name, key = hint.schema_name, str(hint.key)
        match hint.target:
            case "access" if not (schema_name or key):
                self.access.recheck_all()
            case "access" if key:
                self.access.user_changed(schema_name, key)
            case "access":
                self.access.tenant_changed(schema_name)
            case "login":
                self.access.login_ended(schema_name, key)
            case "user" if not hint.frame:
                self.spawn(self.following.refresh(schema_name, key))
            case "user":
                for socket in tuple(self.sockets.get((schema_name, key), ())):
                    socket.offer_ephemeral(hint.frame)

    def _tell_presence(self, schema_name: str, hints: list[Hint]) -> None:
        """Tell each socket of all those who share a room with it, at once."""
        texts: defaultdict[Socket, list[str]] = defaultdict(list)
        for hint in hints:
            feeds = [self.feeds.get((schema_name, room_id)) for room_id in hint.rooms]
            for socket in {socket: None for feed in feeds if feed is not None for socket in feed.sockets}:
                if socket.user_id not in hint.left:
                    texts[socket].append(hint.frame)
        for socket, found in texts.items():
            for text in joined_in_parts(found):
                socket.offer_ephemeral(text)

    def follow(self, schema_name: str, seqs: Mapping[int, int], joins: Iterable[tuple[str, int]]) -> None:
        """Read what this process lacks, given where the database is and who (by id) joined which room of late."""
        for room_id, seq in seqs.items():
            feed = self.feeds.get((schema_name, room_id))
            if feed is not None:
                self._read_up_to(feed, seq)
        for user_id, room_id in joins:
            if any(socket.misses_room(room_id) for socket in self.welcomed_sockets(schema_name, user_id)):
                self.spawn(self.following.refresh(schema_name, user_id))

    def drop_rooms(self, schema_name: str, room_ids: Iterable[int]) -> None:
        """Let no socket follow rooms that are gone."""
        for room_id in room_ids:
            feed = self.feeds.get((schema_name, room_id))
            for socket in () if feed is None else tuple(feed.sockets):
                socket.drop_room(room_id)

    def _on_return(self, socket: Socket) -> None:
        self.spawn(self.following.refresh(socket.schema_name, socket.user_id))

    def _on_gap(self, feed: RoomFeed) -> None:
        if not feed.is_filling:
            feed.is_filling = True
            self.spawn(self._fill(feed, patience=GAP_PATIENCE))

    def _read_up_to(self, feed: RoomFeed, seq: int) -> None:
        if feed.head is not None and feed.head < seq and not feed.is_filling:
            feed.is_filling = True
            self.spawn(self._fill(feed, up_to=seq))

    async def _fill(self, feed: RoomFeed, *, up_to: int = 0, patience: float = 0) -> None:
        """Read what a feed lacks, after giving a hint that was merely overtaken the time to arrive."""
        try:
            await asyncio.sleep(patience)
            while feed.pending or (feed.head or 0) < up_to:
                after = feed.head or 0
                changes, returns = await run_in_tenant(feed.schema_name, _read, feed.room_id, after)
                feed.fill(after, changes, returns, [hint_of(event) for event in changes.events])
                if feed.head == after:
                    # What waits is past the database's head, so it is of another history.
                    feed.pending.clear()
                    return
        except MessagingError as error:
            logger.warning("[%s] Room %s couldn't be filled: %s", feed.schema_name, feed.room_id, error)
            feed.pending.clear()
        finally:
            feed.is_filling = False

    # Heartbeats

    async def _beat_forever(self) -> None:
        """Send each socket its heartbeat when it is due, and close those that are silent."""
        while True:
            interval = messaging_settings.HEARTBEAT_INTERVAL
            await asyncio.sleep(interval / BEATS)
            self._beat(time.monotonic(), interval)

    def _beat(self, now: float, interval: float) -> None:
        while self._beating and now - (socket := next(iter(self._beating))).last_beat >= interval:
            self._beating.move_to_end(socket)
            socket.last_beat = now
            if now - socket.last_heard >= SILENT_BEATS * interval:
                socket.close(CloseCode.TOO_SLOW)
            elif socket.is_welcomed:
                socket.beat()


def _read(room_id: int, after: int) -> tuple[Changes, dict[str, int]]:
    changes = read_changes(room_id, after=after, limit=FILL_PAGE)
    return changes, read_returns(room_id, after=after)
