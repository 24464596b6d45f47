"""What waits for all sockets of one user in a process, together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..conf import messaging_settings

if TYPE_CHECKING:
    from .outbox import Outbox


class Backlog:
    """Counts the bytes of memory that texts take which wait in a user's outboxes, or on their way to clients that
    don't read.

    Nothing more is read from the database for a user for whom ``USER_QUEUE_BYTES`` wait. Live events go on: they are
    bounded for each socket, and are the same texts for all members of a room.
    """

    __slots__ = ("__weakref__", "_most", "_waiting", "bytes", "reading")

    def __init__(self) -> None:
        self.bytes = 0
        self._most = messaging_settings.USER_QUEUE_BYTES
        self._waiting: set[Outbox] = set()
        self.reading = asyncio.Lock()
        """Held while something is read from the database for one of the sockets, until what was read is counted."""

    @property
    def is_full(self) -> bool:
        """Whether more waits than a user's sockets may be behind."""
        return self.bytes >= self._most

    def freed(self, size: int) -> None:
        """Count bytes that wait no more, and let those go on for whom there is room again."""
        self.bytes -= size
        if self._waiting and not self.is_full:
            waiting, self._waiting = self._waiting, set()
            for outbox in waiting:
                outbox.tell_room()

    def wakes(self, outbox: Outbox) -> None:
        """Tell an outbox when there is room."""
        self._waiting.add(outbox)

    def forget(self, outbox: Outbox) -> None:
        """An outbox waits no more."""
        self._waiting.discard(outbox)
