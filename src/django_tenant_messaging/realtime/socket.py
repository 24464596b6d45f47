"""One client's connection: which rooms it follows and how far it has each."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from ..payloads import RoomAddedFrame, RoomPayload, RoomRemovedFrame, heartbeat
from .outbox import AsgiSend, Outbox
from .unanswered import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic import BaseModel

    from ..types import RoomPosition
    from .backlog import Backlog
    from .close_codes import CloseCode
    from .feeds import RoomFeed
    from .handshake import Standing
    from .hints import Hint

logger = logging.getLogger(__name__)


class Seat:
    """A socket's place in a room.

    A live one has all that its feed has given out: the feed's head is its position, and ``position`` isn't kept.
    """

    __slots__ = ("feed", "is_live", "position", "room")

    def __init__(self, room: RoomPosition, feed: RoomFeed) -> None:
        self.room = room
        self.feed = feed
        self.position = room.seq
        self.is_live = False


class Socket:
    """A connected client.

    Its outbox takes what the client reads. A client that reads too slowly gives up the events that wait; they are
    read again from the database, from its ``position`` in each room on.
    """

    __slots__ = (
        "_catch_up",
        "behind",
        "is_streaming",
        "is_welcomed",
        "last_beat",
        "last_heard",
        "outbox",
        "passed_over",
        "rooms_changed",
        "rooms_limited",
        "schema_name",
        "scope",
        "seats",
        "standing",
        "unanswered",
        "user",
        "user_id",
    )

    def __init__(
        self,
        *,
        schema_name: str,
        standing: Standing,
        scope: Mapping[str, Any],
        send: AsgiSend,
        catch_up: Callable[[Socket], None],
        on_end: Callable[[], None],
        backlog: Backlog,
    ) -> None:
        self.schema_name = schema_name
        self.standing = standing
        self.scope = scope
        self.user = standing.user
        self.user_id = str(self.user.pk)
        self.outbox = Outbox(send, on_end, backlog)
        self.unanswered = Unanswered()
        self.seats: dict[int, Seat] = {}
        self.behind: set[int] = set()
        """Rooms that have to be caught up from the database; live events of them are left alone until then."""
        self.is_welcomed = False
        """Whether the hello is queued. Nothing may be put before it, and it names the rooms as they are then."""
        self.rooms_changed = False
        """Whether the user's rooms changed before the hello, so that they have to be read again after it."""
        self.rooms_limited = False
        """Whether the user was in more rooms than the socket could follow from its start."""
        self.passed_over: Collection[int] = ()
        """Of the others those that the user had joined of late: they aren't new."""
        self.is_streaming = False
        self.last_heard = self.last_beat = time.monotonic()
        self._catch_up = catch_up

    # Rooms

    def enter_room(self, room: RoomPosition, feed: RoomFeed) -> None:
        """Follow a room from its position on."""
        seat = self.seats[room.room_id] = Seat(room, feed)
        feed.sockets[self] = seat
        self._settle(seat)

    def add_room(self, room: RoomPosition, feed: RoomFeed) -> None:
        """Follow a room that hello didn't name, from its position on, and tell the client."""
        self.tell(RoomAddedFrame(room=RoomPayload.of(room)))
        self.enter_room(room, feed)

    def drop_room(self, room_id: int) -> None:
        """Stop following a room that the user is no longer in, and tell the client."""
        if self.leave_room(room_id) and self.is_welcomed:
            self.tell(RoomRemovedFrame(room=room_id))

    def leave_room(self, room_id: int) -> bool:
        """Stop following a room; say whether it was followed."""
        seat = self.seats.pop(room_id, None)
        self.behind.discard(room_id)
        if seat is None:
            return False
        seat.feed.forget(self)
        return True

    def stream_from(self, positions: Mapping[int, int]) -> None:
        """Start the stream of events; rooms that aren't named start where they are."""
        self.is_streaming = True
        for room_id, seat in self.seats.items():
            seat.position = positions.get(room_id, seat.position)
            self._settle(seat)

    def set_back(self, seat: Seat, position: int) -> None:
        """Let the socket go on in a room from another position than where it is."""
        seat.feed.unseat(self)
        seat.is_live = False
        seat.position = position
        self._settle(seat)

    def _settle(self, seat: Seat) -> None:
        """Take the next step for a seat that isn't live."""
        head = seat.feed.head
        if not self.is_streaming or head is None:
            return
        if seat.position < head:
            self.behind.add(seat.room.room_id)
            self._catch_up(self)
        else:
            self.behind.discard(seat.room.room_id)
            seat.feed.seat(self)

    def caught_up(self, room_id: int) -> None:
        """The socket has all that a room's feed has, or more."""
        self._settle(self.seats[room_id])

    def misses_room(self, room_id: int) -> bool:
        """Say whether a room that the user has joined of late isn't followed, and wasn't there at the start either."""
        return room_id not in self.seats and room_id not in self.passed_over

    # Events

    def put_event(self, seat: Seat, hint: Hint) -> None:
        """Queue an event for a seat that isn't live, and move its position."""
        text = hint.frame_for(self.user_id, seat.room.visible_after_seq)
        self.outbox.put(text, seat.room.room_id, seat.position)
        seat.position = hint.seq

    def overflow(self, room_id: int, after: int) -> None:
        """Give up the events that wait, and have them read from the database once the client reads again.

        ``after`` is the position in the room whose next event finds the queue full.
        """
        logger.info("[%s] A socket of user %r reads too slowly; it will be caught up.", self.schema_name, self.user_id)
        for lost_id, position in ({room_id: after} | self.outbox.give_up_events()).items():
            seat = self.seats.get(lost_id)
            if seat is not None:
                self.set_back(seat, position)

    def offer_ephemeral(self, text: str) -> None:
        """Take what may be lost: it is the first to be left out when the client is slow."""
        if self.is_streaming and not self.outbox.is_crowded:
            self.outbox.put(text)

    # Replies

    async def reply(self, frame: BaseModel) -> None:
        """Queue a frame for this client alone, after waiting for room in the queue: who doesn't read isn't served."""
        await self.outbox.wait_for_room()
        self.tell(frame)

    def tell(self, frame: BaseModel) -> None:
        """Queue a frame for this client alone, however much waits."""
        self.outbox.put(frame.model_dump_json())

    def beat(self) -> None:
        """Queue a heartbeat, unless so much waits that the client hears enough."""
        if not self.outbox.is_full:
            self.outbox.put(heartbeat({room_id: seat.feed.head or 0 for room_id, seat in self.seats.items()}))

    def close(self, code: CloseCode) -> None:
        """Close the socket, leaving out what still waits."""
        self.outbox.close(code)

    @property
    def is_closing(self) -> bool:
        """Whether the socket is being closed, or its client is gone."""
        return self.outbox.is_closing or self.outbox.is_broken
