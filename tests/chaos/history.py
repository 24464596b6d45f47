"""What happened in a run, as those who took part in it know it: writes, changes of membership, and what was received.

Times are seconds of the runner's monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tests.chaos.frames import Entry, Shown

Outcome = Literal["acknowledged", "failed", "unknown"]
Place = tuple[str, int]
"""A tenant and the number of one of its rooms."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An acknowledgement: the message, and the place in the timeline that the write took; both 0 for a renaming."""

    message_id: int
    seq: int
    at: float


@dataclass(slots=True)
class Write:
    """What a client asked for, however often: to send, edit or delete a message, or to rename a room.

    A send is known by its client id, a renaming by the name, which nobody else gives. `unsettled` counts the attempts
    of which nobody knows what became of them.
    """

    tenant: str
    room: int
    user: str
    kind: Literal["send", "edit", "delete", "rename"]
    text: str
    invoked: float
    client_id: str = ""
    message_id: int | None = None
    answers: list[Answer] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    """Errors after which it was asked for again."""
    unsettled: int = 0

    @property
    def outcome(self) -> Outcome:
        """What the client knows of it."""
        if self.answers:
            return "acknowledged"
        return "failed" if self.refusals and not self.unsettled else "unknown"


@dataclass(slots=True)
class MemberChange:
    """Users who were added to a room or removed from it, acknowledged with the place that it took in the timeline."""

    tenant: str
    room: int
    users: frozenset[str]
    joined: bool
    invoked: float
    seq: int | None = None
    acknowledged: float | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """From here a receiver follows a room: its events go on from `seq`."""

    at: float
    room: int
    epoch: str
    seq: int
    how: Literal["hello", "ok", "limited", "reset", "added"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A receiver was told that it no longer follows a room."""

    at: float
    room: int


@dataclass(frozen=True, slots=True)
class Got:
    """A receiver got an entry of a room's timeline."""

    at: float
    entry: Entry


@dataclass(frozen=True, slots=True)
class Page:
    """A receiver read all it may see of a room's history up to the position `seq`, in one or more pages."""

    at: float
    room: int
    seq: int
    messages: tuple[Shown, ...]
    final: bool = False
    """Read for the comparison at the end; what it says doesn't count as received."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A receiver saw someone type or read, in a room."""

    at: float
    kind: str
    room: int
    user: str


@dataclass(frozen=True, slots=True)
class Told:
    """A receiver was notified of a message."""

    at: float
    room: int
    message_id: int
    text: str


Event = Started | Ended | Got | Page | Sign | Told


@dataclass(slots=True)
class Receiver:
    """All that one device of a user received, over all its connections."""

    tenant: str
    user: str
    device: int
    events: list[Event] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    lost: list[tuple[float, str]] = field(default_factory=list)
    """When connections ended, and how."""
    online: set[str] = field(default_factory=set)
    """Who was ever said to be online."""
    refused: str = ""
    """Why the server wants no further try."""
    is_complete: bool = True
    """Whether it was there at the end, connected and given the time to get everything."""

    @property
    def name(self) -> str:
        """For reports."""
        return f"{self.tenant}/{self.user}.{self.device}"


@dataclass(frozen=True, slots=True)
class Fault:
    """When something was broken on purpose.

    `excuses` says that nothing could be delivered meanwhile, `resumes` that all that waits has to be delivered soon
    after the end to everybody who stayed connected.
    """

    name: str
    began: float
    ended: float
    excuses: bool = False
    resumes: bool = False


@dataclass(slots=True)
class History:
    """A whole run."""

    members: dict[Place, frozenset[str]]
    """Who was in each room when it was made."""
    writes: list[Write] = field(default_factory=list)
    changes: list[MemberChange] = field(default_factory=list)
    receivers: list[Receiver] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
