"""A contender that runs, with its clients connected, and what a load on it costs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.rig.conductor import conducting
from benchmarks.rig.loads import Closed
from benchmarks.rig.meters import busy_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.rig.conductor import Conductor
    from benchmarks.rig.contenders import Contender, Plan, Server, Services
    from benchmarks.rig.generator import Outcome
    from benchmarks.rig.loads import Load, Sender

Figures = dict[str, Any]
WORTHWHILE = 1.05
"""More messages under way are tried as long as they bring so much more."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load's outcome with what it cost, in CPU seconds of each group of processes."""

    outcome: Outcome
    cpu: dict[str, float]
    elapsed: float
    """Seconds in which that CPU time was used."""
    others: float
    """CPU seconds in each second that none of those measured has used: they disturb."""
    uncommitted: int
    """Acknowledged messages that aren't in the database."""

    def per(self, number: int) -> dict[str, float]:
        """Microseconds for each of so many."""
        return {group: round(seconds / max(number, 1) * 1e6, 1) for group, seconds in self.cpu.items()}

    def figures(self) -> Figures:
        """What is kept of it."""
        outcome = self.outcome
        return {
            "messages_per_second": round(outcome.messages_per_second, 1),
            "deliveries_per_second": round(outcome.deliveries_per_second, 1),
            "cpu_us_per_message": self.per(outcome.acknowledged),
            "cpu_us_per_delivery": self.per(outcome.deliveries),
            "server_load": round(self.cpu["server"] / outcome.seconds, 2),
            "others_load": round(self.others, 2),
            "uncommitted": self.uncommitted,
            **asdict(outcome),
        }


class Stage:
    """Measures one contender."""

    def __init__(self, server: Server, conductor: Conductor) -> None:
        self.server = server
        self.conductor = conductor

    def measure(self, load: Load) -> Measured:
        """Carry out a load and read the meters around it."""
        rows = self.server.committed()
        readings = [Reading.of(self.server)]
        outcome = self.conductor.play(load, lambda: readings.append(Reading.of(self.server)))
        spent = readings[-1].since(readings[0])
        others = (spent.busy - sum(spent.cpu.values())) / spent.at - outcome.generator_load
        uncommitted = 0
        if self.server.contender.table is not None:
            uncommitted = max(0, outcome.acknowledged - (self.server.committed() - rows))
        return Measured(outcome, spent.cpu, spent.at, max(0.0, others), uncommitted)

    def typical(self, load: Load, by: Callable[[Outcome], float], *, rounds: int) -> Measured:
        """Carry out a load several times and return the one in the middle: no machine is equally fast all the time."""
        measured = sorted((self.measure(load) for _ in range(rounds)), key=lambda each: by(each.outcome))
        return measured[rounds // 2]

    def rest(self, seconds: float) -> Figures:
        """Let the clients be idle; how many CPU seconds that costs in each second."""
        before = Reading.of(self.server)
        self.conductor.rest(seconds)
        spent = Reading.of(self.server).since(before)
        return {group: round(used / spent.at, 4) for group, used in spent.cpu.items()}

    def top(
        self,
        senders: Sequence[Sender],
        in_flight: Sequence[int],
        *,
        probe: float,
        seconds: float,
        rounds: int,
        rate: Callable[[Outcome], float],
    ) -> tuple[int, Measured]:
        """The best that a closed loop brings, over the number of messages that each sender has under way."""
        best, found = 0.0, in_flight[0]
        for number in in_flight:
            tried = self.typical(Closed(tuple(senders), number, probe), rate, rounds=rounds).outcome
            # A rate at which messages are lost is none, unless they always are.
            reached = 0.0 if best and "lost" in tried.faults else rate(tried)
            if reached > best:
                found = number
            if reached < best * WORTHWHILE:
                break
            best = max(best, reached)
        return found, self.typical(Closed(tuple(senders), found, seconds), rate, rounds=rounds)


@dataclass(frozen=True, slots=True)
class Reading:
    """The meters at a moment: seconds on the clock, CPU seconds of each group, and of the whole machine."""

    at: float
    cpu: dict[str, float]
    busy: float

    @classmethod
    def of(cls, server: Server) -> Reading:
        """Read them now."""
        return cls(time.monotonic(), server.meter.read(), busy_seconds())

    def since(self, earlier: Reading) -> Reading:
        """What came to it."""
        cpu = {group: seconds - earlier.cpu[group] for group, seconds in self.cpu.items()}
        return Reading(self.at - earlier.at, cpu, self.busy - earlier.busy)


@contextmanager
def staged(contender: Contender, services: Services, plan: Plan, *, is_full: bool = True) -> Iterator[Stage]:
    """Serve the people of a plan by a contender, and connect them all unless told otherwise."""
    with contender.serving(services, plan) as server, conducting(contender.dialect()) as conductor:
        if is_full:
            conductor.connect(server.clients)
        yield Stage(server, conductor)
