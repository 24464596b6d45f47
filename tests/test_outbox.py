"""What is on its way to a client: written at once while the server takes it, bounded and in order while it doesn't."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tenant_messaging.realtime.backlog import Backlog
from django_tenant_messaging.realtime.close_codes import CloseCode
from django_tenant_messaging.realtime.outbox import JOINED_FRAMES, Outbox, joined

if TYPE_CHECKING:
    from collections.abc import Callable


STUCK_SOON = {"SOCKET_STUCK_TIMEOUT": 0.1}


class Client:
    """What an ASGI server's `send` does: takes an event at once, or makes the writer wait."""

    def __init__(self, backlog: Backlog | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.ends = 0
        self.cancelled = 0
        self.error: Exception | None = None
        self._turns: asyncio.Semaphore | None = None
        self._took = asyncio.Event()
        self.outbox = Outbox(self.send, self._end, backlog or Backlog())

    def _end(self) -> None:
        self.ends += 1

    async def send(self, event: dict[str, Any]) -> None:
        try:
            if self._turns is not None:
                await self._turns.acquire()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        self.sent.append(event)
        self._took.set()

    def stop_reading(self) -> None:
        if self._turns is None:
            self._turns = asyncio.Semaphore(0)

    def read(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()

    async def read_one(self) -> None:
        """Take one event while not reading."""
        assert self._turns is not None
        self._took.clear()
        self._turns.release()
        await self._took.wait()

    async def drained(self) -> None:
        self.read()
        await written(self.outbox)

    @property
    def texts(self) -> list[str]:
        """The texts that came, those that were joined taken apart."""
        found: list[str] = []
        for event in self.sent:
            if event["type"] == "websocket.send":
                parsed = json.loads(event["text"])
                found += parsed if isinstance(parsed, list) else [parsed]
        return found

    @property
    def closed_with(self) -> list[int]:
        return [event["code"] for event in self.sent if event["type"] == "websocket.close"]


async def written(outbox: Outbox) -> None:
    """Wait until no task writes any more."""
    while outbox.writer is not None and not outbox.writer.done():
        await asyncio.wait([outbox.writer])


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


def text(value: Any) -> str:
    return json.dumps(str(value))


def put(client: Client, *values: Any, room_id: int = 0) -> None:
    for value in values:
        client.outbox.put(text(value), room_id, value if isinstance(value, int) else 0)


def how_full(client: Client) -> tuple[bool, bool]:
    return client.outbox.is_crowded, client.outbox.is_full


def texts(*values: Any) -> list[str]:
    return [str(value) for value in values]


class TestWhileTheClientReads:
    async def test_a_text_is_written_in_the_call_that_brings_it_and_no_task_is_made(self) -> None:
        client = Client()
        tasks = asyncio.all_tasks()
        for number in range(1_000):
            put(client, number)
            assert client.texts[-1] == str(number)
        assert asyncio.all_tasks() == tasks
        assert client.outbox.writer is None
        assert not client.outbox.is_full

    async def test_a_close_is_written_at_once_and_ends_the_reading(self) -> None:
        client = Client()
        client.outbox.close(CloseCode.RESTART)
        assert (client.closed_with, client.ends) == ([1012], 1)
        assert client.outbox.is_closing

    async def test_nothing_follows_a_close(self) -> None:
        client = Client()
        client.outbox.close(CloseCode.RESTART)
        put(client, "too late")
        client.outbox.close(CloseCode.TOO_SLOW)
        assert (client.texts, client.closed_with) == ([], [1012])


class TestWhileTheClientMakesItWait:
    async def test_what_comes_meanwhile_follows_in_order_and_joined(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, *range(200))
        assert client.sent == []
        assert client.outbox.writer is not None
        await client.drained()
        assert client.texts == texts(*range(200))
        # The first was on its way alone; then as many as a text may hold.
        assert [len(json.loads(event["text"])) for event in client.sent[1:]] == [JOINED_FRAMES] * 3 + [7]
        put(client, "at once again")
        assert client.texts[-1] == "at once again"

    async def test_what_comes_while_the_rest_is_written_is_written_too(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, *range(100))
        await client.read_one()
        put(client, *range(100, 200))
        await client.read_one()
        put(client, *range(200, 300))
        await client.drained()
        assert client.texts == texts(*range(300))

    async def test_texts_are_joined_up_to_a_size(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, "first", *["x" * 40_000] * 5)
        await client.drained()
        assert client.texts == ["first", *["x" * 40_000] * 5]
        assert max(len(event["text"]) for event in client.sent) < 100_000

    async def test_it_is_full_by_number_and_by_size_and_again_empty(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8, "SOCKET_QUEUE_BYTES": 65_536}
        client = Client()
        client.stop_reading()
        put(client, "on its way", *range(4))
        assert how_full(client) == (True, False)
        put(client, *range(4))
        assert how_full(client) == (True, True)
        await client.drained()
        assert how_full(client) == (False, False)
        client.stop_reading()
        put(client, "on its way", "x" * 30_000)
        assert how_full(client) == (False, False)
        put(client, "x" * 30_000)
        assert how_full(client) == (True, False)
        put(client, "x" * 30_000)
        assert how_full(client) == (True, True)
        await client.drained()
        assert how_full(client) == (False, False)
        assert client.outbox._queued_bytes == 0

    async def test_events_are_given_up_and_the_rest_is_kept(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, "on its way", "reply 1")
        put(client, 7, 8, 9, room_id=1)
        put(client, "reply 2")
        put(client, 3, 4, room_id=2)
        assert client.outbox.give_up_events() == {1: 7, 2: 3}
        assert client.outbox.give_up_events() == {}
        await client.drained()
        assert client.texts == ["on its way", "reply 1", "reply 2"]
        assert client.outbox._queued_bytes == 0


class TestTogether:
    """What is put into outboxes in one go is one write for each client."""

    async def test_each_client_is_written_to_once_and_in_order(self) -> None:
        one, other, third = Client(), Client(), Client()
        with Outbox.together():
            for number in range(10):
                put(one, number)
                put(other, -number)
            assert one.sent == other.sent == []
        assert (one.texts, other.texts) == (texts(*range(10)), texts(*(-number for number in range(10))))
        assert [len(client.sent) for client in (one, other, third)] == [1, 1, 0]
        put(one, "at once again")
        assert one.texts[-1] == "at once again"

    async def test_more_than_a_text_may_hold(self) -> None:
        client = Client()
        with Outbox.together():
            put(client, *range(150))
        assert client.texts == texts(*range(150))
        assert len(client.sent) == 3

    async def test_a_client_that_makes_it_wait(self) -> None:
        slow, stops = Client(), Client()
        slow.stop_reading()
        put(slow, "on its way")
        stops.stop_reading()
        with Outbox.together():
            put(slow, *range(100))
            put(stops, *range(150))
        assert slow.sent == stops.sent == []
        put(stops, "behind it all")
        await asyncio.gather(slow.drained(), stops.drained())
        assert slow.texts == ["on its way", *texts(*range(100))]
        assert stops.texts == [*texts(*range(150)), "behind it all"]

    async def test_one_that_is_gone_keeps_nobody_from_theirs(self) -> None:
        gone, there = Client(), Client()
        gone.error = ConnectionResetError()
        with Outbox.together():
            put(gone, *range(150))
            put(there, "hello")
        assert (gone.outbox.is_broken, gone.sent, there.texts) == (True, [], ["hello"])

    async def test_what_is_closed_in_between_gets_nothing(self) -> None:
        client = Client()
        with Outbox.together():
            put(client, "left out")
            client.outbox.close(CloseCode.UNAVAILABLE)
            put(client, "left out too")
        assert (client.texts, client.closed_with) == ([], [4503])

    async def test_what_is_given_up_in_between(self) -> None:
        client = Client()
        with Outbox.together():
            put(client, "reply")
            put(client, 7, 8, room_id=1)
            assert client.outbox.give_up_events() == {1: 7}
            put(client, "another")
        assert client.texts == ["reply", "another"]
        with Outbox.together():
            put(client, 7, 8, room_id=1)
            assert client.outbox.give_up_events() == {1: 7}
            put(client, "and again")
        assert client.texts == ["reply", "another", "and again"]

    async def test_a_mistake_in_the_body_holds_nothing_back(self) -> None:
        client = Client()

        def mistaken() -> None:
            with Outbox.together():
                put(client, "said before")
                raise LookupError

        with pytest.raises(LookupError):
            mistaken()
        assert client.texts == ["said before"]
        put(client, "at once again")
        assert client.texts[-1] == "at once again"


class TestWaitingForRoom:
    @pytest.fixture
    def client(self, settings: Any) -> Client:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8}
        return Client()

    async def waiting(self, client: Client) -> asyncio.Task[None]:
        """Fill the queue, and let two wait for room."""
        client.stop_reading()
        put(client, "on its way")
        put(client, *range(8), room_id=1)
        waiting = [asyncio.create_task(client.outbox.wait_for_room()) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(waits.done() for waits in waiting)
        return asyncio.create_task(_all(waiting))

    async def test_no_wait_where_there_is_room(self, client: Client) -> None:
        await asyncio.wait_for(client.outbox.wait_for_room(), 5)

    async def test_it_ends_when_the_client_reads_on(self, client: Client) -> None:
        waits = await self.waiting(client)
        client.read()
        await asyncio.wait_for(waits, 5)

    async def test_it_ends_when_events_are_given_up(self, client: Client) -> None:
        """Nothing is left that the writer would have to take, so nobody else says that there is room."""
        waits = await self.waiting(client)
        client.outbox.give_up_events()
        await asyncio.wait_for(waits, 5)

    async def test_it_ends_when_the_socket_is_closed(self, client: Client) -> None:
        waits = await self.waiting(client)
        client.outbox.close(CloseCode.TOO_SLOW)
        await asyncio.wait_for(waits, 5)

    async def test_it_ends_when_the_client_is_given_up(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8, **STUCK_SOON}
        waits = await self.waiting(Client())
        await asyncio.wait_for(waits, 5)

    async def test_it_ends_when_the_client_is_gone(self, client: Client) -> None:
        waits = await self.waiting(client)
        client.error = ConnectionResetError()
        client.read()
        await asyncio.wait_for(waits, 5)


class TestClosing:
    async def test_what_waits_is_left_out_and_nothing_is_added(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, "on its way", "left out")
        client.outbox.close(CloseCode.UNAVAILABLE)
        put(client, "secret")
        assert client.ends == 0
        await client.drained()
        assert (client.texts, client.closed_with, client.ends) == (["on its way"], [4503], 1)

    async def test_a_close_that_can_not_be_written(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, "on its way")
        client.outbox.close(CloseCode.UNAVAILABLE)
        client.error = ConnectionResetError()
        await client.drained()
        assert (client.sent, client.outbox.is_broken) == ([], True)
        assert client.ends


class TestGone:
    @pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("ClientDisconnected")])
    async def test_a_send_that_raises_at_once(self, error: Exception) -> None:
        client = Client()
        client.error = error
        put(client, "lost")
        assert (client.outbox.is_broken, client.ends) == (True, 1)
        client.error = None
        put(client, "lost too")
        client.outbox.close(CloseCode.RESTART)
        assert client.sent == []

    async def test_a_send_that_raises_later(self) -> None:
        client = Client()
        client.stop_reading()
        put(client, *range(10))
        client.error = ConnectionResetError()
        await client.drained()
        assert (client.sent, client.outbox.is_broken, client.ends) == ([], True, 1)
        assert (len(client.outbox._queue), client.outbox._queued_bytes) == (0, 0)

    @pytest.mark.parametrize("taken", [0, 1, 2])
    async def test_who_takes_nothing_is_given_up(self, taken: int, settings: Any) -> None:
        """Whichever write it is: the first, a later one, or the last, which is the close."""
        settings.TENANT_MESSAGING = STUCK_SOON
        client = Client()
        client.stop_reading()
        put(client, "on its way", *range(10))
        if taken:
            await client.read_one()
        if taken == 2:
            # The second is on its way, and the close follows it.
            await asyncio.sleep(0)
            client.outbox.close(CloseCode.RESTART)
            await client.read_one()
        await asyncio.wait_for(written(client.outbox), 10)
        assert (client.outbox.is_broken, client.ends, len(client.sent)) == (True, 1, taken)
        assert client.cancelled == (1 if taken == 2 else 2)
        put(client, "lost")
        client.outbox.close(CloseCode.TOO_SLOW)
        assert (len(client.sent), len(client.outbox._queue), client.outbox._queued_bytes) == (taken, 0, 0)

    async def test_who_takes_something_too_late_hears_why(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_STUCK_TIMEOUT": 0.5}
        client = Client()
        client.stop_reading()
        put(client, "on its way", *range(10))
        while not client.cancelled:  # noqa: ASYNC110 - a server's `send` tells nobody
            await asyncio.sleep(0.01)
        put(client, "too late")
        await client.drained()
        assert (client.texts, client.closed_with) == ([], [4408])
        assert (client.outbox.is_broken, client.ends) == (False, 1)

    async def test_who_takes_something_in_time_again_and_again_is_not_given_up(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_STUCK_TIMEOUT": 1.0}
        client = Client()
        client.stop_reading()
        put(client, "on its way")
        for number in range(8):
            put(client, number)
            await asyncio.sleep(0.15)
            await client.read_one()
        await client.drained()
        assert (client.outbox.is_broken, client.texts) == (False, ["on its way", *(str(number) for number in range(8))])


class TestTheFirstStepTakenOutsideOfATask:
    """`_Begun`: what the server's `send` waits for is waited for by the writer's task, however it waits."""

    async def outbox(self, send: Callable[[dict[str, Any]], Any]) -> Outbox:
        outbox = Outbox(send, lambda: None, Backlog())
        outbox.put("text")
        await written(outbox)
        return outbox

    async def test_nested_waits_of_every_kind(self) -> None:
        done: list[Any] = []

        async def inner(delay: float) -> str:
            await asyncio.sleep(delay)
            return "inner"

        async def send(event: dict[str, Any]) -> None:
            done.append(await inner(0))
            done.append(await inner(0.001))
            done.append(await asyncio.gather(inner(0), inner(0.001)))
            loop = asyncio.get_running_loop()
            done.append(await loop.run_in_executor(None, lambda: "thread"))
            async with asyncio.timeout(5), asyncio.Lock():
                done.append(event["text"])

        outbox = await self.outbox(send)
        assert done == ["inner", "inner", ["inner", "inner"], "thread", "text"]
        assert not outbox.is_broken

    async def test_an_exception_of_what_is_waited_for_can_be_handled(self) -> None:
        handled: list[str] = []

        async def fail() -> None:
            await asyncio.sleep(0)
            raise ConnectionResetError

        async def send(_event: dict[str, Any]) -> None:
            for what in (fail(), asyncio.wait_for(asyncio.Event().wait(), 0.001)):
                try:
                    await what
                except (ConnectionResetError, TimeoutError) as error:
                    handled.append(type(error).__name__)

        outbox = await self.outbox(send)
        assert handled == ["ConnectionResetError", "TimeoutError"]
        assert not outbox.is_broken

    async def test_a_cancellation_reaches_what_is_waited_for(self) -> None:
        started, seen = asyncio.Event(), []

        async def send(_event: dict[str, Any]) -> None:
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                seen.append("cleaned up")

        outbox = Outbox(send, lambda: None, Backlog())
        outbox.put("text")
        await started.wait()
        writer = outbox.writer
        assert writer is not None
        await asyncio.sleep(0)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        assert seen == ["cleaned up"]
        assert outbox.writer is None


@given(st.lists(st.lists(st.integers(), min_size=1, max_size=4), min_size=1, max_size=8))
def test_joining_is_one_flat_array_in_order(groups: list[list[int]]) -> None:
    one = joined([joined([json.dumps({"n": value}) for value in group]) for group in groups])
    found = json.loads(one)
    flat = [{"n": value} for group in groups for value in group]
    assert (found if isinstance(found, list) else [found]) == flat


class Course:
    """A client and what it has to get, whatever happens in which order."""

    def __init__(self) -> None:
        self.client = Client()
        self.expected: list[str] = []
        self.events: list[str] = []
        self.given_up: set[str] = set()

    async def reply(self) -> None:
        self.expected.append(f"r{len(self.expected)}")
        put(self.client, self.expected[-1])

    async def event(self) -> None:
        self.events.append(f"e{len(self.events)}")
        self.expected.append(self.events[-1])
        self.client.outbox.put(text(self.events[-1]), 1, len(self.events) - 1)

    async def batch(self) -> None:
        with Outbox.together():
            for _ in range(3):
                await self.event()

    async def stop(self) -> None:
        self.client.stop_reading()

    async def read(self) -> None:
        self.client.read()

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def give_up(self) -> None:
        start = self.client.outbox.give_up_events().get(1, len(self.events))
        self.given_up |= set(self.events[start:])


STEPS = (Course.reply, Course.event, Course.batch, Course.stop, Course.read, Course.pause, Course.give_up)


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_any_course_ends_with_everything_in_order_or_given_up(steps: list[Any]) -> None:
    """A room's events come without a gap up to where they were given up, everything else always."""

    async def play() -> None:
        course = Course()
        for step in steps:
            await step(course)
        await course.client.drained()
        assert course.client.texts == [value for value in course.expected if value not in course.given_up]
        assert course.client.outbox._queued_bytes == 0

    asyncio.run(play())
