"""One run: a stage, traffic, faults, the calm after them, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from time import monotonic, strftime
from typing import TYPE_CHECKING

from tests.chaos.cast import Cast
from tests.chaos.chance import chance, sleep_until, until
from tests.chaos.checker import check
from tests.chaos.client import LostError, RefusedError
from tests.chaos.history import Fault, History
from tests.chaos.host import Host
from tests.chaos.intervals import RECONCILE_INTERVAL
from tests.chaos.keeping import keep
from tests.chaos.load import Load
from tests.chaos.nemeses import NEMESES
from tests.chaos.report import Report, summarise
from tests.chaos.resources import check_resources, measure
from tests.chaos.rows import read_truth
from tests.chaos.scene import Scene
from tests.chaos.soak import Soak, check_growth
from tests.chaos.stage import TENANTS, Stage
from tests.chaos.visits import visit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.chaos.checker.truth import Truth
    from tests.chaos.resources import Resources

LATEST = 15.0
"""Seconds in which an entry has to reach whoever is connected: some comparisons, and what a busy machine adds."""
SOON = 2 * RECONCILE_INTERVAL
"""Seconds after which delivery has to be as usual again once Redis is back."""
WARM_UP = 4.0
STALL = 1.0
PAUSE = 4.0
"""Seconds between two faults."""
REST = 6.0
"""Seconds of traffic after the last fault."""
ANSWERS_PATIENCE = 90.0
HEADS_PATIENCE = 40.0
SETTLE_PATIENCE = 75.0
PAGES_PER_ROOM = 4


@dataclass(slots=True)
class Plan:
    """What a run is made of."""

    name: str
    faults: list[str]
    seconds: float = 60.0
    """How long faults are struck, one after the other; each at least once."""
    rate: float = 40.0
    """Messages a second, over both tenants."""
    users: int = 20
    second_devices: int = 4
    workers: int = 2
    layer: str = "pubsub"
    shards: int = 1
    """Redis servers that share the channels among them."""
    on_machines: bool = False
    """Whether each worker has a machine of its own, as far as the network goes."""
    together: int = 1
    """How many faults at the same time."""
    soak: bool = False
    """Whether the load goes on without faults while the servers' memory is watched."""
    edits: bool = True
    env: Mapping[str, str] = field(default_factory=dict)
    """For the workers."""
    seed: int | None = None


async def play(plan: Plan, results: Path) -> Report:
    """Carry out a plan and judge it; the logs and the history of a run with findings are kept in `results`."""
    began = monotonic()
    chance.seed(plan.seed)
    history = History({})
    stage = Stage(
        workers=plan.workers, layer=plan.layer, shards=plan.shards, on_machines=plan.on_machines, env=plan.env
    )
    async with stage:
        host = Host(stage)
        cast = Cast(tuple(f"user{number:02}" for number in range(1, plan.users + 1)))
        soak = Soak()
        load = Load(cast, history, plan.rate)
        scene = Scene(stage, host, cast, load, history)
        try:
            await cast.prepare(stage, host, history, second_devices=plan.second_devices)
            before = await _before(stage, cast)
            stalls = asyncio.create_task(_watch_stalls(scene))
            cast.connect()
            assert await until(cast.is_live, HEADS_PATIENCE), "not everybody can connect"
            load.edits = plan.edits
            load.start()
            await asyncio.sleep(WARM_UP)
            warm = await asyncio.to_thread(measure, stage)
            await (soak.watch(scene, plan.seconds) if plan.soak else _strike(plan, scene))
            await asyncio.sleep(REST)
            unanswered = await load.stop(ANSWERS_PATIENCE)
            truth = await _calm(scene)
            await cast.leave()
            stalls.cancel()
            after = await _settled(stage, before)
        finally:
            await host.close()
        judgement = check(history, truth | scene.gone, latest=LATEST, soon=SOON, habits=cast.habits)
        check_resources(before, warm, after, judgement.findings, workers=plan.workers)
        check_growth(soak, judgement.findings)
        scene.notes |= soak.notes()
        report = summarise(plan.name, history, judgement, scene.notes, stage.complaints())
        report.seconds = monotonic() - began
        report.resources = {"before": before, "warm": warm, "after": after}
        report.unanswered = unanswered
        if report.findings or report.complaints:
            keep(results / plan.name, history, stage.folder)
    return report


