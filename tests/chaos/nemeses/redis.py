"""Redis killed, emptied, held up, or hanging up."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from tests.chaos.nemeses.registry import nemesis

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

PAUSE_SECONDS = 5.0


async def _kill(scene: Scene, seconds: float) -> None:
    shard = scene.stage.some_shard()
    with scene.fault(f"redis-kill-{seconds:g}", resumes=True):
        await asyncio.to_thread(shard.stop, signal.SIGKILL)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(shard.start)


@nemesis("redis-kill-0.3", "Redis killed for 0.3 s", touches="redis")
async def kill_briefly(scene: Scene) -> None:
    await _kill(scene, 0.3)


@nemesis("redis-kill-4", "Redis killed for 4 s", touches="redis")
async def kill(scene: Scene) -> None:
    await _kill(scene, 4)


@nemesis("redis-kill-30", "Redis killed for 30 s", touches="redis")
async def kill_long(scene: Scene) -> None:
    await _kill(scene, 30)


@nemesis("redis-flush", "Redis flushed", touches="redis")
async def flush(scene: Scene) -> None:
    shard = scene.stage.some_shard()
    with scene.fault("redis-flush", resumes=True):
        for _ in range(5):
            await asyncio.to_thread(scene.stage.redis_client(shard).flushall)
            await asyncio.sleep(0.2)


@nemesis("redis-pause", "Redis paused for 5 s by CLIENT PAUSE", touches="redis")
async def pause(scene: Scene) -> None:
    shard = scene.stage.some_shard()
    with scene.fault("redis-pause", resumes=True):
        milliseconds = str(int(PAUSE_SECONDS * 1000))
        await asyncio.to_thread(scene.stage.redis_client(shard).execute_command, "CLIENT", "PAUSE", milliseconds, "ALL")
        await asyncio.sleep(PAUSE_SECONDS)


@nemesis("redis-hang", "SIGSTOP of Redis for 5 s", touches="redis")
async def hang(scene: Scene) -> None:
    with scene.fault("redis-hang", resumes=True):
        pid = scene.stage.some_shard().pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            os.kill(pid, signal.SIGCONT)


@nemesis("redis-hang-up", "CLIENT KILL TYPE pubsub", touches="redis")
async def hang_up(scene: Scene) -> None:
    shard = scene.stage.some_shard()
    with scene.fault("redis-hang-up", resumes=True):
        for _ in range(10):
            arguments = ("CLIENT", "KILL", "TYPE", "pubsub")
            killed = await asyncio.to_thread(scene.stage.redis_client(shard).execute_command, *arguments)
            scene.count("pub/sub connections closed", int(killed))
            await asyncio.sleep(0.3)
