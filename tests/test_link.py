"""The channel layer as a lossy bus: what it carries, and what is noticed and made up for when it fails.

With the layers that are documented, on a real Redis, and with one that does what it is told.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from channels.layers import InMemoryChannelLayer
from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from django_tenant_messaging.realtime import link as link_module
from django_tenant_messaging.realtime.hints import Hint, from_rows
from django_tenant_messaging.realtime.link import (
    MAX_HINTS,
    MAX_WAITING,
    LayerLink,
    group_of,
    send_from_outside,
)
from django_tenant_messaging.realtime.sealing import Message, Sealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from example.services import LocalRedis

PATIENCE = 20.0


def hint(number: int, schema_name: str = "acme") -> Hint:
    return Hint(schema_name, "room", 1, f"{number}", seq=number, after=number - 1)


def opened(given: Any) -> Message:
    message = Sealer().opened(given)
    assert message is not None
    return message


class Process:
    """A link as one process has it, and what it was told."""

    def __init__(self, layer: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link_module, "get_channel_layer", lambda _alias: layer)
        self.layer = layer
        self.messages: list[Message] = []
        self._told = asyncio.Event()
        self.link = LayerLink("default", name, self._on_message)

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        self._told.set()

    def seqs(self, schema_name: str = "acme") -> list[int]:
        """The numbers of a tenant's hints, in the order in which they came."""
        of_tenant = [message.content for message in self.messages if message.about == schema_name]
        return [found.seq for rows in of_tenant for found in from_rows(schema_name, rows)]

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_true():
                self._told.clear()
                await self._told.wait()

    async def looked_after(self, is_true: Callable[[], bool]) -> None:
        """Look after the layer, as the link does by itself, until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not is_true():
                await self.link.repair()
                await self.link.probe()
                await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def by_hand(settings: Any) -> None:
    """Nobody looks after the layer but the test."""
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Any], Process]]:
    """Start the link of another process on a layer of its own."""
    processes: list[Process] = []
    before = asyncio.all_tasks()

    def start(layer: Any) -> Process:
        process = Process(layer, f"process{len(processes)}", monkeypatch)
        processes.append(process)
        process.link.start()
        return process

    yield start
    for process in processes:
        await process.link.stop()
        if hasattr(process.layer, "close_pools"):
            await process.layer.close_pools()
        elif isinstance(process.layer, RedisPubSubChannelLayer):
            await process.layer.flush()
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


REDIS_LAYERS: dict[str, Any] = {"core": RedisChannelLayer, "pubsub": RedisPubSubChannelLayer}


@pytest.fixture(params=list(REDIS_LAYERS))
def make(request: pytest.FixtureRequest, redis_server: LocalRedis) -> Callable[[], Any]:
    """Make a layer of one kind on a Redis of the test's own."""
    hosts = [{"address": redis_server.url(), "socket_timeout": None}]
    return lambda: REDIS_LAYERS[request.param](hosts=hosts)


async def ask_redis(server: LocalRedis, *command: str) -> Any:
    async with aioredis.Redis.from_url(server.url()) as client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


