"""A long run at a steady load, in which the servers' memory mustn't grow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from statistics import fmean, linear_regression
from time import monotonic
from typing import TYPE_CHECKING

import psutil

from tests.chaos.chance import chance, sleep_until
from tests.chaos.resources import MEGABYTE, memory

if TYPE_CHECKING:
    from tests.chaos.checker import Findings
    from tests.chaos.scene import Scene

SAMPLE_SECONDS = 5.0
DROP_SECONDS = 2.0
"""Between two clients that lose their connection, as clients do."""
WARM_UP_SHARE = 0.3
ALLOWED_PERCENT_PER_HOUR = 1.0
HOUR = 3600.0

Sample = tuple[float, int]
"""When, and how many bytes."""


@dataclass(slots=True)
class Soak:
    """Watches each worker's memory while clients come and go."""

    samples: dict[int, list[Sample]] = field(default_factory=dict)

    async def watch(self, scene: Scene, seconds: float) -> None:
        """Let the load go on for a time, and look at the memory."""
        processes = [psutil.Process(worker.pid) for worker in scene.stage.workers]
        began = monotonic()
        sampled = dropped = began
        while (now := monotonic()) < began + seconds:
            if now >= sampled:
                sampled += SAMPLE_SECONDS
                for process in processes:
                    held = await asyncio.to_thread(memory, process)
                    self.samples.setdefault(process.pid, []).append((now - began, held))
            if now >= dropped:
                dropped += DROP_SECONDS
                chance.choice(scene.cast.clients).drop()
            await sleep_until(min(sampled, dropped))

    def slopes(self) -> dict[str, float]:
        """By how many percent an hour each worker's memory grows after the warm-up."""
        return {f"memory of {pid}, % per hour": percent_per_hour(found) for pid, found in self.samples.items()}


def percent_per_hour(samples: list[Sample]) -> float:
    """The slope of the straight line through the samples after the warm-up, relative to their mean."""
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    slope = linear_regression([at for at, _ in warm], [held for _, held in warm]).slope
    return 100 * slope * HOUR / fmean(held for _, held in warm)


def check_growth(soak: Soak, findings: Findings) -> None:
    """Find workers whose memory grows."""
    for pid, samples in soak.samples.items():
        growth = percent_per_hour(samples)
        if growth > ALLOWED_PERCENT_PER_HOUR:
            first, last = samples[0][1] / MEGABYTE, samples[-1][1] / MEGABYTE
            findings.add("memory_grows", f"worker {pid}: {growth:.2f} % an hour, {first:.1f} to {last:.1f} MiB")
