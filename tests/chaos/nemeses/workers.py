"""Workers that die, hang, or are replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from tests.chaos.nemeses.registry import nemesis

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

HANG_SECONDS = 10.0


@nemesis("worker-kill", "SIGKILL of a worker", touches="workers")
async def kill(scene: Scene) -> None:
    worker = scene.some_worker()
    with scene.fault("worker-kill"):
        await asyncio.to_thread(worker.stop, signal.SIGKILL)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(worker.start)


@nemesis("worker-hang", "SIGSTOP of a worker for 10 s", touches="workers")
async def hang(scene: Scene) -> None:
    worker = scene.some_worker()
    with scene.fault("worker-hang", excuses=True):
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(HANG_SECONDS)
        finally:
            os.kill(worker.pid, signal.SIGCONT)


@nemesis("rolling-restart", "Rolling restart of all workers", touches="workers")
async def roll(scene: Scene) -> None:
    with scene.fault("rolling-restart"):
        for worker in scene.stage.workers:
            await asyncio.to_thread(worker.stop, signal.SIGTERM)
            await asyncio.to_thread(worker.start)
            await asyncio.sleep(3.0)
