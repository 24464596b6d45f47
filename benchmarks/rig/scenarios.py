"""What is measured, each against one contender at a time."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Protocol

from benchmarks.rig.contenders import Ours, Plan, Tenant
from benchmarks.rig.flood import flooding
from benchmarks.rig.loads import Burst, Open
from benchmarks.rig.progress import tell
from benchmarks.rig.stage import staged

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rig.contenders import Contender, Services
    from benchmarks.rig.stage import Figures, Stage

KIB = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """How long and how large a run is. Durations in seconds."""

    probe: float
    """Each try of a number of messages under way, of which there are as many as rounds."""
    load: float
    """Each measurement."""
    warm_up: float
    """Before the cost of a message among tenants is measured, at least."""
    idle: float
    """Longer than the intervals of what is done again and again, so that each of it is in."""
    in_flight: tuple[int, ...]
    """Numbers of messages that each sender has under way, as far as more bring more."""
    members: int
    """Of the large room."""
    rooms: int
    """Small ones."""
    burst: int
    sockets: int
    many_sockets: int
    tenants: tuple[int, ...]
    stored: tuple[int, ...]
    rounds: int
    """How often what varies most is measured: the one in the middle counts."""


FULL = Size(
    probe=1,
    load=5,
    warm_up=10,
    idle=26,
    in_flight=(1, 2, 4, 8, 16),
    members=200,
    rooms=200,
    burst=1_000,
    sockets=2_000,
    many_sockets=10_000,
    tenants=(1, 10, 100, 1_000),
    stored=(1_000, 10_000, 100_000, 1_000_000),
    rounds=3,
)
QUICK = Size(
    probe=0.5,
    load=1,
    warm_up=0.5,
    idle=2,
    in_flight=(1, 2),
    members=50,
    rooms=20,
    burst=1_000,
    sockets=100,
    many_sockets=0,
    tenants=(1, 10),
    stored=(1_000, 10_000),
    rounds=1,
)


class Scenario(Protocol):
    """A measurement."""

    @property
    def name(self) -> str:
        """Its letter."""

    def title(self, size: Size) -> str:
        """What it shows."""

    def wants(self, contender: Contender) -> bool:
        """Whether the contender is measured."""

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Measure a contender."""