async def _strike(plan: Plan, scene: Scene) -> None:
    """Strike with the plan's faults, in turn or some at a time, until the time is over and each had its turn."""
    end = monotonic() + plan.seconds
    if not plan.faults:
        await sleep_until(end)
        return
    waiting = [NEMESES[name] for name in plan.faults]
    touched: set[str] = set()

    async def strike_on() -> None:
        while waiting or monotonic() < end:
            if not waiting:
                waiting.extend(NEMESES[name] for name in plan.faults)
                chance.shuffle(waiting)
            chosen = next((nemesis for nemesis in waiting if not nemesis.touches & touched), None)
            if chosen is None:
                await asyncio.sleep(0.2)
                continue
            waiting.remove(chosen)
            touched.update(chosen.touches)
            say(f"{chosen.title} ...")
            await chosen.strike(scene)
            await asyncio.sleep(PAUSE)
            touched.difference_update(chosen.touches)

    async with asyncio.TaskGroup() as rows:
        for _ in range(plan.together):
            rows.create_task(strike_on())


def say(text: str) -> None:
    """Tell whoever watches how far the run is."""
    print(f"  {strftime('%H:%M:%S')} {text}", flush=True)


async def _watch_stalls(scene: Scene) -> None:
    """Note when the runner itself got no processor time: what its clients then got late wasn't late."""
    while True:
        began = monotonic()
        await asyncio.sleep(STALL / 4)
        ended = monotonic()
        if ended - began > STALL:
            scene.history.faults.append(Fault("stall", began, ended, excuses=True))
            scene.count("seconds that the runner stalled", ended - began)


async def _calm(scene: Scene) -> Truth:
    """Let everybody get the end, read pages of history for the comparison, and read the rows."""
    await until(scene.cast.is_live, HEADS_PATIENCE)
    truth = await asyncio.to_thread(_read, scene.stage)
    await until(lambda: _all_at(scene, truth), HEADS_PATIENCE)
    await _read_pages(scene)
    return await asyncio.to_thread(_read, scene.stage)


def _all_at(scene: Scene, truth: Truth) -> bool:
    return all(
        place.seq >= truth[client.receiver.tenant, room].head
        for client in scene.cast.clients
        for room, place in client.rooms.items()
    )


async def _read_pages(scene: Scene) -> None:
    readers = list(scene.cast.clients)
    chance.shuffle(readers)
    wanted: dict[tuple[str, int], int] = {}
    for client in readers:
        for room in list(client.rooms):
            place = client.receiver.tenant, room
            if wanted.get(place, 0) < PAGES_PER_ROOM:
                with contextlib.suppress(LostError, RefusedError):
                    client.receiver.events.append(await client.read_history(room, final=True))
                    wanted[place] = wanted.get(place, 0) + 1


async def _before(stage: Stage, cast: Cast) -> Resources:
    """What is held by servers that have served somebody, but serve nobody now."""
    for client in {client.receiver.tenant: client for client in cast.clients}.values():
        for _ in range(3 * len(stage.workers)):
            await visit(client.entrance, polite=True)
    await asyncio.sleep(2 * RECONCILE_INTERVAL + 1)
    return await asyncio.to_thread(measure, stage)


async def _settled(stage: Stage, before: Resources) -> Resources:
    """What is held once the servers had the time to give it back."""
    deadline = monotonic() + SETTLE_PATIENCE
    while True:
        after = await asyncio.to_thread(measure, stage)
        is_back = all(getattr(after, kind) <= getattr(before, kind) for kind in ("sockets", "keys", "channels"))
        if is_back or monotonic() > deadline:
            return after
        await asyncio.sleep(1.0)


def _read(stage: Stage) -> Truth:
    with stage.connect() as connection:
        return read_truth(connection, TENANTS)
