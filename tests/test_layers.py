"""Two processes on each of the channel layers that are documented, and one process that needs none."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio as aioredis
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from django_tenant_messaging import actions
from django_tenant_messaging.realtime import link
from django_tenant_messaging.realtime.hub import Hub, hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub
from tests.test_delivery import got, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django_tenant_messaging.realtime.link import LayerLink
    from example.services import LocalRedis
    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

ROOM = 1
SELDOM = {"RECONCILE_INTERVAL": 3600}
OFTEN = {"RECONCILE_INTERVAL": 0.2}


pytestmark = pytest.mark.usefixtures("team")

CORE, PUBSUB = "core", "pubsub"


class Layers:
    """A layer for each process, or one that they share in memory."""

    def __init__(self, kind: str, redis: LocalRedis) -> None:
        self._kind = kind
        self._redis = redis
        self.made: list[Any] = []

    def make(self, _alias: str) -> Any:
        """What a process's link asks for."""
        hosts = [{"address": self._redis.url(), "socket_timeout": None}]
        match self._kind:
            case "memory" if self.made:
                return self.made[0]
            case "memory":
                layer: Any = InMemoryChannelLayer(capacity=10_000)
            case "core":
                layer = RedisChannelLayer(hosts=hosts)
            case _:
                layer = RedisPubSubChannelLayer(hosts=hosts)
        self.made.append(layer)
        return layer

    async def close(self) -> None:
        for layer in self.made:
            await (layer.close_pools() if self._kind == CORE else layer.flush())


@pytest.fixture(params=[CORE, PUBSUB, "memory"])
async def layers(
    request: pytest.FixtureRequest, redis_server: LocalRedis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Layers]:
    layers = Layers(request.param, redis_server)
    monkeypatch.setattr(link, "get_channel_layer", layers.make)
    yield layers
    await layers.close()


@pytest.fixture
def often() -> bool:
    """Whether the processes compare what they have with the database during the test."""
    return False


@pytest.fixture
async def other_process(often: bool, layers: Layers, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    settings.TENANT_MESSAGING = OFTEN if often else SELDOM
    async with another_hub(peers) as hub:
        yield hub
    # Its layer is closed before the peers' fixture ends the first one's.
    await hub_of_this_loop().stop()


only = pytest.mark.parametrize("layers", [CORE, PUBSUB], indirect=True)


async def test_everything_crosses_by_the_layer_alone(
    acme: Tenant, globex: Tenant, peers: Peers, other_process: Hub
) -> None:
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob", hub=other_process)
    stranger = await peers.connect(globex, "bob", hub=other_process)
    await asyncio.gather(*(alice.post(ROOM, f"number {number}") for number in range(40)))
    await got(bob, *(f"number {number}" for number in range(40)))
    await bob.post(ROOM, "@alice hello")
    await got(alice, *(f"number {number}" for number in range(40)), "@alice hello")
    await alice.ask("typing", room=ROOM, is_typing=True)
    await bob.until(lambda: bool(bob.of_type("typing")))
    await bob.ask("read", room=ROOM, seq=3)
    await alice.until(lambda: bool(alice.of_type("read")) and bool(alice.of_type("notification")))
    carol = await peers.connect(acme, "carol")
    await bob.until(lambda: "carol" in {event["user"]["username"] for event in bob.of_type("presence")})
    users = acme.users
    room = await run_in_tenant("acme", actions.create_room, users["alice"], name="new", members=[users["bob"]])
    await bob.until(lambda: bool(bob.of_type("room_added")))
    await write(acme, "in the new one", sender="alice", room=room.pk)
    await got(bob, "in the new one", room=room.pk)
    await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=room.pk, user=users["bob"])
    await bob.until(lambda: bool(bob.of_type("room_removed")))
    await carol.ask("ping")
    assert carol.contents(room.pk) == []
    await stranger.ask("ping")
    assert [event["type"] for event in stranger.events] == ["hello"]


