"""The way between clients and workers: late, cut, silent, or a byte at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.chaos.nemeses.registry import nemesis

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

DELAY_SECONDS = 0.3
LASTS_SECONDS = 10.0
SLOW_LASTS_SECONDS = 30.0
FLOOD_FACTOR = 3
LONG = 8_000
"""Mean length of a message, in characters, with which a connection's buffers are full after a while: they take 4 MB."""


@nemesis("network-late", "300 ms of latency in each direction", touches="network")
async def late(scene: Scene) -> None:
    proxy = scene.stage.proxy
    with scene.fault("network-late"):
        proxy.delay = DELAY_SECONDS
        await asyncio.sleep(LASTS_SECONDS)
        proxy.delay = 0.0


@nemesis("network-cut", "Half of the connections cut, six times", touches="network")
async def cut(scene: Scene) -> None:
    proxy = scene.stage.proxy
    with scene.fault("network-cut"):
        for _ in range(6):
            scene.count("connections cut", proxy.cut(proxy.sample(0.5)))
            await asyncio.sleep(1.0)


@nemesis("network-half-open", "A third of the connections half-open: neither side is told", touches="network")
async def half_open(scene: Scene) -> None:
    proxy = scene.stage.proxy
    with scene.fault("network-half-open", excuses=True):
        chosen = proxy.sample(0.34)
        for link in chosen:
            link.is_frozen = True
        await asyncio.sleep(2 * LASTS_SECONDS)
        scene.count("connections half-open", proxy.cut(chosen))


@nemesis("network-slow", "A fifth of the clients read one byte a second, of long messages", touches="network")
async def slow(scene: Scene) -> None:
    load, proxy = scene.load, scene.stage.proxy
    usual = load.size, load.rate
    chosen = [client for client in scene.cast.clients if client.live.is_set()][::5]
    ports = {client.port for client in chosen}
    links = [link for link in proxy.links if link.port in ports]
    with scene.fault("network-slow", excuses=True):
        load.size, load.rate = LONG, FLOOD_FACTOR * load.rate
        for client in chosen:
            client.is_patient = True
        for link in links:
            link.slow_down()
        await asyncio.sleep(SLOW_LASTS_SECONDS)
        load.size, load.rate = usual
        scene.count("slow clients", len(links))
        for client in chosen:
            client.is_patient = False
        proxy.cut(links)
