"""One client's connection: what waits to be written to it, and how far it has each room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..conf import messaging_settings
from ..payloads import RoomAddedFrame, RoomPayload, RoomRemovedFrame

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from pydantic import BaseModel

    from ..types import RoomPosition
    from .close_codes import CloseCode
    from .feeds import RoomFeed
    from .hints import Hint

logger = logging.getLogger(__name__)

AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]


class Waiting(NamedTuple):
    """A text that waits to be written; ``room_id`` is 0 for what isn't part of a timeline."""

    text: str
    room_id: int
    after: int


class Socket:
    """A connected client.

    Events wait in a bounded queue that a task of its own writes out, so that a client that reads slowly delays
    nobody. What doesn't fit is dropped and read again from the database: ``positions`` says from where.
    """

    def __init__(
        self,
        *,
        schema_name: str,
        user: AbstractBaseUser,
        send: AsgiSend,
        catch_up: Callable[[Socket], None],
    ) -> None:
        self.schema_name = schema_name
        self.user = user
        self.user_id = str(user.pk)
        self.rooms: dict[int, RoomPosition] = {}
        self.positions: dict[int, int] = {}
        self.feeds: dict[int, RoomFeed] = {}
        self.behind: set[int] = set()
        """Rooms that have to be caught up from the database; live events of them are left alone until then."""
        self.is_welcomed = False
        """Whether the hello is queued. Nothing may be put before it, and it names the rooms as they are then."""
        self.rooms_changed = False
        """Whether the user's rooms changed before the hello, so that they have to be read again after it."""
        self.is_streaming = False
        self.last_heard = time.monotonic()
        self.writing_since: float | None = None
        self.stuck = asyncio.Event()
        """Set when the client doesn't read at all: not even a close would reach it."""
        self._send = send
        self._catch_up = catch_up
        # Asked at every delivery: looking the settings up each time took a quarter of the loop's time.
        self._max_events = messaging_settings.SOCKET_QUEUE_EVENTS
        self._max_bytes = messaging_settings.SOCKET_QUEUE_BYTES
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._has_room = asyncio.Event()
        self._closing: CloseCode | None = None
        self._wake = asyncio.Event()

    # Rooms

    def enter_room(self, room: RoomPosition, feed: RoomFeed) -> None:
        """Follow a room from its position on."""
        self.rooms[room.room_id] = room
        self.positions[room.room_id] = room.seq
        self.feeds[room.room_id] = feed
        feed.sockets[self] = None

    def add_room(self, room: RoomPosition, feed: RoomFeed) -> None:
        """Follow a room that the user has joined since, from there on, and tell the client."""
        if room.seq - room.joined_seq <= messaging_settings.RESUME_LIMIT:
            room = replace(room, seq=room.joined_seq)
        self.enter_room(room, feed)
        self._put(RoomAddedFrame(room=RoomPayload.of(room)).model_dump_json())
        self._check_behind(room.room_id)

    def drop_room(self, room_id: int) -> None:
        """Stop following a room that the user is no longer in, and tell the client."""
        if self.leave_feed(room_id) and self.is_welcomed:
            self._put(RoomRemovedFrame(room=room_id).model_dump_json())

    def leave_feed(self, room_id: int) -> bool:
        """Stop following a room; say whether it was followed."""
        feed = self.feeds.pop(room_id, None)
        self.rooms.pop(room_id, None)
        self.positions.pop(room_id, None)
        self.behind.discard(room_id)
        if feed is not None:
            feed.sockets.pop(self, None)
        return feed is not None

    def stream_from(self, positions: Mapping[int, int]) -> None:
        """Start the stream of events; rooms that aren't named start where they are."""
        self.positions.update(positions)
        self.is_streaming = True
        for room_id in list(self.positions):
            self._check_behind(room_id)

    def advance(self, room_id: int, seq: int) -> None:
        """Leave out what lies before a position."""
        if self.positions.get(room_id, seq) < seq:
            self.positions[room_id] = seq

    def _check_behind(self, room_id: int) -> None:
        head = self.feeds[room_id].head
        if self.is_streaming and head is not None and self.positions[room_id] < head:
            self._fall_behind([room_id])

    def _fall_behind(self, room_ids: Iterable[int]) -> None:
        self.behind.update(room_ids)
        self._catch_up(self)

    # Events

    def offer(self, feed: RoomFeed, hint: Hint) -> None:
        """Take the next event of a room, unless the client has it or has to be caught up first."""
        room_id = feed.room_id
        position = self.positions.get(room_id)
        if position is None or hint.seq <= position or not self.is_streaming or room_id in self.behind:
            return
        if hint.after > position:
            self._fall_behind([room_id])
        elif self._is_full():
            self._overflow(room_id)
        else:
            self.put_event(room_id, hint)

    def put_event(self, room_id: int, hint: Hint) -> None:
        """Queue an event of a room and move the position."""
        visible_after = self.rooms[room_id].visible_after_seq
        self._put(hint.frame_for(self.user_id, visible_after), room_id, self.positions[room_id])
        self.positions[room_id] = hint.seq

    def offer_ephemeral(self, hint: Hint) -> None:
        """Take an event that may be lost: it is the first to be left out when the client is slow."""
        if self.is_streaming and len(self._queue) < self._max_events // 2:
            self._put(hint.frame_for(self.user_id))

    def _is_full(self) -> bool:
        return len(self._queue) >= self._max_events or self._queued_bytes >= self._max_bytes

    def _overflow(self, room_id: int) -> None:
        """Give up what waits, replies excepted, and have it read from the database once the client reads again."""
        logger.info("[%s] A socket of user %s reads too slowly; it will be caught up.", self.schema_name, self.user_id)
        behind = {room_id}
        replies: deque[Waiting] = deque()
        for waiting in reversed(self._queue):
            if not waiting.room_id:
                replies.appendleft(waiting)
            elif waiting.room_id in self.positions:
                self.positions[waiting.room_id] = waiting.after
                behind.add(waiting.room_id)
        self._queue = replies
        self._queued_bytes = sum(len(waiting.text) for waiting in replies)
        self._fall_behind(behind)

    # Writing

    async def reply(self, frame: BaseModel) -> None:
        """Queue a frame for this client alone, after waiting for room in the queue: who doesn't read isn't served."""
        await self.wait_for_room()
        self._put(frame.model_dump_json())

    async def wait_for_room(self) -> None:
        """Wait until the queue has room, or the socket is closed."""
        while self._is_full() and self._closing is None:
            self._has_room.clear()
            await self._has_room.wait()

    def beat(self, frame: BaseModel) -> None:
        """Queue a heartbeat, unless so much waits that the client hears enough."""
        if not self._is_full():
            self._put(frame.model_dump_json())

    def close(self, code: CloseCode) -> None:
        """Close the socket, leaving out what still waits."""
        if self._closing is None:
            self._closing = code
            self._wake.set()
            self._has_room.set()

    def is_stuck(self, now: float) -> bool:
        """Say whether a single write has been waiting for the client for ``SOCKET_STUCK_TIMEOUT``."""
        since = self.writing_since
        return since is not None and now - since > messaging_settings.SOCKET_STUCK_TIMEOUT

    @property
    def is_closing(self) -> bool:
        """Whether the socket is being closed."""
        return self._closing is not None

    def _put(self, text: str, room_id: int = 0, after: int = 0) -> None:
        self._queue.append(Waiting(text, room_id, after))
        self._queued_bytes += len(text)
        self._wake.set()

    async def write(self) -> None:
        """Write what waits, until the socket is closed from this side. Raises what the server's ``send`` raises."""
        while self._closing is None:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and self._closing is None:
                waiting = self._queue.popleft()
                self._queued_bytes -= len(waiting.text)
                self.writing_since = time.monotonic()
                await self._send({"type": "websocket.send", "text": waiting.text})
                self.writing_since = None
                self._has_room.set()
        await self._send({"type": "websocket.close", "code": int(self._closing)})
