"""Clients that come and go without end."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from tests.chaos.chance import chance, sleep_until
from tests.chaos.nemeses.registry import nemesis
from tests.chaos.visits import visit

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

RATE = 200
LASTS_SECONDS = 10.0
AT_ONCE = 100
PATIENCE = 10.0


@nemesis("churn", "200 connections a second opened and dropped", touches="churn")
async def churn(scene: Scene) -> None:
    entrances = [
        scene.cast.entrance(scene.stage, client.receiver.tenant, client.receiver.user) for client in scene.cast.clients
    ]
    gate = asyncio.Semaphore(AT_ONCE)
    began = monotonic()

    async def come() -> None:
        async with gate:
            try:
                async with asyncio.timeout(PATIENCE):
                    await visit(chance.choice(entrances), polite=chance.random() < 0.5)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                scene.count("visits in vain", 1)
            else:
                scene.count("visits", 1)

    with scene.fault("churn"):
        async with asyncio.TaskGroup() as visits:
            for number in range(int(RATE * LASTS_SECONDS)):
                await sleep_until(began + number / RATE)
                visits.create_task(come())
    scene.notes["visits a second"] = scene.notes.get("visits", 0) / (monotonic() - began)
