"""What is measured, each against one contender at a time."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.rig.conductor import conducting
from benchmarks.rig.contenders import Plan
from benchmarks.rig.loads import Closed, Open
from benchmarks.rig.meters import busy_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.rig.conductor import Conductor
    from benchmarks.rig.contenders import Contender, Server, Services
    from benchmarks.rig.generator import Outcome
    from benchmarks.rig.loads import Load, Sender

Figures = dict[str, Any]
IN_FLIGHT = (1, 2, 4, 8, 16)
WORTHWHILE = 1.05
"""More messages under way are tried as long as they bring so much more."""


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of the parts of a measurement, and numbers that make a short run short."""

    probe: float
    top: float
    half: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A load's outcome with what it cost, in CPU seconds of each group of processes."""

    outcome: Outcome
    cpu: dict[str, float]
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
    """A contender that runs, with its clients connected."""

    def __init__(self, server: Server, conductor: Conductor) -> None:
        self.server = server
        self.conductor = conductor

    def measure(self, load: Load) -> Measured:
        """Carry out a load and read the meters around it."""
        meter, rows = self.server.meter, self.server.committed()
        readings = [meter.read()]
        busy, began = [busy_seconds()], time.monotonic()
        ended = [began]

        def on_settled() -> None:
            readings.append(meter.read())
            busy.append(busy_seconds())
            ended.append(time.monotonic())

        outcome = self.conductor.play(load, on_settled)
        cpu = {group: readings[-1][group] - seconds for group, seconds in readings[0].items()}
        seconds = ended[-1] - began
        others = (busy[-1] - busy[0] - sum(cpu.values())) / seconds - outcome.generator_load
        uncommitted = 0
        if self.server.contender.table is not None:
            uncommitted = max(0, outcome.acknowledged - (self.server.committed() - rows))
        return Measured(outcome, cpu, max(0.0, others), uncommitted)

    def top(self, senders: Sequence[Sender], durations: Durations, *, rate: Callable[[Outcome], float]) -> Measured:
        """The best that a closed loop brings, over the number of messages under way."""
        best, found = 0.0, IN_FLIGHT[0]
        for in_flight in IN_FLIGHT:
            tried = self.measure(Closed(tuple(senders), in_flight, durations.probe)).outcome
            # What loses is no rate to be had.
            reached = 0.0 if "lost" in tried.faults and best else rate(tried)
            if reached > best:
                found = in_flight
            if reached < best * WORTHWHILE:
                break
            best = max(best, reached)
        return self.measure(Closed(tuple(senders), found, durations.top))


class Scenario(Protocol):
    """A measurement."""

    @property
    def name(self) -> str:
        """Its letter."""

    @property
    def title(self) -> str:
        """What it shows."""

    def run(self, contender: Contender, services: Services, durations: Durations) -> Figures:
        """Measure a contender."""


class LargeRoom:
    """A: one room of 200, of whom ten write."""

    name = "A"
    title = "one room, 200 members, 10 senders"
    members, writers = 200, 10

    def run(self, contender: Contender, services: Services, durations: Durations) -> Figures:
        """Find the top rate, then time deliveries at half of it."""
        plan = Plan.of_one(self.members, [list(range(self.members))])
        with contender.serving(services, plan) as server, conducting(contender.dialect()) as conductor:
            conductor.connect(server.clients)
            stage = Stage(server, conductor)
            room = server.rooms[0][0]
            step = self.members // self.writers
            senders = tuple((client, room) for client in range(0, self.members, step))
            top = stage.top(senders, durations, rate=lambda outcome: outcome.deliveries_per_second)
            rate = top.outcome.messages_per_second / 2
            half = stage.measure(Open(senders, rate, durations.half))
            return {"top": top.figures(), "half": half.figures()}


class SmallRooms:
    """B: 200 rooms of two, all of whom write."""

    name = "B"
    title = "200 rooms of two, all sending"
    rooms = 200

    def run(self, contender: Contender, services: Services, durations: Durations) -> Figures:
        """Find the top rate."""
        plan = Plan.of_one(2 * self.rooms, [[2 * room, 2 * room + 1] for room in range(self.rooms)])
        with contender.serving(services, plan) as server, conducting(contender.dialect()) as conductor:
            conductor.connect(server.clients)
            senders = tuple((client, server.rooms[0][client // 2]) for client in range(2 * self.rooms))
            top = Stage(server, conductor).top(
                senders, durations, rate=lambda outcome: outcome.messages_per_second
            )
            return {"top": top.figures()}


SCENARIOS: tuple[Scenario, ...] = (LargeRoom(), SmallRooms())
