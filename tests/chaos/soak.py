"""A long run at a steady load, in which the servers' memory mustn't grow."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field
from statistics import fmean, linear_regression
from time import monotonic
from typing import TYPE_CHECKING

import psutil

from tests.chaos.chance import chance, sleep_until
from tests.chaos.heap import ask_heap
from tests.chaos.resources import MEGABYTE, memory

if TYPE_CHECKING:
    from tests.chaos.checker import Findings
    from tests.chaos.scene import Scene

SAMPLE_SECONDS = 5.0
DROP_SECONDS = 2.0
"""Between two clients that lose their connection, as clients do."""
WARM_UP_SHARE = 0.3
"""Of the time, in which crowds of all sizes lose their connections instead of one client: what servers and libraries
keep for later, up to a bound, they have then. The database's driver keeps the texts of 128 statements, for example, of
which those about several clients differ by their number."""
ALLOWED_PERCENT_PER_HOUR = 1.0
HOUR = 3600.0

Sample = tuple[float, int]
"""When, and how much."""
HELD = ("allocated", "blocks")
"""Bytes by malloc and Python's small blocks, after a collection: what may not grow. What the operating system counts as
the process's own contains besides what both keep for later, and is noted."""


@dataclass(slots=True)
class Soak:
    """Watches the workers' memory while clients come and go.

    What all of them hold together is judged: a client that comes back may do so to another worker, and takes its memory
    along.
    """

    samples: dict[tuple[int, str], list[Sample]] = field(default_factory=dict)
    """By process id, and by what was counted."""

    async def watch(self, scene: Scene, seconds: float) -> None:
        """Let the load go on for a time, and look at the memory."""
        processes = [psutil.Process(worker.pid) for worker in scene.stage.workers]
        began = monotonic()
        sampled = dropped = began
        while (now := monotonic()) < began + seconds:
            if now >= sampled:
                sampled += SAMPLE_SECONDS
                for process in processes:
                    heap = await asyncio.to_thread(ask_heap, scene.stage.folder, process.pid)
                    counted = {**asdict(heap), "memory": await asyncio.to_thread(memory, process)}
                    for what, number in counted.items():
                        self.samples.setdefault((process.pid, what), []).append((now - began, number))
            if now >= dropped:
                dropped += DROP_SECONDS
                clients = scene.cast.clients
                crowd = chance.randint(1, len(clients)) if now < began + seconds * WARM_UP_SHARE else 1
                for client in chance.sample(clients, crowd):
                    client.drop()
            await sleep_until(min(sampled, dropped))

    def held(self) -> dict[str, list[Sample]]:
        """What all workers together have of each that may not grow; nothing when nothing was watched."""
        found: dict[str, list[Sample]] = {}
        for what in HELD:
            of_each = [samples for (_pid, one), samples in self.samples.items() if one == what]
            if of_each:
                rounds = zip(*of_each, strict=True)
                found[what] = [(workers[0][0], sum(number for _at, number in workers)) for workers in rounds]
        return found

    def notes(self) -> dict[str, float]:
        """By how many percent an hour each grows after the warm-up, and what the operating system counts, in MiB."""
        notes = {f"{what} of all, % per hour": percent_per_hour(found) for what, found in self.held().items()}
        for (pid, what), found in self.samples.items():
            notes[f"{what} of {pid}, % per hour"] = percent_per_hour(found)
        for (pid, what), found in self.samples.items():
            if what == "memory":
                for at, number in found[:: max(1, len(found) // 6)]:
                    notes[f"memory of {pid} after {at / 60:.0f} min, MiB"] = number / MEGABYTE
        return notes


def percent_per_hour(samples: list[Sample]) -> float:
    """The slope of the straight line through the samples after the warm-up, relative to their mean."""
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    slope = linear_regression([at for at, _ in warm], [held for _, held in warm]).slope
    return 100 * slope * HOUR / fmean(held for _, held in warm)


def check_growth(soak: Soak, findings: Findings) -> None:
    """Find that the workers hold more and more."""
    for what, samples in soak.held().items():
        growth = percent_per_hour(samples)
        if growth > ALLOWED_PERCENT_PER_HOUR:
            first, last = samples[0][1], samples[-1][1]
            findings.add("memory_grows", f"{what}: {growth:.2f} % an hour, {first:,} to {last:,}")
