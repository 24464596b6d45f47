"""What a process does for all its sockets together."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.actions import statuses
from django_tenant_messaging.events import PresenceChanged, TypingChanged
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.payloads import HeartbeatFrame, heartbeat
from django_tenant_messaging.realtime import batching, following, hub, presence
from django_tenant_messaging.realtime.hints import hint_of
from django_tenant_messaging.realtime.hub import BEATS, Hub, hub_of_this_loop, running_hub
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.types import UserRef
from tests.harness.peer import another_hub
from tests.harness.together import together
from tests.test_delivery import LossyLayer, got, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1


pytestmark = pytest.mark.usefixtures("team")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LossyLayer:
    layer = LossyLayer()
    monkeypatch.setattr("django_tenant_messaging.realtime.link.get_channel_layer", lambda _alias: layer)
    return layer


@pytest.fixture
async def other_process(layer: LossyLayer, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a second process, which compares nothing with the database during a test."""
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
    async with another_hub(peers) as hub:
        yield hub


def writes_to(peer: Peer, tenant: Tenant, username: str) -> list[str]:
    """The texts that are written to a peer from now on."""
    (socket,) = hub_of_this_loop().sockets[tenant.schema_name, str(tenant.users[username].pk)]
    send, written = socket.outbox._send, []

    async def noting(event: dict[str, Any]) -> None:
        written.append(event["text"])
        await send(event)

    socket.outbox._send = noting
    return written


async def settled() -> None:
    """Wait until the presence of all is stored and told."""
    await hub_of_this_loop().presence.settled(10)
    await asyncio.sleep(0)


# What happens while rooms are being read


