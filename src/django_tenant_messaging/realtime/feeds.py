"""A room as one process follows it: contiguous, whatever the channel layer loses, repeats or reorders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .hints import Hint, skip_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..selectors import Changes
    from .socket import Socket

MAX_PENDING = 256


class RoomFeed:
    """Holds the sockets of a room and the head up to which they were served.

    Hints go out in the order of their numbers only. One that leaves a gap waits, and ``on_gap`` is called: if the
    missing one doesn't arrive in a moment, the part between is read from the database.
    """

    __slots__ = ("_on_gap", "born", "head", "is_filling", "pending", "room_id", "schema_name", "sockets")

    def __init__(self, schema_name: str, room_id: int, on_gap: Callable[[RoomFeed], None]) -> None:
        self.schema_name = schema_name
        self.room_id = room_id
        self.head: int | None = None
        self.pending: dict[int, Hint] = {}
        self.sockets: dict[Socket, None] = {}
        self.is_filling = False
        self.born = time.monotonic()
        self._on_gap = on_gap

    def start(self, head: int) -> None:
        """Begin at a head read from the database after subscribing; a later call changes nothing."""
        if self.head is None:
            self.head = head
            self._deliver_pending()

    def is_idle(self, now: float) -> bool:
        """Say whether nobody needs the feed; one that was never started is given a minute."""
        return not self.sockets and not self.is_filling and (self.head is not None or now - self.born > 60)

    def offer(self, hint: Hint) -> None:
        """Take a hint, in whatever order they arrive."""
        if not hint.seq:
            for socket in list(self.sockets):
                socket.offer_ephemeral(hint)
        elif self.head is None or hint.after > self.head:
            if len(self.pending) < MAX_PENDING:
                self.pending[hint.after] = hint
            if self.head is not None:
                self._on_gap(self)
        elif hint.seq > self.head:
            self._deliver(hint)
            self._deliver_pending()

    def fill(self, after: int, changes: Changes, hints: list[Hint]) -> None:
        """Take what was read from the database after a position."""
        if self.head is None or self.head != after:
            return
        # Whoever joined within the part that was missed gets nothing from before.
        for hint in hints:
            for user_id in hint.joined:
                for socket in self.sockets:
                    if socket.user_id == user_id:
                        socket.advance(self.room_id, hint.seq)
        for hint in hints:
            self._deliver(hint)
        if changes.seq > self.head:
            self._deliver(skip_to(self.schema_name, self.room_id, after=self.head, seq=changes.seq))
        self._deliver_pending()

    def _deliver(self, hint: Hint) -> None:
        self.head = hint.seq
        for socket in list(self.sockets):
            socket.offer(self, hint)
        for user_id in hint.left:
            for socket in [socket for socket in self.sockets if socket.user_id == user_id]:
                socket.drop_room(self.room_id)

    def _deliver_pending(self) -> None:
        assert self.head is not None  # noqa: S101 - callers have set it
        for after in [after for after, hint in self.pending.items() if hint.seq <= self.head]:
            del self.pending[after]
        while (hint := self.pending.pop(self.head, None)) is not None:
            self._deliver(hint)
