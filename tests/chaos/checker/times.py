"""How long entries took from their commit to each receiver, and how soon all was well after a fault."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from tests.chaos.history import Ended, Got

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.checker.findings import Findings
    from tests.chaos.checker.timeline import Timeline
    from tests.chaos.history import History, Place, Receiver

PROMPT = 0.5
"""Seconds within which a delivery isn't called late."""
AFTERMATH = 10.0
"""Seconds after a fault in which late deliveries are put down to it."""

Committed = dict["Place", dict[int, float]]


@dataclass(slots=True)
class Times:
    """Seconds. `calm` holds those of deliveries while nothing was broken, `recoveries` for each fault how long after
    its end the last delivery of what waited came.
    """

    calm: list[float] = field(default_factory=list)
    worst: float = 0.0
    worst_is: str = ""
    """Which delivery that was."""
    removals: list[float] = field(default_factory=list)
    """From a removal's acknowledgement until a client that was connected was told."""
    recoveries: dict[str, list[float]] = field(default_factory=dict)

    def percentile(self, share: float) -> float:
        """A percentile of the calm deliveries."""
        ordered = sorted(self.calm)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Measuring:
    """Goes through all deliveries of a run."""

    def __init__(self, history: History, findings: Findings, latest: float, soon: float) -> None:
        self.times = Times()
        self._findings = findings
        self._latest = latest
        self._soon = soon
        self._faults = sorted(history.faults, key=lambda fault: fault.began)
        begins = [fault.began for fault in self._faults]
        # What comes late after a fault is put down to it until the next one begins.
        self._until = {
            fault: min([fault.ended + AFTERMATH, *(began for began in begins if began > fault.ended)])
            for fault in self._faults
        }
        self._ends = dict.fromkeys(self._faults, 0.0)

    def take(self, receiver: Receiver, event: Got, committed: float) -> None:
        """Measure one delivery."""
        where = f"{receiver.name} room {event.entry.room}: {event.entry.seq}"
        possible = max(committed, _returned(receiver, event.at))
        is_calm = True
        for fault in self._faults:
            if fault.began <= event.at and committed <= fault.ended:
                if event.at > fault.ended and event.at - committed > PROMPT:
                    self._ends[fault] = max(self._ends[fault], min(event.at, self._until[fault]) - fault.ended)
                if fault.excuses:
                    possible = max(possible, min(fault.ended, event.at))
            is_calm &= not fault.began <= event.at < self._until[fault]
        if is_calm:
            self.times.calm.append(event.at - possible)
        for fault in self._faults:
            if fault.resumes and event.at - max(possible, fault.ended) > self._soon:
                text = f"{where} came {event.at - fault.ended:.1f} s after {fault.name}"
                self._findings.add("slow_recovery", text)
        if event.at - possible > self.times.worst:
            began = [
                f"{event.at - fault.began:.1f} s after {fault.name} began"
                for fault in self._faults
                if fault.began < event.at
            ]
            self.times.worst, self.times.worst_is = event.at - possible, f"{where} {''.join(began[-1:])}"
        if event.at - possible > self._latest:
            self._findings.add("late", f"{where} came after {event.at - possible:.1f} s")

    def finish(self) -> Times:
        """All that was measured."""
        for fault, seconds in self._ends.items():
            self.times.recoveries.setdefault(fault.name, []).append(seconds)
        return self.times


def check_times(
    history: History, timelines: dict[Place, Timeline], findings: Findings, *, latest: float, soon: float
) -> Times:
    """Measure every delivery, and find those that took too long."""
    measuring, committed = _Measuring(history, findings, latest, soon), _commit_times(history, timelines)
    for receiver in history.receivers:
        for event in receiver.events:
            if isinstance(event, Got):
                known = committed.get((receiver.tenant, event.entry.room), {}).get(event.entry.seq)
                if known is not None:
                    measuring.take(receiver, event, known)
    times = measuring.finish()
    times.removals = list(_removals(history))
    return times


def _removals(history: History) -> Iterator[float]:
    for change in history.changes:
        if change.joined or change.acknowledged is None:
            continue
        for receiver in history.receivers:
            if receiver.tenant == change.tenant and receiver.user in change.users:
                told = [
                    event.at
                    for event in receiver.events
                    if isinstance(event, Ended) and event.room == change.room and event.at >= change.invoked
                ]
                if told and _returned(receiver, told[0]) < change.invoked:
                    yield max(0.0, told[0] - change.acknowledged)


def _returned(receiver: Receiver, at: float) -> float:
    """When the receiver's connection began on which it got something."""
    place = bisect_right(receiver.resumed, at)
    return receiver.resumed[place - 1] if place else -inf


def _commit_times(history: History, timelines: dict[Place, Timeline]) -> Committed:
    """When each number was first known to be committed: by an answer, or because somebody had got it."""
    times = {place: dict(timeline.committed) for place, timeline in timelines.items()}
    for receiver in history.receivers:
        for event in receiver.events:
            if isinstance(event, Got):
                known = times.get((receiver.tenant, event.entry.room))
                if known is not None:
                    known[event.entry.seq] = min(event.at, known.get(event.entry.seq, event.at))
    return times
