"""Who takes part: equal users and equal rooms in each tenant, and the devices they are connected with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.chaos.checker import Habits
from tests.chaos.client import Client, Entrance
from tests.chaos.frames import Decoder
from tests.chaos.history import Receiver
from tests.chaos.stage import TENANTS

if TYPE_CHECKING:
    from tests.chaos.history import History
    from tests.chaos.host import Host
    from tests.chaos.stage import Stage

EVERYBODY, LARGE, SMALL = 1, 2, (3, 4, 5)
"""Rooms: one with all users, one with half of them, and three small ones with nobody in common."""
GUEST_ROOM = LARGE
"""The room whose members come and go. Its owner, the first user, stays."""


@dataclass(slots=True)
class Cast:
    """All clients of a run."""

    users: tuple[str, ...]
    clients: list[Client] = field(default_factory=list)
    cookies: dict[tuple[str, str], str] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def habits(self) -> dict[str, Habits]:
        """In each tenant others type and read, and another is never there: seeing someone else do so shows a leak."""
        return {
            tenant: Habits(frozenset(self.users[place :: len(TENANTS)]), frozenset({self.users[-1 - place]}))
            for place, tenant in enumerate(TENANTS)
        }

    def rooms(self, tenant: str) -> list[list[str]]:
        """Members of each room, the owner first. In each tenant others are in the small ones."""
        turned = [*self.users[3:], *self.users[:3]] if tenant != TENANTS[0] else [*self.users]
        size = max(2, len(turned) // 4)
        half = list(self.users[: len(self.users) // 2])
        return [list(self.users), half, *(turned[place * size : (place + 1) * size] for place in range(len(SMALL)))]

    async def prepare(self, stage: Stage, host: Host, history: History, *, second_devices: int) -> None:
        """Make users, rooms and clients."""
        decoder = Decoder()
        for tenant in TENANTS:
            rooms = self.rooms(tenant)
            cookies = await host.call(host.furnish, tenant, self.users, rooms)
            self.cookies |= {(tenant, user): cookie for user, cookie in cookies.items()}
            history.members |= {(tenant, number): frozenset(members) for number, members in enumerate(rooms, 1)}
            for device, users in enumerate((self.users, self.users[:second_devices])):
                for user in set(users) - self.habits[tenant].absent:
                    receiver = Receiver(tenant, user, device)
                    history.receivers.append(receiver)
                    self.clients.append(Client(self.entrance(stage, tenant, user), receiver, decoder))

    def entrance(self, stage: Stage, tenant: str, user: str) -> Entrance:
        """Where a user is served."""
        return Entrance(f"{tenant}.localhost", stage.proxy.port, self.cookies[tenant, user])

    def connect(self) -> None:
        """Let all clients run."""
        self._tasks = [asyncio.create_task(client.run()) for client in self.clients]

    def is_live(self) -> bool:
        """Whether everybody who isn't refused is connected."""
        return all(client.live.is_set() or client.receiver.refused for client in self.clients)

    async def leave(self) -> None:
        """Disconnect everybody."""
        await asyncio.gather(*(client.stop() for client in self.clients))
        _, pending = await asyncio.wait(self._tasks, timeout=30)
        for task in pending:
            task.cancel()
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error
