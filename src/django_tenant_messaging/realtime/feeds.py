"""A room as one process follows it: contiguous, whatever the channel layer loses, repeats or reorders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .hints import Hint, skip_to
from .packets import Packet, packets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..selectors import Changes
    from .socket import Seat, Socket

MAX_PENDING = 256


class RoomFeed:
    """Holds the sockets of a room and the head up to which they were served.

    Hints go out in the order of their numbers only. One that leaves a gap waits, and ``on_gap`` is called: if the
    missing one doesn't arrive in a moment, the part between is read from the database.

    ``live`` are the sockets that have everything up to the head, so that each gets whatever comes next. ``ahead`` are
    those that have more than this process knows of yet. ``on_return`` is called for a socket whose user turns out to
    have left and joined again: it follows the room no more, and has to begin anew.
    """

    __slots__ = (
        "_on_gap",
        "_on_return",
        "ahead",
        "born",
        "head",
        "is_filling",
        "live",
        "pending",
        "room_id",
        "schema_name",
        "sockets",
    )

    def __init__(
        self,
        schema_name: str,
        room_id: int,
        on_gap: Callable[[RoomFeed], None],
        on_return: Callable[[Socket], None],
    ) -> None:
        self.schema_name = schema_name
        self.room_id = room_id
        self.head: int | None = None
        self.pending: dict[int, Hint] = {}
        self.sockets: dict[Socket, Seat] = {}
        self.live: dict[Socket, Seat] = {}
        self.ahead: dict[Socket, None] = {}
        self.is_filling = False
        self.born = time.monotonic()
        self._on_gap = on_gap
        self._on_return = on_return

    def start(self, head: int) -> None:
        """Begin at a head read from the database after subscribing; a later call changes nothing."""
        if self.head is None:
            self.head = head
            self._advance()

    def is_idle(self, now: float) -> bool:
        """Say whether nobody needs the feed; one that was never started is given a minute."""
        return not self.sockets and not self.is_filling and (self.head is not None or now - self.born > 60)

    # Sockets

    def seat(self, socket: Socket) -> None:
        """Let a socket whose position is the head, or beyond it, have what follows its position."""
        seat = self.sockets[socket]
        if seat.position == self.head:
            seat.is_live = True
            self.live[socket] = seat
        else:
            self.ahead[socket] = None

    def unseat(self, socket: Socket) -> None:
        """Give a socket nothing for now."""
        self.live.pop(socket, None)
        self.ahead.pop(socket, None)

    def forget(self, socket: Socket) -> None:
        """A socket doesn't follow the room any more."""
        self.unseat(socket)
        self.sockets.pop(socket, None)

    # Hints

    def offer(self, hints: Iterable[Hint]) -> None:
        """Take hints, in whatever order they arrive."""
        for hint in hints:
            if not hint.seq:
                for socket in list(self.sockets):
                    socket.offer_ephemeral(hint.frame)
                continue
            if len(self.pending) >= MAX_PENDING:
                # Many at once are no gap.
                self._advance()
            if (self.head is None or hint.seq > self.head) and self._has_place(hint):
                self.pending[hint.after] = hint
        self._advance()

    def _has_place(self, hint: Hint) -> bool:
        return len(self.pending) < MAX_PENDING or hint.after == self.head

    def fill(self, after: int, changes: Changes, returns: Mapping[str, int], hints: list[Hint]) -> None:
        """Take what was read from the database after a position."""
        if self.head is None or self.head != after:
            return
        # Who joined meanwhile, and was here before, had left: what is read may hold what was written in between.
        for socket, seat in list(self.sockets.items()) if returns else ():
            if returns.get(socket.user_id, 0) > (after if seat.is_live else seat.position):
                socket.drop_room(self.room_id)
                self._on_return(socket)
        end = hints[-1].seq if hints else after
        if changes.seq > end:
            hints = [*hints, skip_to(self.schema_name, self.room_id, after=end, seq=changes.seq)]
        self._deliver(hints)
        self._advance()

    def _advance(self) -> None:
        """Deliver what follows the head, and ask for what is missing before the rest."""
        if self.head is None or not self.pending:
            return
        run: list[Hint] = []
        position = self.head
        while (hint := self.pending.pop(position, None)) is not None:
            run.append(hint)
            position = hint.seq
        if run:
            self._deliver(run)
        if self.pending:
            for after in [after for after, hint in self.pending.items() if hint.seq <= position]:
                del self.pending[after]
            if self.pending:
                self._on_gap(self)

    def _deliver(self, hints: list[Hint]) -> None:
        for packet in packets_of(hints):
            self._send(packet)
            for user_id in packet.left:
                for socket in [socket for socket in self.sockets if socket.user_id == user_id]:
                    socket.drop_room(self.room_id)

    def _send(self, packet: Packet) -> None:
        room_id, after = self.room_id, packet.after
        text, authors, oldest = packet.text, packet.authors, packet.oldest
        self.head = packet.seq
        for socket, seat in tuple(self.live.items()):
            outbox, visible_after = socket.outbox, seat.room.visible_after_seq
            if outbox.is_full:
                socket.overflow(room_id, after)
            elif socket.user_id in authors or visible_after >= oldest:
                outbox.put(packet.text_for(socket.user_id, visible_after), room_id, after)
            else:
                outbox.put(text, room_id, after)
        for socket in tuple(self.ahead):
            seat = self.sockets[socket]
            if seat.position <= packet.seq:
                socket.set_back(seat, seat.position)
