"""Each way in which one tenant's work is known to reach another's data: shown to leak when written naively, and not
to leak as this package writes it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from channels.layers import InMemoryChannelLayer
from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections, transaction
from django.db.utils import ProgrammingError
from django_tenants.utils import get_tenant_model, schema_context

from django_tenant_messaging import actions, signals
from django_tenant_messaging.events import MessagePosted, bus
from django_tenant_messaging.models import ChatRoom, Message
from django_tenant_messaging.selectors import room_history
from django_tenant_messaging.tenancy import activated, close_executor, current_schema, group_name, run_in_tenant
from tests.harness.together import together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Future

    from tests.harness.tenants import Tenant

TRIES = 400
INTERLEAVINGS = 2_000
connection_of_this_thread: Any = connection


def set_schema(schema_name: str) -> None:
    connection_of_this_thread.set_schema(schema_name)


def owner() -> str:
    """Whose room number 1 this thread sees."""
    return ChatRoom.objects.values_list("name", flat=True).get(pk=1)


@pytest.fixture
def rooms(tenants: tuple[Tenant, Tenant], people: tuple[str, ...]) -> tuple[Tenant, Tenant]:
    """In each tenant a room with the number 1, named after the tenant, whose members have equal ids."""
    for tenant in tenants:
        with tenant.activated():
            room = actions.create_room(tenant.users["alice"], name=tenant.schema_name, members=[tenant.users["bob"]])
            assert room.pk == 1
    return tenants


@pytest.fixture
async def shared_thread(rooms: tuple[Tenant, Tenant]) -> AsyncIterator[None]:
    """The thread that all consumers share, in the shared schema before and after the test."""
    await sync_to_async(set_schema)("public")
    yield
    await sync_to_async(set_schema)("public")
    await sync_to_async(connections.close_all)()


@pytest.fixture
async def bridge(rooms: tuple[Tenant, Tenant]) -> AsyncIterator[None]:
    """The package's own threads, gone after the test."""
    yield
    await asyncio.to_thread(close_executor)


async def wrong_answers(read: Callable[[str], Any], tries: int) -> int:
    """How often `read(schema_name)` answers with the room of the other tenant, or with none."""

    async def is_wrong(schema_name: str) -> bool:
        return bool(await read(schema_name) != schema_name)

    answers = await asyncio.gather(*(is_wrong(("acme", "globex")[turn % 2]) for turn in range(tries)))
    return sum(answers)


def on_the_bare_threads(calls: int) -> list[Future[str]]:
    """The schemas in which the package's threads are between calls."""
    from django_tenant_messaging.tenancy import executor

    threads = executor._threads._threads
    assert threads is not None
    return [threads.submit("acme", current_schema) for _ in range(calls)]


async def test_schema_set_in_one_await_and_query_in_the_next(shared_thread: None, bridge: None) -> None:
    async def naive(schema_name: str) -> str:
        await sync_to_async(set_schema)(schema_name)
        return await sync_to_async(owner)()

    async def ours(schema_name: str) -> str:
        return await run_in_tenant(schema_name, owner)

    assert await wrong_answers(naive, TRIES) > 0
    assert await wrong_answers(ours, INTERLEAVINGS) == 0


async def test_task_that_never_sets_a_schema(shared_thread: None, bridge: None) -> None:
    await sync_to_async(set_schema)("acme")
    assert await sync_to_async(owner)() == "acme"  # the next task, which set nothing, reads acme's room

    async def anybody() -> str:
        return await run_in_tenant("public", current_schema)

    calls = [run_in_tenant(("acme", "globex")[turn % 2], owner) for turn in range(200)]
    after = await asyncio.gather(*calls, *(anybody() for _ in range(200)))
    assert set(after[200:]) == {"public"}


async def test_schema_context_held_by_a_coroutine(shared_thread: None, bridge: None) -> None:
    async def naive(schema_name: str) -> str:
        with schema_context(schema_name):  # of the event loop's thread, where no query runs
            return await sync_to_async(owner)()

    with pytest.raises(ProgrammingError, match="does not exist"):
        await naive("acme")
    await sync_to_async(set_schema)("globex")
    assert await naive("acme") == "globex"

    assert await run_in_tenant("acme", owner) == "acme"


