"""The load generator: a process of its own, which plays all clients of a contender and checks what they got."""

from __future__ import annotations

import gc
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.rig.checker import Check
from benchmarks.rig.frames import PING, PONG, client_frame
from benchmarks.rig.loads import Burst, Closed, Ledger, Open, player_of
from benchmarks.rig.wires import Client, LostConnectionError, Wire, Wires

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.rig.checker import Room, Verdict
    from benchmarks.rig.dialects import Dialect, News
    from benchmarks.rig.loads import Load, Player

QUIET = 0.3
PATIENCE = 6.0
POLL = 0.05


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect these clients, so many at a time."""

    clients: list[Client]
    at_once: int


@dataclass(frozen=True, slots=True)
class Connected:
    """All are connected, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Keep the connections and say only what has to be said."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Rested:
    """The idle time is over."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing more comes, as far as can be seen without a check: the moment to read the meters.

    It is said again when the check finds that something was missing, which has come since.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """A load's figures. `seconds` go from the first message to the last delivery; latencies are in milliseconds."""

    seconds: float
    sent: int
    acknowledged: int
    deliveries: int
    expected: int
    faults: dict[str, int]
    refused: dict[str, int]
    latencies: dict[str, float]
    generator_load: float
    """CPU seconds of the generator in each second. Near 1 it is the generator that is measured."""

    @property
    def deliveries_per_second(self) -> float:
        """The rate of deliveries."""
        return self.deliveries / self.seconds

    @property
    def messages_per_second(self) -> float:
        """The rate of acknowledged messages."""
        return self.acknowledged / self.seconds


@dataclass(frozen=True, slots=True)
class Failed:
    """The run can't go on."""

    reason: str


Command = Connect | Idle | Closed | Open | Burst


def generate(dialect: Dialect, pipe: Connection) -> None:
    """Carry out what comes through the pipe until it is closed, and answer each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    generator = Generator(dialect, pipe)
    try:
        while True:
            generator.carry_out(pipe.recv())
    except LostConnectionError as error:
        pipe.send(Failed(str(error)))
    except (EOFError, BrokenPipeError):
        pass  # the parent is done
    finally:
        generator.wires.close()


class Generator:
    """All clients of one server."""

    def __init__(self, dialect: Dialect, pipe: Connection) -> None:
        self.wires = Wires(dialect, self._hear)
        self._dialect = dialect
        self._pipe = pipe
        self._ledger = Ledger(self.wires)
        self._members: dict[Room, set[int]] = {}
        self._player: Player | None = None

    def carry_out(self, command: Command) -> None:
        """Do what is asked for and answer."""
        match command:
            case Connect(clients, at_once):
                seconds = self.wires.connect(clients, at_once=at_once)
                self._note_members()
                self._pipe.send(Connected(seconds))
            case Idle(seconds):
                self._rest(seconds)
                self._pipe.send(Rested())
            case Closed() | Open() | Burst():
                # What is kept for the check would be looked through again and again.
                gc.disable()
                self._pipe.send(self._play(command))
                gc.enable()

    def _note_members(self) -> None:
        for wire in self.wires.wires:
            for room in wire.client.rooms:
                self._members.setdefault((wire.client.host, room), set()).add(wire.number)

    def _hear(self, wire: Wire, news: News) -> None:
        if self._player is not None:
            self._player.hear(wire, news)

    def _rest(self, seconds: float) -> None:
        # So little comes that reading it at once costs nothing.
        self.wires.watch({wire.number for wire in self.wires.wires})
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.wires.poll(POLL)

    def _play(self, load: Load) -> Outcome:
        self.wires.watch({client for client, _ in load.senders})
        check = Check(self._dialect, self._ledger.messages, self._members, first=self._ledger.begin())
        began, cpu = time.monotonic_ns(), time.process_time()
        player = self._player = player_of(load, self.wires, self._ledger)
        while not player.is_done:
            self.wires.poll(player.wait())
            player.step()
        load_of_generator = (time.process_time() - cpu) / (time.monotonic_ns() - began) * 1e9
        verdict = self._settle(check)
        self._player = None
        return outcome_of(verdict, self._ledger, began, load_of_generator)

    def _settle(self, check: Check) -> Verdict:
        """Wait for what is still to come, until nothing is missing or nothing has come for long."""
        acknowledged = self._ledger.acknowledged
        came, since = -1, time.monotonic()
        while True:
            self._await_quiet()
            self._pipe.send(Settled())
            self._check_records(check)
            if not check.missing(acknowledged):
                break
            if check.deliveries != came:
                came, since = check.deliveries, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                break
        return check.verdict(acknowledged)

    def _await_quiet(self) -> None:
        began = time.monotonic_ns()
        while time.monotonic_ns() - max(self.wires.last_heard, began) < QUIET * 1e9:
            self.wires.poll(POLL)

    def _check_records(self, check: Check) -> None:
        for wire in self.wires.wires:
            record, wire.record = wire.record, []
            check.read(wire.number, wire.client.host, self._frames(wire, record))

    def _frames(self, wire: Wire, record: list[tuple[int, bytes]]) -> Iterator[tuple[int, list[tuple[int, bytes]]]]:
        for came_at, data in record:
            frames = wire.checked.feed(data)
            if not wire.watched:
                for opcode, payload in frames:
                    if opcode == PING:
                        self.wires.write(wire, client_frame(payload, PONG))
            yield came_at, frames


def outcome_of(verdict: Verdict, ledger: Ledger, began: int, generator_load: float) -> Outcome:
    """The figures of a load that began at that time (nanoseconds)."""
    return Outcome(
        seconds=max(verdict.last_delivery - began, 1) / 1e9,
        sent=verdict.sent,
        acknowledged=verdict.acknowledged,
        deliveries=verdict.deliveries,
        expected=verdict.expected,
        faults=verdict.faults(),
        refused=dict(ledger.refused),
        latencies=percentiles(verdict.latencies),
        generator_load=round(generator_load, 2),
    )


def percentiles(nanoseconds: array[int]) -> dict[str, float]:
    """Median, 95th and 99th percentile and the highest, in milliseconds; nothing if there are none."""
    if not nanoseconds:
        return {}
    ordered = sorted(nanoseconds)
    last = len(ordered) - 1
    places = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[round(last * share)] / 1e6, 2) for name, share in places.items()}
