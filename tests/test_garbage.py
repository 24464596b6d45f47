"""What is left of a client that is gone, and how long Python's collector stops everybody to look for it."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_tenant_messaging.realtime.commands import Commands
from django_tenant_messaging.realtime.garbage import FEWEST_ENDED, LONGEST_ASIDE, YOUNG, GarbageKeeper
from django_tenant_messaging.realtime.hub import Hub, hub_of_this_loop, running_hub
from django_tenant_messaging.realtime.outbox import Outbox
from django_tenant_messaging.realtime.socket import Socket
from tests.chaos.chance import until
from tests.harness.clock import Clock
from tests.harness.peer import Peer, scope_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

OURS = (Socket, Outbox, Commands)


def number_of_ours() -> int:
    return sum(isinstance(thing, OURS) for thing in gc.get_objects())


def is_much_put_aside() -> bool:
    # Python itself may put some hundred things aside.
    return gc.get_freeze_count() > 10_000


@contextmanager
def without_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def keeper() -> Iterator[GarbageKeeper]:
    gc.collect()
    keeper = GarbageKeeper()
    keeper.start()
    yield keeper
    keeper.stop()
    assert not is_much_put_aside()


async def leave(peer: Peer) -> None:
    await peer.close()


async def be_closed(peer: Peer) -> None:
    peer.send_event(type="websocket.receive", bytes=b"\0")
    await peer.until(lambda: peer.close_code == 4413)
    await peer.close()


async def bring_one_too_many(peer: Peer) -> None:
    with override_settings(TENANT_MESSAGING={"MAX_SOCKETS_PER_USER": 1}):
        other = await Peer(peer.scope).open()
        await other.until(lambda: other.close_code == 4429)
    await other.close()
    await peer.close()


@pytest.mark.usefixtures("team")
@pytest.mark.parametrize("end", [leave, be_closed, bring_one_too_many])
async def test_an_ended_connection_is_freed_at_once(
    acme: Tenant, peers: Peers, end: Callable[[Peer], Awaitable[None]]
) -> None:
    first = await peers.connect(acme, "alice")
    await first.close()
    with without_collections():
        # What was begun for a connection, such as storing who is online, ends by itself.
        assert await until(lambda: number_of_ours() == 0, 10)
        peer = await Peer(scope_for(acme.host, cookie=first.session_key)).open()
        assert (await peer.ask("resume", positions={}))["type"] == "ok"
        assert (await peer.post(1, "Hello"))["type"] == "ok"
        assert number_of_ours(), "or the test looks at nothing"
        await end(peer)
        assert await until(lambda: number_of_ours() == 0, 10)


@override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": 0.0})
def test_what_a_long_collection_leaves_is_not_looked_through_again(keeper: GarbageKeeper) -> None:
    gc.collect(1)
    assert not is_much_put_aside(), "only full collections look through everything"
    gc.collect()
    assert is_much_put_aside()
    assert len(gc.get_objects()) < 10_000


@pytest.mark.parametrize("pause", [60.0, None])
def test_a_short_one_changes_nothing_and_the_collector_can_be_left_alone(
    keeper: GarbageKeeper, pause: float | None
) -> None:
    with override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": pause}):
        gc.collect()
    assert not is_much_put_aside()


@pytest.mark.parametrize(
    ("found", "meanwhile", "pause"),
    [
        ((700, 10, 10), (YOUNG, 10, 10), 0.05),
        ((2_000, 5, 0), (YOUNG, 5, 0), 0.05),
        ((YOUNG + 1, 10, 10), (YOUNG + 1, 10, 10), 0.05),
        ((0, 10, 10), (0, 10, 10), 0.05),
        ((700, 10, 10), (700, 10, 10), None),
    ],
)
def test_what_is_young_is_looked_through_less_often_while_it_runs(
    found: tuple[int, int, int], meanwhile: tuple[int, int, int], pause: float | None
) -> None:
    usual = gc.get_threshold()
    keeper, another = GarbageKeeper(), GarbageKeeper()
    try:
        gc.set_threshold(*found)
        with override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": pause}):
            keeper.start()
            assert gc.get_threshold() == meanwhile
            another.start()
            another.stop()
            assert gc.get_threshold() == meanwhile
            keeper.stop()
            assert gc.get_threshold() == found
            # What somebody else has set since is theirs.
            gc.set_threshold(500)
            keeper.stop()
            assert gc.get_threshold()[0] == 500
    finally:
        for one in (keeper, another):
            one.stop()
        gc.set_threshold(*usual)


@pytest.mark.parametrize(
    ("ended", "connections", "seconds", "is_taken_back"),
    [
        (FEWEST_ENDED - 1, 0, 1.0, False),
        (FEWEST_ENDED, 0, 1.0, True),
        (FEWEST_ENDED, FEWEST_ENDED + 1, 1.0, False),
        (FEWEST_ENDED + 1, FEWEST_ENDED + 1, 1.0, True),
        (0, 0, LONGEST_ASIDE - 1, False),
        (0, 0, LONGEST_ASIDE, True),
    ],
)
def test_it_is_taken_back_when_as_many_ended_or_after_an_hour(
    keeper: GarbageKeeper,
    monkeypatch: pytest.MonkeyPatch,
    ended: int,
    connections: int,
    seconds: float,
    is_taken_back: bool,
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    for _ in range(FEWEST_ENDED):
        keeper.connection_ended()
    # Nothing is put aside yet: those left nothing in it.
    keeper.tidy(0)
    with override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": 0.0}):
        gc.collect()
    for _ in range(ended):
        keeper.connection_ended()
    clock.now += seconds
    keeper.tidy(connections)
    assert is_much_put_aside() is not is_taken_back


class Circle:
    def __init__(self) -> None:
        self.itself: Any = self


@override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": 0.0})
def test_a_circle_that_was_put_aside_is_freed_in_the_end(keeper: GarbageKeeper) -> None:
    def circles() -> int:
        return sum(isinstance(thing, Circle) for thing in gc.get_objects())

    circle: Circle | None = Circle()
    assert circle is not None
    gc.collect()
    circle = None
    for _ in range(FEWEST_ENDED):
        keeper.connection_ended()
    gc.collect()
    keeper.tidy(0)
    assert circles() == 1
    gc.collect()
    assert circles() == 0


@pytest.mark.usefixtures("team")
async def test_the_hub_watches_the_collections_while_it_runs(
    acme: Tenant, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = len(gc.callbacks)
    await peers.connect(acme, "alice")
    hub = running_hub()
    assert hub is not None
    assert len(gc.callbacks) == watching + 1
    with override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": 0.0}):
        gc.collect()
    assert is_much_put_aside()
    for _ in range(FEWEST_ENDED):
        hub.garbage.connection_ended()
    hub.tidy()
    assert not is_much_put_aside()
    with override_settings(TENANT_MESSAGING={"COLLECTION_PAUSE": 0.0}):
        gc.collect()
    stop, aside = hub.link.stop, []

    async def stopping() -> None:
        aside.append(is_much_put_aside())
        await stop()

    monkeypatch.setattr(hub.link, "stop", stopping)
    for peer in peers.opened:
        await peer.close()
    await hub.stop()
    # While connections are being closed nothing is looked through that needn't be.
    assert aside == [True]
    assert not is_much_put_aside()
    assert len(gc.callbacks) == watching


def test_a_hub_whose_loop_is_gone_neither_watches_nor_counts() -> None:
    before = len(gc.callbacks), Hub.running

    async def serve(*, is_last: bool) -> None:
        hub = hub_of_this_loop()
        assert (len(gc.callbacks), Hub.running) == (before[0] + 1, before[1] + 1)
        if is_last:
            await hub.stop()

    asyncio.run(serve(is_last=False))
    asyncio.run(serve(is_last=True))
    assert (len(gc.callbacks), Hub.running) == before