def test_threads_that_keep_the_schema_of_earlier_work(rooms: tuple[Tenant, Tenant]) -> None:
    def naive(schema_name: str) -> None:
        set_schema(schema_name)
        owner()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(naive, "acme").result()
        assert pool.submit(current_schema).result() == "acme"
        pool.submit(connections.close_all).result()

    def fail() -> None:
        owner()
        raise LookupError

    async def ours() -> list[str]:
        work = (owner, fail, lambda: set_schema("globex"))
        calls = [run_in_tenant("acme", work[turn % 3]) for turn in range(60)]
        await asyncio.gather(*calls, return_exceptions=True)
        return await asyncio.gather(*(asyncio.wrap_future(outcome) for outcome in on_the_bare_threads(60)))

    try:
        assert set(asyncio.run(ours())) == {"public"}
    finally:
        close_executor()


async def test_thread_pool_with_the_tenant_entered_inside(rooms: tuple[Tenant, Tenant], bridge: None) -> None:
    """Reading and writing, nested and failing, in random order: every row stays in its tenant."""
    sent: Counter[str] = Counter()

    def read_twice(tenant: Tenant, other: Tenant) -> None:
        with activated(other.schema_name):
            assert owner() == other.schema_name
        assert owner() == tenant.schema_name

    def send(tenant: Tenant, _other: Tenant) -> None:
        actions.send_message(tenant.users["alice"], room_id=1, content=tenant.schema_name)
        sent[tenant.schema_name] += 1

    def fail_after_sending(tenant: Tenant, _other: Tenant) -> None:
        with transaction.atomic():
            actions.send_message(tenant.users["bob"], room_id=1, content="never")
            raise LookupError

    def history(tenant: Tenant, _other: Tenant) -> None:
        page = room_history(tenant.users["bob"], room_id=1)
        assert {message.content for message in page.messages} <= {tenant.schema_name}

    chosen = random.Random(5)  # noqa: S311 - repeatable, not secret
    works: tuple[Callable[[Tenant, Tenant], None], ...] = (read_twice, send, fail_after_sending, history)
    calls = []
    for _ in range(INTERLEAVINGS):
        tenant, other = chosen.sample(rooms, 2)
        calls.append(run_in_tenant(tenant.schema_name, chosen.choice(works), tenant, other))
    failures = [error for error in await asyncio.gather(*calls, return_exceptions=True) if error is not None]
    assert [error for error in failures if not isinstance(error, LookupError)] == []
    for tenant in rooms:
        stored = await run_in_tenant(tenant.schema_name, lambda: list(Message.objects.values_list("content", "seq")))
        assert {content for content, _seq in stored} == {tenant.schema_name}
        assert sorted(seq for _content, seq in stored) == list(range(1, sent[tenant.schema_name] + 1))


def test_decorator_that_keeps_its_state_on_a_shared_object(rooms: tuple[Tenant, Tenant]) -> None:
    def schemas(context: Callable[[Callable[[], Any]], Callable[[], Any]]) -> list[str]:
        """The schema after the first to enter and to leave has left, and that of the second while it is inside."""
        first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

        @context
        def first_inside() -> None:
            first_is_in.set()
            second_is_in.wait(10)

        @context
        def second_inside() -> str:
            second_is_in.set()
            first_is_out.wait(10)
            return current_schema()

        def first() -> str:
            first_inside()
            first_is_out.set()
            return current_schema()

        def second() -> str:
            first_is_in.wait(10)
            return str(second_inside())

        return together(first, second)

    # The first to leave restores the connection of the second, and stays in acme itself.
    assert schemas(schema_context("acme")) == ["acme", "public"]
    assert schemas(activated("acme")) == ["public", "acme"]


def test_with_tenant_keeps_the_previous_one_on_the_class(rooms: tuple[Tenant, Tenant]) -> None:
    both_are_in = threading.Barrier(2, timeout=10)
    one_is_out = threading.Event()
    shared = get_tenant_model().objects.get(schema_name="public")

    def visit(schema_name: str, context: Any) -> str:
        set_schema(schema_name)
        with context:
            both_are_in.wait()
            if schema_name == "acme":
                one_is_out.wait(10)
        one_is_out.set()
        return current_schema()

    naive = together(lambda: visit("acme", shared), lambda: visit("globex", shared))
    assert sorted(naive) == ["acme", "globex"]
    one_is_out.clear()
    assert together(lambda: visit("acme", activated("public")), lambda: visit("globex", activated("public"))) == [
        "acme",
        "globex",
    ]


