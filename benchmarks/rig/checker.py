"""Whether everybody got everything: once, in order, unaltered, and nothing else. Looked at after a load."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.rig.dialects import Delivered, Dialect, events_in
from benchmarks.rig.frames import TEXT
from benchmarks.rig.texts import number_and_time

if TYPE_CHECKING:
    from collections.abc import Iterable

Room = tuple[str, int]
"""A room of a tenant: its host name and the room's id, which other tenants have as well."""


class Sent(NamedTuple):
    """A message of the generator's. Its number is its index."""

    room: Room
    text: str


class Seen(NamedTuple):
    """A delivery as it was read. The number is -1 when the text is none of ours."""

    room: int
    place: int
    number: int
    sent_at: int


@dataclass(slots=True)
class Verdict:
    """What became of the messages of one load. Times are in nanoseconds."""

    sent: int = 0
    acknowledged: int = 0
    expected: int = 0
    deliveries: int = 0
    """Those that were due: foreign ones and repetitions don't count."""
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    foreign: int = 0
    altered: int = 0
    late: int = 0
    """Deliveries of an earlier load's messages."""
    refused: dict[str, int] = field(default_factory=dict)
    last_delivery: int = 0
    latencies: array[int] = field(default_factory=lambda: array("q"))

    @property
    def is_flawless(self) -> bool:
        """Whether every acknowledged message came to every member exactly once, in order."""
        return not (self.lost or self.duplicated or self.reordered or self.foreign or self.altered or self.late)

    def faults(self) -> dict[str, int]:
        """What went wrong, by kind."""
        kinds = ("lost", "duplicated", "reordered", "foreign", "altered", "late")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


class Check:
    """The check of one load. Give it the records as they grow; it keeps what it has seen."""

    def __init__(
        self, dialect: Dialect, messages: list[Sent], members: dict[Room, set[int]], *, first: int = 0
    ) -> None:
        self._dialect = dialect
        self._messages = messages
        self._members = members
        self._first = first
        self._known: dict[bytes, list[Seen]] = {}
        self._seen: dict[int, set[int]] = {}
        self._places: dict[tuple[int, Room], int] = {}
        self._received: Counter[int] = Counter()
        self._verdict = Verdict()

    def read(self, wire: int, host: str, frames: Iterable[tuple[int, list[tuple[int, bytes]]]]) -> None:
        """Take what a connection got: lists of opcodes and payloads, each with the time at which it came."""
        seen = self._seen.setdefault(wire, set())
        known = self._known
        for came_at, parts in frames:
            for opcode, payload in parts:
                if opcode == TEXT:
                    deliveries = known.get(payload)
                    if deliveries is None:
                        deliveries = known[payload] = self._decode(payload)
                    for delivery in deliveries:
                        self._take(wire, host, came_at, delivery, seen)

    def _decode(self, payload: bytes) -> list[Seen]:
        return [
            self._recognised(news)
            for event in events_in(payload)
            if isinstance(news := self._dialect.read(event), Delivered)
        ]

    def _recognised(self, news: Delivered) -> Seen:
        try:
            number, sent_at = number_and_time(news.text)
        except ValueError:
            return Seen(news.room, news.place, -1, 0)
        if not 0 <= number < len(self._messages):
            return Seen(news.room, news.place, -1, 0)
        if self._messages[number].text != news.text:
            self._verdict.altered += 1
        return Seen(news.room, news.place, number, sent_at)

    def _take(self, wire: int, host: str, came_at: int, delivery: Seen, seen: set[int]) -> None:
        verdict, number, room = self._verdict, delivery.number, (host, delivery.room)
        if number < 0 or self._messages[number].room != room or wire not in self._members.get(room, ()):
            verdict.foreign += 1
            return
        if number < self._first:
            verdict.late += 1
            return
        if number in seen:
            verdict.duplicated += 1
            return
        seen.add(number)
        place = wire, room
        if delivery.place <= self._places.get(place, -1):
            verdict.reordered += 1
        else:
            self._places[place] = delivery.place
        self._received[number] += 1
        verdict.deliveries += 1
        verdict.latencies.append(came_at - delivery.sent_at)
        verdict.last_delivery = max(verdict.last_delivery, came_at)

    @property
    def deliveries(self) -> int:
        """How many came so far."""
        return self._verdict.deliveries

    def missing(self, acknowledged: Iterable[int]) -> int:
        """How many deliveries of these messages haven't come."""
        return sum(len(self._members[self._messages[number].room]) - self._received[number] for number in acknowledged)

    def verdict(self, acknowledged: Iterable[int]) -> Verdict:
        """The result, if nothing more comes."""
        numbers = list(acknowledged)
        verdict = self._verdict
        verdict.sent = len(self._messages) - self._first
        verdict.acknowledged = len(numbers)
        verdict.expected = sum(len(self._members[self._messages[number].room]) for number in numbers)
        verdict.lost = self.missing(numbers)
        return verdict