async def test_what_is_said_of_a_room_that_is_being_read_is_not_missed(
    acme: Tenant, peers: Peers, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody follows it yet, and nothing would expose the gap: no successor, no comparison."""
    alice = await peers.connect(acme, "alice")
    await settled()
    has_read, go_on = asyncio.Event(), asyncio.Event()

    async def pausing(schema_name: str, function: Callable[..., Any], *args: Any) -> Any:
        result = await run_in_tenant(schema_name, function, *args)
        if function is following._read_welcomes:
            has_read.set()
            await go_on.wait()
        return result

    monkeypatch.setattr(batching, "run_in_tenant", pausing)
    connecting = asyncio.create_task(peers.connect(acme, "bob", hub=other_process))
    await has_read.wait()
    await alice.post(ROOM, "in between")
    # What is passing doesn't make forget what stays.
    await alice.ask("typing", room=ROOM, is_typing=True)
    await alice.until(lambda: alice.contents() == ["in between"] and bool(alice.of_type("typing")))
    for _ in range(20):
        await asyncio.sleep(0)
    go_on.set()
    bob = await connecting
    assert bob.hello["rooms"][0]["seq"] == 0
    await got(bob, "in between")
    assert other_process._unheard == {}


async def test_a_room_that_nobody_follows_costs_nothing(acme: Tenant, globex: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice")
    running = hub_of_this_loop()
    room = (await run_in_tenant("acme", actions.create_room, acme.users["carol"], name="elsewhere")).pk
    await run_in_tenant("acme", actions.send_message, acme.users["carol"], room_id=room, content="to myself")
    await write(globex, "over there")
    await alice.ask("ping")
    assert set(running.feeds) == {("acme", ROOM)}
    assert running._unheard == {}


# Presence and typing


def presence_of(username: str, user_id: int, rooms: tuple[int, ...] = (ROOM,), tenant: str = "acme") -> Any:
    return hint_of(PresenceChanged(tenant, rooms, UserRef(str(user_id), username), is_online=True, last_seen=None))


async def test_who_came_and_went_is_told_to_each_client_at_once(acme: Tenant, globex: Tenant, peers: Peers) -> None:
    alice, bob, stranger = [
        await peers.connect(tenant, name) for tenant, name in ((acme, "alice"), (acme, "bob"), (globex, "alice"))
    ]
    await settled()
    for peer in (alice, bob, stranger):
        await peer.ask("ping")
        peer.events.clear()
    running = hub_of_this_loop()
    to_alice, to_stranger = writes_to(alice, acme, "alice"), writes_to(stranger, globex, "alice")
    # Shared rooms count once, and of themselves nobody is told.
    hints = [presence_of(f"user{number}", number, (ROOM, 77, ROOM)) for number in range(100, 150)]
    running._publish([*hints, presence_of("alice", acme.users["alice"].pk), presence_of("of another room", 7, (99,))])
    assert len(to_alice) == 1
    names = [event["user"]["username"] for event in alice.of_type("presence")]
    assert names == [f"user{number}" for number in range(100, 150)]
    assert [event["user"]["username"] for event in bob.of_type("presence")] == [*names, "alice"]
    assert to_stranger == []


async def test_many_who_come_at_once_are_stored_and_told_together(
    acme: Tenant, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await peers.connect(acme, "alice")
    await settled()
    stored = []

    def storing(**changes: Any) -> None:
        stored.append(len(changes["opened"]))
        actions.store_connections(**changes)

    monkeypatch.setattr(presence, "store_connections", storing)
    written = writes_to(alice, acme, "alice")
    crowd = [await run_in_tenant("acme", acme.create_user, f"user{number}") for number in range(8)]
    await run_in_tenant("acme", actions.add_members, acme.users["alice"], room_id=ROOM, users=crowd)
    await alice.until(lambda: bool(alice.of_type("members")))
    written.clear()
    keeper = hub_of_this_loop().presence
    running: Any = hub_of_this_loop()
    for user in crowd:
        running.sockets["acme", str(user.pk)] = [SimpleNamespace(user=user)]
        keeper.sockets_changed("acme", user)
    await settled()
    for user in crowd:
        del running.sockets["acme", str(user.pk)]
        keeper.sockets_changed("acme", user)
    await settled()
    await alice.until(lambda: len(alice.of_type("presence")) == 16)
    assert sum(stored) == 8
    assert len(stored) <= 4
    assert len(written) <= 4


class TestLargeRooms:
    """In rooms of more than EPHEMERAL_ROOM_LIMIT members nobody is told who comes, goes and types."""

    @pytest.fixture(autouse=True)
    def limit(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"EPHEMERAL_ROOM_LIMIT": 2}

    async def test_who_types(self, acme: Tenant, peers: Peers) -> None:
        alice, bob, carol = [await peers.connect(acme, name) for name in ("alice", "bob", "carol")]
        opened = partial(actions.open_direct_room, other=acme.users["bob"])
        small = (await run_in_tenant("acme", opened, acme.users["alice"])).pk
        await bob.until(lambda: bool(bob.of_type("room_added")))
        for room in (ROOM, small):
            assert (await alice.ask("typing", room=room, is_typing=True))["type"] == "ok"
        await bob.until(lambda: bool(bob.of_type("typing")))
        await carol.ask("ping")
        assert [event["room"] for event in bob.of_type("typing")] == [small]
        assert carol.of_type("typing") == []
        refused = await alice.ask("typing", room=99, is_typing=True)
        assert refused["code"] == "not_found"

    async def test_who_comes_and_goes(self, acme: Tenant, peers: Peers) -> None:
        opened = partial(actions.open_direct_room, other=acme.users["bob"])
        await run_in_tenant("acme", opened, acme.users["alice"])
        bob, carol = [await peers.connect(acme, name) for name in ("bob", "carol")]
        alice = await peers.connect(acme, "alice")
        await bob.until(lambda: bool(bob.of_type("presence")))
        await alice.close()
        await bob.until(lambda: len(bob.of_type("presence")) == 2)
        await carol.ask("ping")
        assert [event["user"]["username"] for event in bob.of_type("presence")] == ["alice", "alice"]
        assert carol.of_type("presence") == []

    async def test_members_who_left_do_not_count(self, acme: Tenant, peers: Peers) -> None:
        users = acme.users
        await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=ROOM, user=users["carol"])
        bob, alice = await peers.connect(acme, "bob"), await peers.connect(acme, "alice")
        await bob.until(lambda: bool(bob.of_type("presence")))
        await alice.ask("typing", room=ROOM, is_typing=True)
        await bob.until(lambda: bool(bob.of_type("typing")))


async def test_what_is_passing_is_the_first_that_a_slow_client_misses(
    acme: Tenant, peers: Peers, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8}
    bob = await peers.connect(acme, "bob")
    await settled()
    bob.reads.clear()
    await write(acme, *(f"{number}" for number in range(6)))
    typing = hint_of(TypingChanged("acme", ROOM, UserRef("1", "alice"), is_typing=True))
    hub_of_this_loop()._publish([typing] * 50)
    await write(acme, "last")
    bob.reads.set()
    await got(bob, *(f"{number}" for number in range(6)), "last")
    assert len(bob.of_type("typing")) < 8


def test_two_processes_may_store_the_same_users_the_other_way_round(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two users change their tabs: each comes to one process and goes from the other at the same moment."""
    alice, bob = acme.users["alice"], acme.users["bob"]
    with acme.activated():
        actions.store_connections(opened=[bob], closed=[], process="one")
        actions.store_connections(opened=[alice], closed=[], process="other")
    renew, both = statuses.renew_connections, threading.Barrier(2)

    def renewing(*args: Any, **kwargs: Any) -> None:
        renew(*args, **kwargs)
        # Both have stored who came, unless one waits for the other.
        try:
            both.wait(0.5)
        except threading.BrokenBarrierError:
            both.reset()

    monkeypatch.setattr(statuses, "renew_connections", renewing)

    def store(opened: Any, closed: Any, process: str) -> Callable[[], None]:
        def run() -> None:
            with acme.activated():
                actions.store_connections(opened=[opened], closed=[closed], process=process)

        return run

    together(store(alice, bob, "one"), store(bob, alice, "other"))
    with acme.activated():
        found = {status.user_id: set(status.connections) for status in UserStatus.objects.filter(is_online=True)}
    assert found == {alice.pk: {"one"}, bob.pk: {"other"}}


# Heartbeats


class Ticks:
    """The time as the hub sees it: it passes by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asleep = asyncio.Event()
        self.turns = asyncio.Semaphore(0)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await self.turns.acquire()
        self.now += seconds

    async def tick(self) -> None:
        self.asleep.clear()
        self.turns.release()
        await self.asleep.wait()


class Beating:
    """A socket as far as heartbeats go."""

    is_welcomed = True

    def __init__(self, ticks: Ticks, connected: float) -> None:
        self.ticks = ticks
        self.last_beat = self.last_heard = connected
        self.beats: list[float] = []
        self.closes: list[int] = []

    def beat(self) -> None:
        self.beats.append(self.ticks.now)
        self.last_heard = self.ticks.now

    def close(self, code: int) -> None:
        self.closes.append(code)


@pytest.mark.parametrize("heads", [{}, {7: 0}, {7: 45, 12345678901234567: 9}])
def test_a_heartbeat_is_what_the_protocol_says(heads: dict[int, int]) -> None:
    frame = HeartbeatFrame(heads={str(room_id): head for room_id, head in heads.items()})
    assert heartbeat(heads) == frame.model_dump_json()


async def test_heartbeats_are_spread_over_the_interval(
    monkeypatch: pytest.MonkeyPatch, settings: Any, acme: Tenant
) -> None:
    settings.TENANT_MESSAGING = {"HEARTBEAT_INTERVAL": 20.0}
    ticks = Ticks()
    fake = SimpleNamespace(**vars(asyncio))
    fake.sleep = ticks.sleep
    running: Any = Hub()
    monkeypatch.setattr(hub, "asyncio", fake)
    monkeypatch.setattr(hub, "time", ticks)
    sockets = [Beating(ticks, ticks.now - 20 + number / 10) for number in range(200)]
    silent = Beating(ticks, ticks.now - 60)
    unwelcomed = Beating(ticks, ticks.now - 59)
    newcomer = Beating(ticks, ticks.now - 19)
    unwelcomed.is_welcomed = newcomer.is_welcomed = False
    running._beating.update(dict.fromkeys([silent, unwelcomed, *sockets, newcomer]))
    task = asyncio.create_task(running._beat_forever())
    await ticks.asleep.wait()
    for _ in range(2 * BEATS):
        await ticks.tick()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    at = Counter(time for socket in sockets for time in socket.beats)
    assert len(at) == 2 * BEATS
    assert max(at.values()) <= 2 * len(sockets) / BEATS
    for socket in sockets:
        assert len(socket.beats) == 2
        assert socket.beats[1] - socket.beats[0] == pytest.approx(20)
        assert socket.closes == []
    assert set(silent.closes) == {4408}
    assert silent.beats == []
    assert (unwelcomed.beats, set(unwelcomed.closes)) == ([], {4408})
    assert (newcomer.beats, newcomer.closes) == ([], [])


async def test_who_came_first_is_due_first(acme: Tenant, peers: Peers) -> None:
    """A server to which somebody comes all the time still sends the others their heartbeats."""
    for username in ("alice", "bob", "carol"):
        await peers.connect(acme, username)
    running: Any = running_hub()
    assert [socket.user.username for socket in running._beating] == ["alice", "bob", "carol"]
    await peers.opened[0].close()
    assert [socket.user.username for socket in running._beating] == ["bob", "carol"]


# The end


async def test_a_hub_stops_once_and_leaves_nothing(
    acme: Tenant, peers: Peers, layer: LossyLayer, settings: Any
) -> None:
    before = asyncio.all_tasks()
    running = Hub.running
    stopping = Hub()
    stopping.start()
    assert Hub.running == running + 1
    bob = await peers.connect(acme, "bob", hub=stopping)
    await write(acme, "hello")
    for _ in range(2):
        await stopping.stop()
    assert Hub.running == running
    await bob.until(lambda: bob.close_code == 1012)
    assert bob.task is not None
    await bob.task
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}
    assert (dict(stopping.sockets), stopping.schemas()) == ({}, [])


async def test_a_hub_whose_stop_is_broken_off_leaves_the_collector_alone(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stopping, hangs = gc.callbacks.copy(), Hub(), asyncio.Event()
    stopping.start()
    assert gc.callbacks != before

    async def hang(_patience: float) -> None:
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(stopping.sends, "finished", hang)
    task = asyncio.create_task(stopping.stop())
    await hangs.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gc.callbacks == before
    stopping.garbage.stop()
    for left in [*stopping._background, *stopping.link._tasks]:
        left.cancel()


async def test_a_hub_that_stops_leaves_the_loops_own_alone(acme: Tenant, peers: Peers, other_process: Hub) -> None:
    alice = await peers.connect(acme, "alice")
    running = hub_of_this_loop()
    await other_process.stop()
    assert hub_of_this_loop() is running
    await alice.ask("ping")