async def test_task_that_outlives_its_request(shared_thread: None, bridge: None) -> None:
    request_is_over = asyncio.Event()

    async def later(read: Callable[[], Any]) -> Any:
        await request_is_over.wait()
        return await read()

    async with ThreadSensitiveContext():
        await sync_to_async(set_schema)("acme")
        assert await sync_to_async(current_schema)() == "acme"
        naive = asyncio.create_task(later(sync_to_async(current_schema)))
        ours = asyncio.create_task(later(lambda: run_in_tenant("acme", owner)))
    request_is_over.set()
    assert await naive == "public"
    assert await ours == "acme"


@pytest.fixture
def announced() -> Iterator[list[tuple[str, str]]]:
    """Pairs of the schema that an event carries and the one that its delivery happened in."""
    seen: list[tuple[str, str]] = []

    def sink(events: Any) -> None:
        seen.extend((event.schema_name, current_schema()) for event in events if isinstance(event, MessagePosted))

    bus.connect_sink(sink)
    yield seen
    bus._sinks.remove(sink)


def test_on_commit_runs_when_the_inner_tenant_is_gone(
    rooms: tuple[Tenant, Tenant], announced: list[tuple[str, str]]
) -> None:
    naive: list[str] = []
    received: list[tuple[str, str, str]] = []

    def receiver(message: Any, schema_name: str, **_kwargs: Any) -> None:
        received.append((message.content, schema_name, owner()))

    signals.message_sent.connect(receiver)
    try:
        with transaction.atomic():
            for tenant in rooms:
                with tenant.activated():
                    transaction.on_commit(lambda: naive.append(current_schema()))
                    actions.send_message(tenant.users["alice"], room_id=1, content=tenant.schema_name)
    finally:
        signals.message_sent.disconnect(receiver)
    assert naive == ["public", "public"]
    assert announced == [("acme", "public"), ("globex", "public")]
    assert received == [("acme", "acme", "acme"), ("globex", "globex", "globex")]
    assert current_schema() == "public"


async def test_group_names_without_the_tenant() -> None:
    layer = InMemoryChannelLayer()

    async def crossed(name: Callable[[str, int], str]) -> int:
        """How many of a thousand rooms' events reach the room of the same number in the other tenant."""
        count = 0
        for room_id in range(1_000):
            channel = await layer.new_channel()
            await layer.group_add(name("globex", room_id), channel)
            await layer.group_send(name("acme", room_id), {"type": "event"})
            count += not layer.channels[channel].empty() if channel in layer.channels else 0
        return count

    assert await crossed(lambda _schema_name, room_id: f"room.{room_id}") == 1_000
    assert await crossed(lambda schema_name, room_id: group_name(schema_name, "room", room_id)) == 0


def test_content_types_are_cached_over_all_tenants(rooms: tuple[Tenant, Tenant]) -> None:
    def of_acme() -> int:
        set_schema("acme")
        return ContentType.objects.get_for_model(ChatRoom).pk

    with activated("globex"), transaction.atomic():
        mine = ContentType.objects.filter(app_label="django_tenant_messaging", model="chatroom")
        mine.update(id=1_000_000)
        assert ContentType.objects.get_for_model(ChatRoom).pk == 1_000_000
        (acmes,) = together(of_acme)
        assert ContentType.objects.get_for_model(ChatRoom).pk == acmes != mine.get().pk
        transaction.set_rollback(True)
    ContentType.objects.clear_cache()

    fields = [
        field for model in apps.get_app_config("django_tenant_messaging").get_models() for field in fields_of(model)
    ]
    assert [field for field in fields if field.related_model is ContentType] == []
    assert [field for field in fields if isinstance(field, GenericForeignKey)] == []


def fields_of(model: Any) -> list[Any]:
    return [*model._meta.get_fields(include_hidden=True), *model._meta.private_fields]
