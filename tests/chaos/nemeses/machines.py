"""A machine without network: neither side of any connection is told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos.chance import chance
from tests.chaos.nemeses.registry import nemesis

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

BRIEFLY_SECONDS = 3.0
LONG_SECONDS = 25.0


async def _unplug(scene: Scene, name: str, seconds: float) -> None:
    machines = scene.stage.machines
    assert machines is not None
    number = chance.randrange(machines.count)
    with scene.fault(name, excuses=True):
        await asyncio.to_thread(machines.unplug, number)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(machines.plug_in, number)


@nemesis("machine-off-briefly", "A worker's machine without network for 3 s", touches="workers", needs_machines=True)
async def unplug_briefly(scene: Scene) -> None:
    await _unplug(scene, "machine-off-briefly", BRIEFLY_SECONDS)


@nemesis("machine-off", "A worker's machine without network for 25 s", touches="workers", needs_machines=True)
async def unplug(scene: Scene) -> None:
    await _unplug(scene, "machine-off", LONG_SECONDS)