class TestOnRedis:
    """Each with both layers of channels_redis."""

    @pytest.fixture
    async def pair(self, start: Any, make: Any) -> tuple[Process, Process]:
        """Two processes that serve acme; the second serves globex too."""
        one, other = start(make()), start(make())
        await one.link.subscribe("acme")
        await other.link.subscribe("acme")
        await other.link.subscribe("globex")
        assert one.link.is_whole
        assert other.link.is_whole
        return one, other

    async def test_what_is_published_arrives_elsewhere_in_order_and_bundled(
        self, pair: tuple[Process, Process]
    ) -> None:
        one, other = pair
        for number in range(1, 1_001):
            one.link.publish("acme", [hint(number)])
        one.link.publish("globex", [hint(1, "globex")])
        await other.until(lambda: len(other.seqs()) == 1_000 and other.seqs("globex") == [1])
        assert other.seqs() == list(range(1, 1_001))
        sizes = [len(message.content) for message in other.messages if message.about == "acme"]
        assert max(sizes) <= MAX_HINTS
        assert len(sizes) < 50
        # One's own come back too, and were delivered already.
        await one.link.probe()
        assert one.messages == []

    async def test_a_tenant_without_sockets_here_isnt_heard(self, pair: tuple[Process, Process]) -> None:
        one, other = pair
        other.link.publish("globex", [hint(1, "globex")])
        other.link.publish("acme", [hint(1)])
        await one.until(lambda: one.seqs() == [1])
        assert one.seqs("globex") == []
        one.link.unsubscribe("acme")
        await one.link.repair()
        other.link.publish("acme", [hint(2)])
        await one.link.subscribe("globex")
        other.link.publish("globex", [hint(2, "globex")])
        await one.until(lambda: one.seqs("globex") == [2])
        assert one.seqs() == [1]

    async def test_who_serves_no_sockets_is_heard(self, pair: tuple[Process, Process], make: Any) -> None:
        layer = make()
        await send_from_outside(layer, [hint(1), hint(1, "globex"), hint(2)])
        await pair[1].until(lambda: pair[1].seqs() == [1, 2] and pair[1].seqs("globex") == [1])
        await pair[0].until(lambda: pair[0].seqs() == [1, 2])
        await (layer.close_pools() if hasattr(layer, "close_pools") else layer.flush())

    async def test_a_flushed_redis_is_noticed(self, pair: tuple[Process, Process], redis_server: LocalRedis) -> None:
        one, other = pair
        for _ in range(2):
            await other.link.probe()
            await asyncio.sleep(0.1)
        assert other.link.is_whole
        await ask_redis(redis_server, "FLUSHALL")
        await self.heard_again(one, other)

    async def test_subscribers_that_redis_hangs_up_on_come_back(
        self, pair: tuple[Process, Process], redis_server: LocalRedis
    ) -> None:
        await ask_redis(redis_server, "CLIENT", "KILL", "TYPE", "pubsub")
        await ask_redis(redis_server, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await self.heard_again(*pair)

    async def test_a_restarted_redis(
        self, pair: tuple[Process, Process], redis_server: LocalRedis, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, other = pair
        redis_server.stop(signal.SIGKILL)
        for process in pair:
            await process.looked_after(lambda process=process: not process.link.is_whole)  # type: ignore[misc]
        # It takes what is published, and nobody waits for it.
        one.link.publish("acme", [hint(1)])
        await asyncio.wait_for(one.link.subscribe("globex"), 5)
        assert not one.link.is_whole
        for _ in range(3):
            await one.link.probe()
        ours = [record for record in caplog.records if record.name == link_module.__name__]
        assert len([record for record in ours if record.levelno == logging.WARNING]) == 2
        redis_server.start()
        await self.heard_again(one, other)

    async def test_a_redis_that_is_away_at_the_start(self, start: Any, make: Any, redis_server: LocalRedis) -> None:
        redis_server.stop()
        one, other = start(make()), start(make())
        for process in (one, other):
            await asyncio.wait_for(process.link.subscribe("acme"), 5)
            assert not process.link.is_whole
        redis_server.start()
        await self.heard_again(one, other)

    async def heard_again(self, one: Process, other: Process) -> None:
        """Wait until what one publishes arrives, with both looking after their layers."""
        number = 100

        def publish() -> bool:
            nonlocal number
            number += 1
            one.link.publish("acme", [hint(number)])
            return bool(other.seqs()) and other.seqs()[-1] > 100

        await asyncio.gather(other.looked_after(publish), one.looked_after(lambda: one.link.is_whole))
        await other.looked_after(lambda: other.link.is_whole)
        # And it stays so: nothing is subscribed to twice, nothing comes twice.
        one.messages.clear()
        other.messages.clear()
        one.link.publish("acme", [hint(1)])
        await other.until(lambda: 1 in other.seqs())
        one.link.publish("acme", [hint(2)])
        await other.until(lambda: 2 in other.seqs())
        assert [seq for seq in other.seqs() if seq < 100] == [1, 2]


class ToldLayer:
    """A layer that waits, fails, forgets and loses as it is told."""

    def __init__(self) -> None:
        self.inner = InMemoryChannelLayer(capacity=100_000)
        self.channels: list[str] = []
        self.waits: dict[str, asyncio.Event] = {}
        self.calls: defaultdict[str, list[Any]] = defaultdict(list)
        self.fails: set[str] = set()
        self.is_deaf = False

    async def _pass(self, what: str, *args: Any) -> None:
        self.calls[what].append(args)
        if what in self.waits:
            await self.waits[what].wait()
        if what in self.fails:
            raise ConnectionError(f"no {what}")

    def hold(self, what: str) -> asyncio.Event:
        self.waits[what] = asyncio.Event()
        return self.waits[what]

    async def new_channel(self) -> str:
        await self._pass("new_channel")
        channel = await self.inner.new_channel()
        self.channels.append(channel)
        return str(channel)

    async def receive(self, channel: str) -> Any:
        if "receive" in self.fails:
            await self._pass("receive", channel)
        return await self.inner.receive(channel)

    async def group_add(self, group: str, channel: str) -> None:
        await self._pass("group_add", group)
        await self.inner.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._pass("group_discard", group)
        await self.inner.group_discard(group, channel)

    async def group_send(self, group: str, message: Any) -> None:
        await self._pass("group_send", group, message)
        if not self.is_deaf:
            await self.inner.group_send(group, message)

    def sent(self, schema_name: str) -> list[int]:
        """The numbers of the hints of a tenant that were sent."""
        group = group_of(schema_name)
        rows = [opened(message).content for to, message in self.calls["group_send"] if to == group]
        return [found.seq for of_message in rows for found in from_rows(schema_name, of_message)]


async def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is true of which nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while not is_true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def is_whole(process: Process) -> bool:
    return process.link.is_whole


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


class TestAsTold:
    @pytest.fixture
    def layer(self) -> ToldLayer:
        return ToldLayer()

    @pytest.fixture
    async def process(self, start: Any, layer: ToldLayer) -> Process:
        process: Process = start(layer)
        await process.link.subscribe("acme")
        return process

    async def heard(self, process: Process, number: int) -> None:
        """Say something to the process as another one would."""
        await send_from_outside(process.layer, [hint(number)])
        await process.until(lambda: number in process.seqs())

    async def test_it_receives_on_the_channel_that_subscribes(self, start: Any, layer: ToldLayer) -> None:
        """The first message and the first subscription may both be what makes the channel, at the same time."""
        ready = layer.hold("new_channel")
        process = start(layer)
        subscribing = asyncio.create_task(process.link.subscribe("acme"))
        await settle()
        ready.set()
        await subscribing
        assert process.link.is_whole
        await self.heard(process, 1)
        assert len(layer.channels) == 1

    async def test_a_layer_that_hangs_delays_nobody_for_longer_than_a_second(
        self, process: Process, layer: ToldLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(link_module, "SUBSCRIBE_TIMEOUT", 0.1)
        layer.hold("group_add")
        await asyncio.wait_for(process.link.subscribe("globex"), 5)
        assert not process.link.is_whole
        # It is known to be down now: nobody waits at all.
        tried = len(layer.calls["group_add"])
        await process.link.subscribe("initech")
        assert len(layer.calls["group_add"]) == tried
        layer.waits.clear()
        await process.looked_after(lambda: process.link.is_whole)
        assert {group for (group,) in layer.calls["group_add"]} >= {group_of("globex"), group_of("initech")}

    async def test_who_comes_back_while_others_are_left_is_heard(self, process: Process, layer: ToldLayer) -> None:
        for schema_name in ("globex", "initech", "umbrella"):
            await process.link.subscribe(schema_name)
        left = layer.hold("group_discard")
        for schema_name in ("acme", "globex", "initech", "umbrella"):
            process.link.unsubscribe(schema_name)
        repairing = asyncio.create_task(process.link.repair())
        await settle()
        back = asyncio.create_task(process.link.subscribe("acme"))
        await settle()
        left.set()
        await asyncio.gather(repairing, back)
        assert process.link.is_whole
        await self.heard(process, 1)

    async def test_what_arrives_no_more_is_noticed_told_once_and_over(
        self, process: Process, layer: ToldLayer, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(3):
            await process.link.probe()
            await settle()
        assert process.link.is_whole
        layer.is_deaf = True
        for _ in range(5):
            await process.link.probe()
            await settle()
            # That something can be sent and subscribed to says nothing.
            process.link.publish("acme", [hint(1)])
            await settle()
        assert is_whole(process) is False
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
            "The channel layer failed (what was sent doesn't arrive); other processes learn from the database."
        ]
        layer.is_deaf = False
        for _ in range(2):
            await process.link.probe()
            await settle()
        assert process.link.is_whole
        await self.heard(process, 2)

    async def test_it_knows_that_it_may_have_missed_something(
        self, start: Any, process: Process, layer: ToldLayer
    ) -> None:
        """Also when the layer was away for so short a time that nobody asked meanwhile."""
        told = start(layer)
        await told.looked_after(lambda: told.link.is_whole)
        assert not process.link.may_have_missed()
        layer.fails.add("group_send")
        await process.link.probe()
        layer.fails.clear()
        for _ in range(2):
            await process.link.probe()
            await settle()
        assert process.link.is_whole
        assert [process.link.may_have_missed() for _ in range(3)] == [True, False, False]
        # And the others are told that they may have missed what it said: of nobody and no tenant by name.
        await told.until(lambda: bool(told.messages))
        (message,) = told.messages
        (found,) = from_rows(message.about, message.content)
        assert (found.schema_name, found.target, found.key) == ("", "access", "")
        layer.is_deaf = True
        for _ in range(2):
            await process.link.probe()
            await settle()
        assert [process.link.may_have_missed() for _ in range(2)] == [True, True]
        layer.is_deaf = False
        for _ in range(2):
            await process.link.probe()
            await settle()
        assert [process.link.may_have_missed() for _ in range(3)] == [True, False, False]
        # What is no longer wanted isn't missed.
        process.link.unsubscribe("acme")
        assert not process.link.may_have_missed()

    @pytest.mark.parametrize("layer_here", [None, InMemoryChannelLayer()])
    async def test_a_layer_that_ends_at_the_process_says_nothing_of_others(self, start: Any, layer_here: Any) -> None:
        process = start(layer_here)
        await process.link.subscribe("acme")
        assert process.link.is_whole
        assert [process.link.may_have_missed() for _ in range(3)] == [True] * 3

    async def test_one_failure_is_over_with_the_next_probe(self, process: Process, layer: ToldLayer) -> None:
        """Nothing else may be said for a long time, and nothing has to be subscribed to again."""
        layer.fails.add("group_send")
        process.link.publish("acme", [hint(1)])
        await settle()
        assert not process.link.is_whole
        layer.fails.clear()
        for _ in range(2):
            await process.link.probe()
            await settle()
        assert process.link.is_whole

    async def test_a_subscription_that_failed_is_made_up_for(self, process: Process, layer: ToldLayer) -> None:
        """What arrives by the others says nothing of it."""
        layer.fails.add("group_add")
        await process.link.subscribe("globex")
        for _ in range(3):
            await process.link.probe()
            await settle()
        assert is_whole(process) is False
        layer.fails.clear()
        await process.link.repair()
        assert is_whole(process) is True
        assert group_of("globex") in layer.inner.groups

    async def test_a_failing_receive_keeps_the_channel(
        self, process: Process, layer: ToldLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A layer goes on filling the queue of a channel that was given up."""
        monkeypatch.setattr(link_module, "RETRY_DELAY", 0.01)
        layer.fails.add("receive")
        await self.heard(process, 1)
        await process.link.probe()
        await until(lambda: not process.link.is_whole)
        layer.fails.clear()
        # What fails to receive may have forgotten all else.
        layer.inner.groups.clear()
        await process.link.repair()
        await self.heard(process, 2)
        await process.looked_after(lambda: process.link.is_whole)
        assert len(layer.channels) == 1

    async def test_a_message_that_can_not_be_handled_ends_nothing(
        self,
        process: Process,
        layer: ToldLayer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(process.link, "_on_message", lambda _message: 1 / 0)
        for _ in range(3):
            await send_from_outside(layer, [hint(1)])
        await settle()
        monkeypatch.undo()
        await self.heard(process, 2)
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert told == ["1 messages of the channel layer couldn't be handled, the last:"]

    async def test_what_waits_goes_bundled_and_the_tenants_in_turn(self, process: Process, layer: ToldLayer) -> None:
        free = layer.hold("group_send")
        process.link.publish("acme", [hint(1)])
        await settle()
        for number in range(2, 502):
            process.link.publish("acme", [hint(number)])
        process.link.publish("globex", [hint(1, "globex")])
        process.link.publish("acme", [hint(502)])
        free.set()
        await settle()
        assert layer.sent("acme") == list(range(1, 503))
        assert layer.sent("globex") == [1]
        sizes = [len(opened(message).content) for _group, message in layer.calls["group_send"]]
        assert sizes == [1, MAX_HINTS, MAX_HINTS, 101, 1]

    async def test_what_waits_is_bounded(self, process: Process, layer: ToldLayer) -> None:
        layer.hold("group_send")
        process.link.publish("acme", [hint(1)])
        await settle()
        for number in range(3 * MAX_WAITING):
            process.link.publish("acme", [hint(number)])
            assert process.link._number_waiting <= MAX_WAITING + 1
            assert process.link._number_waiting == sum(map(len, process.link._waiting.values()))

    async def test_what_waits_is_given_up_when_the_layer_fails(
        self, process: Process, layer: ToldLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is older than the next comparison with the database by the time the layer is back."""
        monkeypatch.setattr(link_module, "PUBLISH_TIMEOUT", 0.05)
        layer.hold("group_send")
        process.link.publish("acme", [hint(1)])
        await settle()
        process.link.publish("acme", [hint(2)])
        process.link.publish("globex", [hint(1, "globex")])
        await until(lambda: not process.link.is_whole)
        assert process.link._number_waiting == 0
        layer.waits.clear()
        process.link.publish("acme", [hint(3)])
        await settle()
        assert layer.sent("acme") == [1, 3]
        assert layer.sent("globex") == []

    async def test_it_makes_up_for_subscriptions_by_itself(self, start: Any, layer: ToldLayer, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
        process = start(layer)
        await process.link.subscribe("acme")
        layer.fails.add("group_add")
        await process.link.subscribe("globex")
        layer.fails.clear()
        await until(lambda: group_of("globex") in layer.inner.groups)

    async def test_it_looks_after_itself(self, start: Any, layer: ToldLayer, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
        layer.fails |= {"new_channel", "group_add", "group_send"}
        process = start(layer)
        await process.link.subscribe("acme")
        assert not process.link.is_whole
        layer.fails.clear()
        await until(lambda: process.link.is_whole)
        await self.heard(process, 1)
        layer.inner.groups.clear()
        await until(lambda: group_of("acme") in layer.inner.groups)
        await self.heard(process, 2)


@pytest.mark.parametrize("layer", [None, "memory"])
async def test_a_process_alone_needs_no_layer(
    layer: Any, monkeypatch: pytest.MonkeyPatch, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    memory = InMemoryChannelLayer()
    process = start(memory if layer else None)
    await process.link.subscribe("acme")
    assert process.link.is_local
    assert process.link.is_whole
    for _ in range(3):
        await process.link.probe()
    assert process.link.is_whole
    if layer is None:
        process.link.publish("acme", [hint(1)])
        assert process.link._number_waiting == 0
    assert caplog.records == []
