"""Members who are added and removed while everybody writes."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from tests.chaos.cast import GUEST_ROOM
from tests.chaos.chance import chance
from tests.chaos.history import MemberChange
from tests.chaos.nemeses.registry import nemesis
from tests.chaos.stage import TENANTS

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

CHANGES = 60
PAUSE_SECONDS = 0.15
FLOOD_FACTOR = 2


@nemesis("members", "Members added and removed during a flood", touches="members")
async def come_and_go(scene: Scene) -> None:
    usual = scene.load.rate
    scene.load.rate = usual * FLOOD_FACTOR
    try:
        with scene.fault("members"):
            for _ in range(CHANGES):
                await change_one(scene)
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        scene.load.rate = usual


async def change_one(scene: Scene) -> None:
    """Add a user who isn't in the room, or remove one who is, in one of the tenants."""
    tenant = chance.choice(TENANTS)
    user = chance.choice(scene.cast.users[1:])
    is_member = user in scene.history.members[tenant, GUEST_ROOM]
    for change in scene.history.changes:
        if (change.tenant, change.room) == (tenant, GUEST_ROOM) and user in change.users:
            is_member = change.joined
    change = MemberChange(tenant, GUEST_ROOM, frozenset({user}), not is_member, monotonic())
    await scene.host.change_members(scene.history, change)
    scene.count("members changed", 1)