@only
@pytest.mark.parametrize("often", [True])
@pytest.mark.parametrize("fault", ["flush", "hang up", "restart"])
async def test_what_is_lost_with_the_layer_is_found_and_what_follows_comes_live(
    fault: str,
    layers: Layers,
    acme: Tenant,
    globex: Tenant,
    peers: Peers,
    other_process: Hub,
    redis_server: LocalRedis,
) -> None:
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob", hub=other_process)
    stranger = await peers.connect(globex, "bob", hub=other_process)
    await alice.post(ROOM, "before")
    await got(bob, "before")
    match fault:
        case "restart":
            redis_server.stop(signal.SIGKILL)
            await alice.post(ROOM, "during")
            await got(bob, "before", "during")
            redis_server.start()
        case _:
            commands = {"flush": ["FLUSHALL"], "hang up": ["CLIENT", "KILL", "TYPE", "pubsub"]}
            async with aioredis.Redis.from_url(redis_server.url()) as client:
                await client.execute_command(*commands[fault])  # type: ignore[no-untyped-call]
            await alice.post(ROOM, "during")
            await got(bob, "before", "during")

    async with asyncio.timeout(20):
        # Typing isn't stored: it comes by the layer or not at all.
        while not bob.of_type("typing"):
            assert (await alice.ask("typing", room=ROOM, is_typing=True))["type"] == "ok"
            await asyncio.sleep(0.2)
    await alice.post(ROOM, "after")
    await got(bob, "before", "during", "after")
    await stranger.ask("ping")
    assert [event["type"] for event in stranger.events] == ["hello"]


def is_whole(link: LayerLink) -> bool:
    return link.is_whole


@only
async def test_what_a_process_could_not_say_of_rights_is_made_up_for(
    layers: Layers, acme: Tenant, globex: Tenant, peers: Peers, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer failed for that process alone: the others don't know that they missed anything."""
    await peers.connect(acme, "alice")
    bob, namesake = [await peers.connect(tenant, "bob", hub=other_process) for tenant in (acme, globex)]
    own, link_of_other = hub_of_this_loop().link, other_process.link

    async def fail(*_args: Any) -> None:
        raise ConnectionError

    def deactivate() -> None:
        user = acme.users["bob"]
        user.is_active = False
        user.save()

    assert not link_of_other.may_have_missed()
    with monkeypatch.context() as changed:
        changed.setattr(own._layer, "group_send", fail)
        await run_in_tenant("acme", deactivate)
        async with asyncio.timeout(20):
            while is_whole(own):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
    assert not link_of_other.may_have_missed()
    assert [peer.close_code for peer in (bob, namesake)] == [None, None]
    for _ in range(2):
        await own.probe()
        await asyncio.sleep(0.2)
    assert is_whole(own)
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 4401
    await namesake.ask("ping")
    assert namesake.close_code is None


@pytest.mark.parametrize("layers", ["memory"], indirect=True)
async def test_a_process_alone_says_nothing_to_the_layer_in_memory(
    layers: Layers, acme: Tenant, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    sent: list[Any] = []

    async def send(*args: Any) -> None:
        sent.append(args)

    monkeypatch.setattr(layers.made[0], "group_send", send)
    await alice.post(ROOM, "hello")
    await alice.ask("typing", room=ROOM, is_typing=True)
    await bob.until(lambda: bool(bob.of_type("typing")))
    await write(acme, "from elsewhere in the process")
    await got(bob, "hello", "from elsewhere in the process")
    await hub_of_this_loop().link.probe()
    assert sent == []


@pytest.mark.parametrize("layers", [CORE], indirect=True)
async def test_a_process_that_stops_leaves_no_group_behind(
    acme: Tenant, peers: Peers, other_process: Hub, redis_server: LocalRedis
) -> None:
    def groups() -> set[bytes]:
        with redis.Redis(port=redis_server.port) as client:
            return set(client.keys("*group*"))

    peer = await peers.connect(acme, "bob", hub=other_process)
    assert any(other_process.process.encode() in group for group in groups())
    await peer.close()
    await other_process.stop()
    assert not any(other_process.process.encode() in group for group in groups())
