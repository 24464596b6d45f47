"""The process's hub: who is connected, which rooms they follow, and how events reach them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady
from ..payloads import HeartbeatFrame
from ..selectors import read_changes, read_heads, room_positions
from ..tenancy import group_name, run_in_tenant
from .catchup import CatchUp
from .close_codes import CloseCode
from .feeds import RoomFeed
from .hints import Hint, hint_of
from .link import LayerLink
from .presence import PresenceKeeper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..types import Readiness, RoomPosition
    from .socket import Socket

logger = logging.getLogger(__name__)

FILL_PAGE = 500
STOP_PATIENCE = 5.0
"""Seconds that a stopping hub gives the database to take note."""
GAP_PATIENCE = 0.02
"""Seconds to wait for a hint that was overtaken, before the database is asked."""

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
            del _hubs[stopped]
        hub = _hubs[loop] = Hub()
        hub.start()
    return hub


class Hub:
    """Lives on one event loop; every method runs there, except :meth:`publish_from_thread`.

    A room is subscribed once for all its sockets. Its hints are routed here, to the room's feed, and from there as
    one and the same text to the sockets. A comparison with the database every ``RECONCILE_INTERVAL`` finds what the
    channel layer lost, also the last event, which no successor would expose.
    """

    def __init__(self) -> None:
        self.process = uuid.uuid4().hex
        self.loop = asyncio.get_running_loop()
        self.link = LayerLink(messaging_settings.CHANNEL_LAYER, self._on_message)
        self.presence = PresenceKeeper(self)
        self.feeds: dict[tuple[str, int], RoomFeed] = {}
        self.sockets: dict[tuple[str, str], set[Socket]] = defaultdict(set)
        self._schemas: dict[str, int] = {}
        self._catch_up = CatchUp()
        self._reconciling: set[str] = set()
        self._refreshing: set[tuple[str, str]] = set()
        self._stale: set[tuple[str, str]] = set()
        self._background: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin the background work."""
        self.link.start()
        self.spawn(self._reconcile_forever())
        self.spawn(self._beat_forever())
        self.spawn(self.presence.renew_forever())

    async def stop(self) -> None:
        """Close the sockets for a restart, store that their users are gone, and end the background work."""
        for sockets in list(self.sockets.values()):
            for socket in list(sockets):
                socket.close(CloseCode.RESTART)
                self.leave(socket)
        await self.presence.settled(STOP_PATIENCE)
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.link.stop()
        _hubs.pop(self.loop, None)

    def spawn(self, work: Any) -> None:
        """Run a coroutine in the background, as long as the hub runs."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Sockets

    async def join(self, socket: Socket) -> None:
        """Let a socket in: subscribe to what concerns it first, then read where its rooms are."""
        self.sockets[socket.schema_name, socket.user_id].add(socket)
        self._schemas[socket.schema_name] = self._schemas.get(socket.schema_name, 0) + 1
        await self.link.subscribe(
            [
                group_name(socket.schema_name, "user", socket.user_id),
                group_name(socket.schema_name, "presence", "all"),
            ]
        )
        for room in await self._load_rooms(socket):
            socket.enter_room(room, self.feeds[socket.schema_name, room.room_id])
        self.presence.sockets_changed(socket.schema_name, socket.user)

    def welcomed(self, socket: Socket) -> None:
        """The socket's hello is queued: frames may follow it."""
        socket.is_welcomed = True
        if socket.rooms_changed:
            self.spawn(self._refresh_rooms(socket.schema_name, socket.user_id))

    def _welcomed(self, schema_name: str, user_id: str) -> list[Socket]:
        return [socket for socket in self.sockets.get((schema_name, user_id), ()) if socket.is_welcomed]

    def leave(self, socket: Socket) -> None:
        """Forget a socket. Its rooms' feeds stay until the next comparison finds them empty."""
        key = socket.schema_name, socket.user_id
        if socket not in self.sockets.get(key, ()):
            return
        for room_id in list(socket.feeds):
            socket.leave_feed(room_id)
        self._catch_up.forget(socket)
        self.sockets[key].discard(socket)
        self._schemas[socket.schema_name] -= 1
        if not self.sockets[key]:
            del self.sockets[key]
            self.link.unsubscribe(group_name(socket.schema_name, "user", socket.user_id))
        if not self._schemas[socket.schema_name]:
            del self._schemas[socket.schema_name]
            self.link.unsubscribe(group_name(socket.schema_name, "presence", "all"))
        self.presence.sockets_changed(socket.schema_name, socket.user)

    def catch_up(self, socket: Socket) -> None:
        """Read for a socket what it missed."""
        self._catch_up.start(socket, self.spawn)

    async def _load_rooms(self, socket: Socket) -> list[RoomPosition]:
        """Return the rooms of a socket's user, each with a feed that was subscribed before the position was read."""
        schema_name = socket.schema_name
        while True:
            rooms = await run_in_tenant(schema_name, room_positions, socket.user)
            missing = [room.room_id for room in rooms if (schema_name, room.room_id) not in self.feeds]
            if not missing:
                for room in rooms:
                    self.feeds[schema_name, room.room_id].start(room.seq)
                return rooms
            for room_id in missing:
                self.feeds[schema_name, room_id] = RoomFeed(schema_name, room_id, self._on_gap)
            await self.link.subscribe(group_name(schema_name, "room", room_id) for room_id in missing)

    async def _refresh_rooms(self, schema_name: str, user_id: str) -> None:
        """Bring the sockets of a user in line with the rooms that the user is in.

        One at a time for a user: of two at once, the one that read earlier could have the last word.
        """
        key = schema_name, user_id
        self._stale.add(key)
        if key in self._refreshing:
            return
        self._refreshing.add(key)
        try:
            while key in self._stale:
                self._stale.discard(key)
                await self._refresh(schema_name, user_id)
        except MessagingError as error:
            logger.warning("[%s] The rooms of user %s couldn't be read: %s", schema_name, user_id, error)
        finally:
            self._refreshing.discard(key)
            self._stale.discard(key)

    async def _refresh(self, schema_name: str, user_id: str) -> None:
        sockets = list(self.sockets.get((schema_name, user_id), ()))
        for socket in sockets:
            socket.rooms_changed = not socket.is_welcomed
        if not any(socket.is_welcomed for socket in sockets):
            return
        rooms = {room.room_id: room for room in await self._load_rooms(sockets[0])}
        for socket in self._welcomed(schema_name, user_id):
            for room_id in set(socket.rooms) - set(rooms):
                socket.drop_room(room_id)
            for room_id in set(rooms) - set(socket.rooms):
                socket.add_room(rooms[room_id], self.feeds[schema_name, room_id])

    # Events

    def publish_from_thread(self, hints: Iterable[Hint]) -> None:
        """Deliver hints to this process's sockets and send them to the other processes; from any thread."""
        self.loop.call_soon_threadsafe(self._publish, list(hints))

    def _publish(self, hints: Iterable[Hint]) -> None:
        for hint in hints:
            self._dispatch(hint)
            self.link.publish(hint.group, hint.to_message(self.process))

    def _on_message(self, message: Mapping[str, Any]) -> None:
        if message["origin"] != self.process:
            self._dispatch(Hint.from_message(message))

    def _dispatch(self, hint: Hint) -> None:
        match hint.target:
            case "room":
                feed = self.feeds.get((hint.schema_name, int(hint.key)))
                if feed is not None:
                    feed.offer(hint)
            case "user" if not hint.frame:
                self.spawn(self._refresh_rooms(hint.schema_name, str(hint.key)))
            case "user":
                for socket in self.sockets.get((hint.schema_name, str(hint.key)), ()):
                    socket.offer_ephemeral(hint)
            case "presence":
                feeds = [self.feeds.get((hint.schema_name, room_id)) for room_id in hint.rooms]
                concerned = {socket: None for feed in feeds if feed is not None for socket in feed.sockets}
                for socket in concerned:
                    if socket.user_id not in hint.left:
                        socket.offer_ephemeral(hint)

    def _on_gap(self, feed: RoomFeed) -> None:
        if not feed.is_filling:
            feed.is_filling = True
            self.spawn(self._fill_gap(feed))

    async def _fill_gap(self, feed: RoomFeed) -> None:
        """Read what a feed lacks, after giving a hint that was merely overtaken the time to arrive."""
        try:
            await asyncio.sleep(GAP_PATIENCE)
            while feed.pending:
                await self._read_on(feed)
        except MessagingError as error:
            logger.warning("[%s] Room %s couldn't be filled: %s", feed.schema_name, feed.room_id, error)
            feed.pending.clear()
        finally:
            feed.is_filling = False

    async def _read_on(self, feed: RoomFeed) -> None:
        after = feed.head or 0
        changes = await run_in_tenant(feed.schema_name, read_changes, feed.room_id, after=after, limit=FILL_PAGE)
        feed.fill(after, changes, [hint_of(event) for event in changes.events])
        if feed.head == after:
            # What waits is past the database's head, so it is of another history.
            feed.pending.clear()

    # Background work

    async def _reconcile_forever(self) -> None:
        while True:
            await asyncio.sleep(messaging_settings.RECONCILE_INTERVAL)
            try:
                await self.link.repair()
                self._drop_empty_feeds()
                self._close_stuck()
            except Exception:
                logger.exception("Looking after the sockets failed.")
            for schema_name in list(self._schemas):
                # A tenant whose tables are locked or gone must not keep the others waiting.
                if schema_name not in self._reconciling:
                    self._reconciling.add(schema_name)
                    self.spawn(self._reconcile_tenant(schema_name))

    async def _reconcile_tenant(self, schema_name: str) -> None:
        try:
            await self._reconcile(schema_name)
        except TenantNotReady as error:
            self._close_tenant(schema_name, error.readiness)
        except MessagingError as error:
            logger.warning("[%s] Comparing with the database failed: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Comparing with the database failed.", schema_name)
        finally:
            self._reconciling.discard(schema_name)

    def _close_tenant(self, schema_name: str, readiness: Readiness) -> None:
        """Close the sockets of a tenant that may no longer be served."""
        sockets = [
            socket for (schema, _user), found in self.sockets.items() if schema == schema_name for socket in found
        ]
        logger.warning("[%s] %s sockets are closed: %s", schema_name, len(sockets), readiness.reason)
        for socket in sockets:
            socket.close(CloseCode.UNAVAILABLE)

    async def _reconcile(self, schema_name: str) -> None:
        """Compare all that is followed in a tenant with the database, in one statement."""
        feeds = {room_id: feed for (schema, room_id), feed in self.feeds.items() if schema == schema_name}
        users = {
            user_id: next(iter(sockets)).user.pk
            for (schema, user_id), sockets in self.sockets.items()
            if schema == schema_name
        }
        heads = await run_in_tenant(schema_name, read_heads, list(feeds), list(users.values()))
        for room_id, seq in heads.seqs.items():
            feed = feeds[room_id]
            while feed.head is not None and feed.head < seq and not feed.is_filling:
                await self._read_on(feed)
        for user_id, room_id in heads.joins:
            if any(room_id not in socket.rooms for socket in self._welcomed(schema_name, user_id)):
                await self._refresh_rooms(schema_name, user_id)

    def _drop_empty_feeds(self) -> None:
        for key, feed in list(self.feeds.items()):
            if feed.is_idle(time.monotonic()):
                del self.feeds[key]
                self.link.unsubscribe(group_name(feed.schema_name, "room", feed.room_id))

    def _close_stuck(self) -> None:
        now = time.monotonic()
        for sockets in self.sockets.values():
            for socket in sockets:
                if socket.is_stuck(now):
                    socket.stuck.set()

    async def _beat_forever(self) -> None:
        while True:
            interval = messaging_settings.HEARTBEAT_INTERVAL
            await asyncio.sleep(interval)
            silent_since = time.monotonic() - 3 * interval
            for socket in [socket for sockets in self.sockets.values() for socket in sockets]:
                if socket.last_heard < silent_since:
                    socket.close(CloseCode.TOO_SLOW)
                elif socket.is_welcomed:
                    heads = {str(room_id): feed.head or 0 for room_id, feed in socket.feeds.items()}
                    socket.beat(HeartbeatFrame(heads=heads))