class LargeRoom:
    """A: many members, of whom ten write."""

    name = "A"
    writers = 10

    def title(self, size: Size) -> str:
        """What it shows."""
        return f"one room of {size.members} members, {self.writers} of them send"

    def wants(self, contender: Contender) -> bool:  # noqa: ARG002 - all
        """All."""
        return True

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Find the top rate, then time deliveries at half of it."""
        plan = Plan.of_one(size.members, [list(range(size.members))])
        with staged(contender, services, plan) as stage:
            room = stage.server.rooms[0][0]
            senders = tuple((client, room) for client in range(0, size.members, size.members // self.writers))
            in_flight, top = stage.top(
                senders,
                size.in_flight,
                probe=size.probe,
                seconds=size.load,
                rounds=size.rounds,
                rate=lambda outcome: outcome.deliveries_per_second,
            )
            load = Open(senders, top.outcome.messages_per_second / 2, size.load)
            half = stage.typical(load, lambda outcome: outcome.latencies.get("p99", 0.0), rounds=size.rounds)
            return {"in_flight": in_flight, "top": top.figures(), "half": half.figures()}


class SmallRooms:
    """B: rooms of two, all of whom write."""

    name = "B"
    most_in_flight = 4
    """More would only wait: with one each there are as many as members."""

    def title(self, size: Size) -> str:
        """What it shows."""
        return f"{size.rooms} rooms of two members, all of them send"

    def wants(self, contender: Contender) -> bool:  # noqa: ARG002 - all
        """All."""
        return True

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Find the top rate."""
        plan = Plan.of_one(2 * size.rooms, [[2 * room, 2 * room + 1] for room in range(size.rooms)])
        with staged(contender, services, plan) as stage:
            senders = [(client, stage.server.rooms[0][client // 2]) for client in range(2 * size.rooms)]
            in_flight, top = stage.top(
                senders,
                [number for number in size.in_flight if number <= self.most_in_flight],
                probe=size.probe,
                seconds=size.load,
                rounds=size.rounds,
                rate=lambda outcome: outcome.messages_per_second,
            )
            return {"in_flight": in_flight, "top": top.figures()}


class BurstOfMessages:
    """C: a thousand messages at once."""

    name = "C"
    members, writers = 50, 10

    def title(self, size: Size) -> str:
        """What it shows."""
        return f"{size.burst:,} messages at once into a room of {self.members} members"

    def wants(self, contender: Contender) -> bool:  # noqa: ARG002 - all
        """All."""
        return True

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Send them and wait until nothing more comes."""
        plan = Plan.of_one(self.members, [list(range(self.members))])
        with staged(contender, services, plan) as stage:
            room = stage.server.rooms[0][0]
            senders = tuple((client, room) for client in range(self.writers))
            # What is loaded at the first message of all isn't part of a burst.
            stage.measure(Burst(senders, self.writers))
            burst = stage.measure(Burst(senders, size.burst))
            return {"messages": size.burst, "burst": burst.figures()}


class IdleSockets:
    """D: sockets on which nothing happens."""

    name = "D"
    members = 20
    warm_up = 40
    """Sockets that are there before memory is measured: the first ones load what all use."""
    settle = 3.0

    def title(self, size: Size) -> str:
        """What it shows."""
        return f"{size.sockets:,} idle sockets, in rooms of {self.members} members"

    def wants(self, contender: Contender) -> bool:
        """Those that differ in what a socket costs."""
        return contender.name in {"limit", "tutorial-daphne-core", "tutorial-uvicorn-pubsub", "ours"}

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Connect, and let them be."""
        figures = self._hold(contender, services, size.sockets, size.idle)
        rates = [self._hold(contender, services, size.sockets)["connects_per_second"] for _ in range(size.rounds - 1)]
        figures["connects_per_second"] = median([figures["connects_per_second"], *rates])
        if contender.name == "ours" and size.many_sockets:
            figures["many"] = self._hold(contender, services, size.many_sockets, size.idle)
        return figures

    def _hold(self, contender: Contender, services: Services, sockets: int, idle: float = 0) -> Figures:
        users = self.warm_up + sockets
        rooms = [list(range(first, min(first + self.members, users))) for first in range(0, users, self.members)]
        with staged(contender, services, Plan.of_one(users, rooms), is_full=False) as stage:
            clients = stage.server.clients
            stage.conductor.connect(clients[: self.warm_up])
            stage.rest(self.settle)
            before = stage.server.memory()
            seconds = stage.conductor.connect(clients[self.warm_up :])
            figures: Figures = {"sockets": sockets, "connects_per_second": round(sockets / seconds, 1)}
            if idle:
                stage.rest(self.settle)
                figures["kib_per_socket"] = round((stage.server.memory() - before) / sockets / KIB, 1)
                figures["idle_cpu"] = stage.rest(idle)
            return figures


class Flatness:
    """E: whether a message costs the same however many tenants, and however many messages, there are."""

    name = "E"
    rate = 150
    familiar = 8
    """Messages of each tenant before the cost is measured: by then the thread that serves it knows its tables."""
    members, writers = 10, 2

    def title(self, size: Size) -> str:  # noqa: ARG002 - it's in the tables
        """What it shows."""
        return f"the cost of a message among more tenants and after more messages, at {self.rate} messages/s"

    def wants(self, contender: Contender) -> bool:
        """Ours alone: the others aren't asked to scale."""
        return contender.name == "ours"

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Measure both. Of the rounds through all numbers of tenants the one in which the cost grew middlingly counts:
        figures of two rounds differ more by what else the machine does than by the number.
        """
        rounds = [
            {str(number): self._among(number, contender, services, size) for number in size.tenants}
            for _ in range(size.rounds)
        ]
        return {"tenants": _middle(rounds, _growth), "stored": self._after(contender, services, size)}

    def _among(self, number: int, contender: Contender, services: Services, size: Size) -> Figures:
        """The cost in so many tenants: always as many rooms and sockets, spread over them."""
        rooms = max(size.tenants) // number
        pairs = tuple((2 * room, 2 * room + 1) for room in range(rooms))
        plan = Plan(tuple(Tenant(2 * rooms, pairs) for _ in range(number)))
        with staged(contender, services, plan) as stage:
            senders = [
                (2 * (tenant * rooms + place), room)
                for tenant, ids in enumerate(stage.server.rooms)
                for place, room in enumerate(ids)
            ]
            stage.measure(Open(tuple(senders), self.rate, max(size.warm_up, self.familiar * number / self.rate)))
            idle = stage.rest(size.idle)
            cost = self._cost(stage, senders, size.idle, idle)
            tell(f"{self.name}  {number:,} tenants: {cost['cpu_us_per_message']['all']:,.0f} us/message")
            return {**cost, "idle_cpu": idle}

    def _after(self, contender: Contender, services: Services, size: Size) -> Figures:
        """The cost in rooms that hold so many messages, measured in turn, so that a busy machine hits all alike."""
        everybody = (tuple(range(self.members)),)
        plan = Plan(tuple(Tenant(self.members, everybody, stored) for stored in size.stored), prefix="stored")
        with staged(contender, services, plan) as stage:
            found: dict[int, list[Figures]] = {stored: [] for stored in size.stored}
            for turn in range(size.rounds + 1):
                for tenant, stored in enumerate(size.stored):
                    room = stage.server.rooms[tenant][0]
                    senders = [(tenant * self.members + writer, room) for writer in range(self.writers)]
                    cost = self._cost(stage, senders, size.load if turn else size.probe)
                    tell(f"{self.name}  {stored:,} stored: {cost['cpu_us_per_message']['all']:,.0f} us/message")
                    # The first turn fills caches and is left out.
                    found[stored] += [cost] if turn else []
            return {str(stored): _middle(costs, _all_of_it) for stored, costs in found.items()}

    def _cost(
        self, stage: Stage, senders: list[tuple[int, int]], seconds: float, idle: Figures | None = None
    ) -> Figures:
        """What a message costs, with all that goes on meanwhile, and without what goes on anyway, if that is known."""
        measured = stage.measure(Open(tuple(senders), self.rate, seconds))
        number = max(measured.outcome.acknowledged, 1)
        each = measured.per(number)
        costs = {**each, "all": round(sum(each.values()), 1)}
        if idle is not None:
            costs["itself"] = round(costs["all"] - sum(idle.values()) * measured.elapsed / number * 1e6, 1)
        return {
            "cpu_us_per_message": costs,
            "faults": measured.outcome.faults,
            "refused": measured.outcome.refused,
            "uncommitted": measured.uncommitted,
            "latencies": measured.outcome.latencies,
        }


class Flood:
    """F: what everybody else notices of one who sends far more than they may."""

    name = "F"
    rooms, members = 20, 10
    rate = 50
    """Messages/s of all others of a tenant."""
    sockets = 4
    frames_per_second = 1_000

    def title(self, size: Size) -> str:  # noqa: ARG002 - it's the same in all sizes
        """What it shows."""
        return f"the time to delivery for others while one user sends {self.frames_per_second:,} messages/s"

    def wants(self, contender: Contender) -> bool:
        """Ours alone: the others have no limits."""
        return contender.name == "ours"

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:  # noqa: ARG002 - with limits here
        """Measure in the tenant of the one and in another, before and meanwhile; the round in the middle counts."""
        limited = Ours(settings="benchmarks.limited_settings")
        first = [range(room * self.members, (room + 1) * self.members) for room in range(self.rooms)]
        tenant = Tenant(self.rooms * self.members, tuple(tuple(members) for members in first))
        with staged(limited, services, Plan((tenant, tenant)), is_full=False) as stage:
            quiet = [client for client in stage.server.clients if client.rooms != stage.server.clients[0].rooms]
            stage.conductor.connect(quiet)
            half = [
                [
                    (place, client.rooms[0])
                    for place, client in enumerate(quiet)
                    if client.host == host and not place % (self.members // 2)
                ]
                for host in dict.fromkeys(client.host for client in quiet)
            ]
            rounds = []
            for _ in range(size.rounds):
                before = self._times(stage, half, size.load)
                with flooding(
                    limited.dialect(),
                    stage.server.clients[0],
                    sockets=self.sockets,
                    frames_per_second=self.frames_per_second,
                ) as counts:
                    rounds.append({"before": before, "meanwhile": self._times(stage, half, size.load), "flood": counts})
            return _middle(rounds, _slowdown)

    def _times(self, stage: Stage, senders: list[list[tuple[int, int]]], seconds: float) -> Figures:
        figures = {}
        for whose, of_tenant in zip(("same", "another"), senders, strict=True):
            figures[whose] = stage.measure(Open(tuple(of_tenant), self.rate, seconds)).figures()
        return figures


class Everyday:
    """G: what a message costs at a rate at which hardly two of them meet, as on most sites at most times."""

    name = "G"
    rate = 100
    familiar = 8
    """Messages of each tenant before the cost is measured."""

    def title(self, size: Size) -> str:
        """What it shows."""
        return (
            f"an everyday message: {self.rate} messages/s over {size.rooms} rooms of two, in one tenant and in as many"
        )

    def wants(self, contender: Contender) -> bool:
        """All but those that differ only where much is sent."""
        return contender.name != "ours-2"

    def run(self, contender: Contender, services: Services, size: Size) -> Figures:
        """Measure all rooms in one tenant, then each in a tenant of its own."""
        one = Tenant(2 * size.rooms, tuple((2 * room, 2 * room + 1) for room in range(size.rooms)))
        pair = Tenant(2, ((0, 1),))
        return {
            "one": self._measured(contender, services, size, Plan((one,))),
            "spread": self._measured(contender, services, size, Plan((pair,) * size.rooms)),
        }

    def _measured(self, contender: Contender, services: Services, size: Size, plan: Plan) -> Figures:
        with staged(contender, services, plan) as stage:
            rooms = [room for ids in stage.server.rooms for room in ids]
            senders = tuple((2 * place, room) for place, room in enumerate(rooms))
            stage.measure(Open(senders, self.rate, max(size.warm_up, self.familiar * len(plan.tenants) / self.rate)))
            load = Open(senders, self.rate, size.load)
            return stage.typical(load, lambda outcome: outcome.latencies.get("p50", 0.0), rounds=size.rounds).figures()


def _slowdown(figures: Figures) -> float:
    """How much longer a flood made the others wait, where it was most."""
    before, meanwhile = figures["before"], figures["meanwhile"]
    return max(float(meanwhile[whose]["latencies"]["p50"] / before[whose]["latencies"]["p50"]) for whose in before)


def _growth(tenants: Figures) -> float:
    """How much more a message costs among more tenants, where it is most."""
    first, *others = (_all_of_it(cost) for cost in tenants.values())
    return max(others) / first


def _all_of_it(cost: Figures) -> float:
    return float(cost["cpu_us_per_message"]["all"])


def _middle(rounds: list[Figures], by: Callable[[Figures], float]) -> Figures:
    """The round in the middle."""
    return sorted(rounds, key=by)[(len(rounds) - 1) // 2]


SCENARIOS: tuple[Scenario, ...] = (
    LargeRoom(),
    SmallRooms(),
    BurstOfMessages(),
    IdleSockets(),
    Flatness(),
    Flood(),
    Everyday(),
)
