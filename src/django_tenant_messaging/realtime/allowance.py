"""What one socket may still ask for: its own limit, and its part of those of its user, its rooms and its tenant."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from ..conf import messaging_settings
from ..exceptions import RateLimited
from ..limits import Charge, Key, Limiter, Scope

if TYPE_CHECKING:
    from ..payloads import ClientFrame
    from .socket import Socket

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""Seconds for which a socket isn't read after a refusal: ``retry_after``, within these bounds."""
_numbers = count()


class Cost(NamedTuple):
    """What a frame is charged. ``frames`` is for the socket; the rest says what else it counts for, once."""

    frames: int
    is_write: bool = False
    """Whether it counts for what the user changes."""
    is_post: bool = False
    """Whether it counts for the room and the tenant, because it makes work for all members."""

    is_read: bool = False
    """Whether it counts for what the user reads."""


UNREADABLE = Cost(5)
FREE_BYTES = 1_024
"""Largest frame whose bytes aren't counted: how many there may be of those is limited, and each costs little."""
COSTS: dict[str, Cost] = {
    "ping": Cost(1),
    "resume": Cost(5, is_read=True),
    "history": Cost(5, is_read=True),
    "revisions": Cost(5, is_read=True),
    "typing": Cost(1, is_write=True),
    "read": Cost(1, is_write=True),
    "send": Cost(1, is_write=True, is_post=True),
    "edit": Cost(1, is_write=True, is_post=True),
    "delete": Cost(1, is_write=True, is_post=True),
    "rename": Cost(1, is_write=True, is_post=True),
}
"""By the frame's type."""


class Allowance:
    """Charges a socket's frames."""

    def __init__(self, limiter: Limiter, socket: Socket) -> None:
        self._limiter = limiter
        self._socket = socket
        self._own = Key(Scope.SOCKET, socket.schema_name, str(next(_numbers)))
        self._bytes, self._reads, self._users = [
            Key(scope, socket.schema_name, socket.user_id) for scope in (Scope.BYTES, Scope.READS, Scope.USER)
        ]
        self._tenants = Key(Scope.TENANT, socket.schema_name, "")
        self._refused = 0

    def wait_for(self, size: int) -> float:
        """Charge the bytes of a frame that isn't read yet. Return 0, or the seconds after which to try again."""
        try:
            self._limiter.check([(self._bytes, size)], time.monotonic())
        except RateLimited as error:
            return error.retry_after
        return 0.0

    def spend(self, frame: ClientFrame | object) -> None:
        """Charge a frame, or what couldn't be read as one. Raises ``RateLimited`` if that is too much."""
        try:
            self._limiter.check(self._charges(frame), time.monotonic())
        except RateLimited as error:
            # The room's and the tenant's limits may be used up by others.
            self._refused += error.details["scope"] in {Scope.SOCKET, Scope.READS, Scope.USER}
            raise
        self._refused = 0

    @property
    def is_abused(self) -> bool:
        """Whether the client goes on and on although it is refused."""
        return self._refused >= messaging_settings.MAX_LIMITED_FRAMES

    def _charges(self, frame: Any) -> list[Charge]:
        cost = COSTS.get(getattr(frame, "type", ""), UNREADABLE)
        charges: list[Charge] = [(self._own, cost.frames)]
        if cost.is_read:
            charges.append((self._reads, 1))
        if cost.is_write:
            charges.append((self._users, 1))
        if cost.is_post:
            charges.append((self._tenants, 1))
            # Only of a room that the socket is in: nobody can use up the limit of others' rooms.
            if frame.room in self._socket.seats:
                charges.append((Key(Scope.ROOM, self._socket.schema_name, str(frame.room)), 1))
        return charges
