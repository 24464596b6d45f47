"""A worker whose clock is wrong."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from tests.chaos.nemeses.registry import nemesis

if TYPE_CHECKING:
    from tests.chaos.scene import Scene
    from tests.harness.server import Server

AHEAD_SECONDS = 62
LASTS_SECONDS = 15.0


@nemesis("clock-ahead", "A worker's clock 62 s ahead", touches="workers")
async def ahead(scene: Scene) -> None:
    worker = scene.some_worker()
    with scene.fault("clock-ahead"):
        await _restart(worker, str(AHEAD_SECONDS))
        await asyncio.sleep(LASTS_SECONDS)
        await _restart(worker, "0")


async def _restart(worker: Server, offset: str) -> None:
    worker._env["CHAOS_CLOCK_OFFSET"] = offset
    await asyncio.to_thread(worker.stop, signal.SIGTERM)
    await asyncio.to_thread(worker.start)
