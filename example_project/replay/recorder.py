"""Keeps what a tenant's clients received: four bytes a delivery, and each message once in a table."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from replay.checker import Entry, digest

FRAME_CACHE = 4096
BUCKETS_PER_DECADE = 200  # about 1.2 % wide
BUCKETS = 8 * BUCKETS_PER_DECADE  # 1 microsecond to 100 seconds


@dataclass(slots=True)
class Latencies:
    """A histogram of seconds with logarithmic buckets."""

    counts: array[int] = field(default_factory=lambda: array("Q", bytes(8 * BUCKETS)))
    highest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        bucket = int(math.log10(seconds * 1e6 + 1) * BUCKETS_PER_DECADE)
        self.counts[bucket if bucket < BUCKETS else BUCKETS - 1] += 1
        self.highest = max(self.highest, seconds)

    def merge(self, other: Latencies) -> None:
        """Add all of `other`."""
        self.counts = array("Q", (mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)))
        self.highest = max(self.highest, other.highest)

    def percentile(self, percent: float) -> float:
        """The seconds that `percent` of all stayed under, 0 when there are none."""
        wanted = sum(self.counts) * percent / 100
        below = 0
        for bucket, count in enumerate(self.counts):
            below += count
            if count and below >= wanted:
                return min(10 ** ((bucket + 1) / BUCKETS_PER_DECADE) / 1e6, self.highest)
        return self.highest


@dataclass(slots=True)
class Delivery:
    """A decoded message event, shared by all clients that receive the same bytes."""

    number: int
    room: int
    seq: int
    after: int
    client_id: str
    sender: str | None
    own: bool
    sent_at: float | None


@dataclass(slots=True)
class Record:
    """What one tenant's clients saw. `logs` is keyed by account and room and holds positions in `table`."""

    table: list[Entry] = field(default_factory=list)
    logs: dict[tuple[int, int], array[int]] = field(default_factory=dict)
    strays: set[str] = field(default_factory=set)
    acks: dict[str, tuple[int, int]] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    faults: list[str] = field(default_factory=list)
    deliveries: int = 0
    mislabelled: int = 0
    gaps: int = 0
    reconnects: int = 0
    dropped: int = 0
    pages: int = 0
    first_sent: float = math.inf
    last_acked: float = 0.0
    last_delivered: float = 0.0


class Recorder:
    """Decodes message events once and writes the clients' logs."""

    def __init__(self, accounts_by_room: dict[int, list[int]]) -> None:
        self.record = Record()
        self.numbers: dict[Entry, int] = {}
        self.sent_at: dict[str, float] = {}
        self._frames: dict[bytes, Delivery] = {}
        for room, accounts in accounts_by_room.items():
            for account in accounts:
                self.record.logs[account, room] = array("I")

    def cached(self, raw: bytes) -> Delivery | None:
        """The decoded form of a frame that another client received already."""
        return self._frames.get(raw)

    def decode(self, event: dict[str, Any], raw: bytes | None = None) -> Delivery:
        """Decode a message event; `raw` is remembered for the next client that receives the same bytes."""
        message = event["message"]
        sender = message["sender"] and message["sender"]["id"]
        reply = message["reply_to"]
        entry = Entry(
            event["room"],
            message["seq"],
            message["id"],
            message["client_id"],
            sender,
            digest(message["content"]),
            reply and reply["id"],
        )
        number = self.numbers.setdefault(entry, len(self.record.table))
        if number == len(self.record.table):
            self.record.table.append(entry)
        seq = event["seq"]
        delivery = Delivery(
            number,
            entry.room,
            seq,
            event.get("after", seq - 1),
            entry.client_id,
            sender,
            message["is_own_message"],
            self.sent_at.get(entry.client_id),
        )
        if raw is not None:
            if len(self._frames) >= FRAME_CACHE:
                self._frames.clear()
            self._frames[raw] = delivery
        return delivery

    def note(self, account: int, user_id: str, delivery: Delivery, live_since: float) -> None:
        """Write a delivery into the log of `account`, timed if the client was live when it was sent."""
        log = self.record.logs.get((account, delivery.room))
        if log is None:
            self.record.strays.add(delivery.client_id)
            return
        log.append(delivery.number)
        self.record.deliveries += 1
        if delivery.own is not (delivery.sender == user_id):
            self.record.mislabelled += 1
        now = self.record.last_delivered = perf_counter()
        if delivery.sent_at is not None and delivery.sent_at > live_since:
            self.record.latencies.add(now - delivery.sent_at)
