"""A tenant that is created, migrated, used and dropped while the others go on."""

from __future__ import annotations

import asyncio
import uuid
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.chaos.chance import until
from tests.chaos.client import Client, Entrance
from tests.chaos.frames import Decoder
from tests.chaos.history import Receiver, Write
from tests.chaos.nemeses.registry import nemesis
from tests.chaos.rows import read_truth

if TYPE_CHECKING:
    from tests.chaos.scene import Scene
    from tests.chaos.stage import Stage

USERS = ("user01", "user02")
ROOM = 1
MESSAGES = 40
PATIENCE = 30.0


@nemesis("tenant", "A tenant created, migrated, used and dropped", touches="tenants postgres")
async def come_and_go(scene: Scene) -> None:
    name = f"passing{len(scene.gone) + 1}"
    with scene.fault("tenant"):
        await scene.host.call(_create, name)
        cookies = await scene.host.call(scene.host.furnish, name, USERS, [USERS])
        scene.history.members[name, ROOM] = frozenset(USERS)
        decoder = Decoder()
        clients = [
            Client(
                Entrance(f"{name}.localhost", scene.stage.proxy.port, cookies[user]), Receiver(name, user, 0), decoder
            )
            for user in USERS
        ]
        scene.history.receivers += [client.receiver for client in clients]
        tasks = [asyncio.create_task(client.run()) for client in clients]
        await _converse(scene, name, clients)
        scene.gone |= await asyncio.to_thread(_read, scene.stage, name)
        # Dropped under its clients: what the servers then say is not the clients' fault.
        await scene.host.call(_drop, name)
        await asyncio.sleep(3.0)
        for client in clients:
            await client.stop()
            client.receiver.refused = ""
        await asyncio.wait(tasks, timeout=PATIENCE)
        scene.count("tenants created and dropped", 1)


async def _converse(scene: Scene, name: str, clients: list[Client]) -> None:
    assert await until(lambda: all(client.live.is_set() for client in clients), PATIENCE), f"{name} isn't served"
    writes = []
    for number in range(MESSAGES):
        client = clients[number % len(clients)]
        user = client.receiver.user
        write = Write(name, ROOM, user, "send", f"{name} {ROOM} {number}", monotonic(), str(uuid.uuid4()))
        scene.history.writes.append(write)
        writes.append(client.perform(write))
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*writes)
    await until(lambda: all(client.rooms[ROOM].seq == MESSAGES for client in clients if client.rooms), PATIENCE)


def _create(name: str) -> None:
    from example.customers.models import Customer, Domain

    customer = Customer(schema_name=name, name=name)
    customer.save(verbosity=0)
    Domain.objects.create(domain=f"{name}.localhost", tenant=customer, is_primary=True)


def _drop(name: str) -> None:
    from example.customers.models import Customer

    customer: Any = Customer.objects.get(schema_name=name)
    customer.delete(force_drop=True)


def _read(stage: Stage, name: str) -> Any:
    with stage.connect() as connection:
        return read_truth(connection, [name])
