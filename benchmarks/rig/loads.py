"""The ways to send: as fast as answers come, at a rate, or all at once."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from benchmarks.rig.checker import Sent
from benchmarks.rig.dialects import Acknowledged, Delivered, Refused
from benchmarks.rig.texts import number_and_time, text_of

if TYPE_CHECKING:
    from benchmarks.rig.dialects import News
    from benchmarks.rig.wires import Wire, Wires

PATIENCE = 20.0
"""Seconds after which an answer is no longer expected."""
TICK = 0.25
Sender = tuple[int, int]
"""The number of a client, and the id of the room that it writes to."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Each sender keeps `in_flight` messages under way, for some seconds.

    A message is under way until its sender has the acknowledgement and its own copy: a server that acknowledges
    faster than it delivers gains nothing.
    """

    senders: tuple[Sender, ...]
    in_flight: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """All senders together send `rate` messages/s at random moments, for some seconds, whatever the server does."""

    senders: tuple[Sender, ...]
    rate: float
    seconds: float
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Burst:
    """All senders send their share of `messages` at once."""

    senders: tuple[Sender, ...]
    messages: int


Load = Closed | Open | Burst


class Ledger:
    """What was sent and what became of it, over all loads of a run."""

    def __init__(self, wires: Wires) -> None:
        self.messages: list[Sent] = []
        self.acknowledged: set[int] = set()
        self.unanswered: set[int] = set()
        self.refused: Counter[str] = Counter()
        self.first = 0
        self._wires = wires

    def send(self, sender: Sender, sent_at: int) -> int:
        """Send a message, which says it was sent at that time, and return its number."""
        number, frame = self.write(sender, sent_at)
        self._wires.say(self._wires.wires[sender[0]], frame)
        return number

    def write(self, sender: Sender, sent_at: int) -> tuple[int, str]:
        """Write a message down as about to be sent; its number and its frame."""
        wire, room = self._wires.wires[sender[0]], sender[1]
        number = len(self.messages)
        text = text_of(number, sent_at)
        self.messages.append(Sent((wire.client.host, room), text))
        self.unanswered.add(number)
        return number, self._wires.dialect.send(number, room, text)

    def begin(self) -> int:
        """Begin another load: what was before counts no more. Returns the number of its first message."""
        self.first = len(self.messages)
        self.acknowledged.clear()
        self.unanswered.clear()
        self.refused.clear()
        return self.first

    def hear(self, news: News) -> None:
        """Note an answer."""
        match news:
            case Acknowledged(number) if number >= self.first:
                self.acknowledged.add(number)
                self.unanswered.discard(number)
            case Refused(number, reason):
                self.refused[reason] += 1
                if number is not None:
                    self.unanswered.discard(number)


class Player(Protocol):
    """A load that is being carried out."""

    def wait(self) -> float:
        """Seconds until `step` has something to do."""

    def step(self) -> None:
        """Do what is due."""

    def hear(self, wire: Wire, news: News, /) -> None:
        """A sender got something."""

    @property
    def is_done(self) -> bool:
        """Whether everything was sent and answered, or won't be any more."""


class ClosedPlayer:
    """Plays `Closed`."""

    def __init__(self, load: Closed, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: dict[int, Sender] = {}
        self._copied: set[int] = set()
        self._ends = time.monotonic() + load.seconds
        self._overdue: deque[tuple[float, int]] = deque()
        for _ in range(load.in_flight):
            for sender in load.senders:
                self._send(sender)

    def _send(self, sender: Sender) -> None:
        number = self._ledger.send(sender, time.monotonic_ns())
        self._under_way[number] = sender
        self._overdue.append((time.monotonic() + PATIENCE, number))

    def wait(self) -> float:
        """Now and then something is given up."""
        return TICK

    def step(self) -> None:
        """Give up what is overdue, and let its sender go on."""
        now = time.monotonic()
        while self._overdue and self._overdue[0][0] < now:
            self._go_on(self._overdue.popleft()[1])

    def hear(self, wire: Wire, news: News, /) -> None:
        """The next message follows one that is done."""
        self._ledger.hear(news)
        match news:
            case Delivered(_, _, text):
                number = number_and_time(text)[0]
                sender = self._under_way.get(number)
                if sender is not None and sender[0] == wire.number:
                    self._copied.add(number)
                    if number not in self._ledger.unanswered:
                        self._go_on(number)
            case Acknowledged(number) if number in self._copied:
                self._go_on(number)
            case Refused(int(number), _):
                self._go_on(number)

    def _go_on(self, number: int) -> None:
        self._copied.discard(number)
        sender = self._under_way.pop(number, None)
        if sender is not None and time.monotonic() < self._ends:
            self._send(sender)

    @property
    def is_done(self) -> bool:
        """Whether the time is over and nothing is under way."""
        return not self._under_way and time.monotonic() >= self._ends


class OpenPlayer:
    """Plays `Open`. A message counts as sent when it was due: a generator that is late makes nobody look better."""

    def __init__(self, load: Open, ledger: Ledger) -> None:
        self._ledger = ledger
        self._random = random.Random(load.seed)  # noqa: S311 - repeatable, not secret
        self._rate = load.rate
        self._senders = load.senders
        self._due = time.monotonic_ns()
        self._ends = self._due + int(load.seconds * 1e9)
        self._turn = 0

    def wait(self) -> float:
        """Until the next message."""
        return TICK if self._due >= self._ends else max(0.0, (self._due - time.monotonic_ns()) / 1e9)

    def step(self) -> None:
        """Send all that is due."""
        while self._due < self._ends and self._due <= time.monotonic_ns():
            sender = self._senders[self._turn % len(self._senders)]
            self._turn += 1
            self._ledger.send(sender, self._due)
            self._due += int(self._random.expovariate(self._rate) * 1e9)

    def hear(self, _wire: Wire, news: News, /) -> None:
        """Acknowledgements are all that matters."""
        if not isinstance(news, Delivered):
            self._ledger.hear(news)

    @property
    def is_done(self) -> bool:
        """Whether everything was sent and answered, or the patience is over."""
        now = time.monotonic_ns()
        if now < self._ends:
            return False
        return not self._ledger.unanswered or now > self._ends + PATIENCE * 1e9


class BurstPlayer:
    """Plays `Burst`."""

    def __init__(self, load: Burst, wires: Wires, ledger: Ledger) -> None:
        self._ledger = ledger
        now = time.monotonic_ns()
        frames: dict[int, list[str]] = {}
        for number in range(load.messages):
            sender = load.senders[number % len(load.senders)]
            frames.setdefault(sender[0], []).append(ledger.write(sender, now)[1])
        for number, texts in frames.items():
            wires.say(wires.wires[number], *texts)
        self._last_news = time.monotonic()

    def wait(self) -> float:
        """Nothing is left to do."""
        return TICK

    def step(self) -> None:
        """Nothing is left to do."""

    def hear(self, _wire: Wire, news: News, /) -> None:
        """Acknowledgements are all that matters."""
        self._last_news = time.monotonic()
        if not isinstance(news, Delivered):
            self._ledger.hear(news)

    @property
    def is_done(self) -> bool:
        """Whether everything was answered, or nothing has come for long."""
        return not self._ledger.unanswered or time.monotonic() > self._last_news + PATIENCE


def player_of(load: Load, wires: Wires, ledger: Ledger) -> Player:
    """Begin to carry out a load."""
    match load:
        case Closed():
            return ClosedPlayer(load, ledger)
        case Open():
            return OpenPlayer(load, ledger)
        case Burst():
            return BurstPlayer(load, wires, ledger)
