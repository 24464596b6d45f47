"""The bridge from coroutines to work in a tenant: what becomes of schemas, connections and broken connections."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, connections, transaction
from django.db.utils import ProgrammingError

from django_tenant_messaging import actions
from django_tenant_messaging.actions import Draft
from django_tenant_messaging.actions.sending import PREPARED_FROM
from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.models import ChatRoom, Message
from django_tenant_messaging.tenancy import (
    activated,
    close_executor,
    current_schema,
    executor,
    run_in_tenant,
    thread_connections,
)
from tests.harness.breaking import locked_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant

untyped: Any = connection


@pytest.fixture(autouse=True)
def bridge(tenants: Any) -> Iterator[None]:
    close_executor()
    yield
    close_executor()


def in_tenant(schema_name: str, function: Callable[..., Any]) -> Any:
    """The result of a single call over the bridge."""
    return asyncio.run(run_in_tenant(schema_name, function))


def all_of(*calls: tuple[str, Callable[..., Any]]) -> list[Any]:
    """The results and exceptions of calls at once."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(run_in_tenant(*call) for call in calls), return_exceptions=True)

    return asyncio.run(run())


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid: int = cursor.fetchone()[0]
        return pid


def search_path() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW search_path")
        path: str = cursor.fetchone()[0]
        return path


def end(*backends: int) -> None:
    """Break connections, as a restarting server does."""
    with connection.cursor() as cursor:
        for pid in backends:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def backends_there() -> set[int]:
    """The backends of all connections to this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return {pid for (pid,) in cursor.fetchall()}


def sessions() -> int:
    """How many connections there are to this database."""
    return len(backends_there())


def until(is_true: Callable[[], bool]) -> None:
    patience = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < patience


def break_own_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def raise_lookup_error() -> None:
    assert backend()
    raise LookupError


async def test_result_arguments_and_context() -> None:
    asked_by: contextvars.ContextVar[str] = contextvars.ContextVar("asked_by")
    asked_by.set("the caller")

    def work(first: int, *, second: int) -> tuple[str, int, str]:
        return current_schema(), first + second, asked_by.get()

    assert await run_in_tenant("acme", work, 1, second=2) == ("acme", 3, "the caller")


def test_search_path_is_the_tenants() -> None:
    assert in_tenant("globex", search_path) == "globex, public"
    assert in_tenant("public", search_path) == "public"


def used_connections() -> int:
    untyped.close()
    stats = untyped.pool.get_stats()
    used: int = stats["pool_size"] - stats["pool_available"]
    return used


@pytest.mark.parametrize("pooled", [True, False])
def test_threads_bound_the_connections(pooled: bool, request: pytest.FixtureRequest) -> None:
    if not pooled:
        request.getfixturevalue("no_pool")

    def fail_in_transaction() -> None:
        with transaction.atomic():
            ChatRoom.objects.create(name="never")
            raise LookupError

    def leave_transaction_open() -> None:
        transaction.set_autocommit(False)
        ChatRoom.objects.create(name="never")

    def bad_sql() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT no_such_column")

    if pooled:
        untyped.ensure_connection()
        untyped.pool.wait()  # until it has as many as it begins with
    # Not how many: those that an earlier test closed are gone a moment later.
    before = backends_there()
    works = (backend, raise_lookup_error, fail_in_transaction, leave_transaction_open, bad_sql)
    results = all_of(*((("acme", "globex")[turn % 2], works[turn % len(works)]) for turn in range(500)))
    assert {type(result) for result in results} == {int, LookupError, ProgrammingError, type(None)}
    added = backends_there() - before
    assert before.isdisjoint(result for result in results if isinstance(result, int))
    assert 0 < len(added) <= 8
    close_executor()
    until(lambda: backends_there() <= before)  # PostgreSQL takes a moment to notice
    assert in_tenant("acme", ChatRoom.objects.count) == 0


def test_the_pool_is_left_to_the_pages() -> None:
    used_before = used_connections()
    all_of(*[("acme", backend)] * 20)
    assert used_connections() == used_before


def test_connections_to_other_databases_are_given_back(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    default = connections.settings["default"]
    connections.settings["other"] = {**default, "OPTIONS": {**default["OPTIONS"], "pool": False}}

    def use_other() -> int:
        connections["other"].ensure_connection()
        return sessions()

    try:
        kept = in_tenant("acme", backend)
        before = sessions()
        assert in_tenant("acme", use_other) == before + 1
        until(lambda: sessions() == before)
        assert in_tenant("acme", backend) == kept
    finally:
        del connections.settings["other"]


def test_kept_connection_that_broke(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    kept = in_tenant("acme", backend)
    assert in_tenant("globex", backend) == kept
    end(kept)
    with pytest.raises(Unavailable) as caught:
        in_tenant("acme", backend)
    assert caught.value.code == "unavailable"
    assert in_tenant("acme", backend) != kept
    assert in_tenant("globex", search_path) == "globex, public"


def test_idle_connection_is_probed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    monkeypatch.setattr(thread_connections, "IDLE_CHECK_AFTER", 0.0)
    kept = in_tenant("acme", backend)
    end(kept)
    assert in_tenant("acme", backend) != kept


def test_a_prepared_statement_writes_into_the_tenant_of_the_moment(
    tenants: tuple[Tenant, Tenant], people: Any, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    # The last of them write as much as half of all, so with the same mark.
    turns = 4 * thread_connections.PREPARE_THRESHOLD
    for tenant in tenants:
        with tenant.activated():
            actions.create_room(tenant.users["alice"], name="team", members=[])

    def prepared() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE position('WITH draft' in statement) > 0")
            return int(cursor.fetchone()[0])

    def texts(tenant: Tenant, turn: int) -> list[str]:
        return [f"{tenant.schema_name} {turn} {number}" for number in range(PREPARED_FROM)]

    for turn in range(turns):
        for tenant in tenants:
            drafts = [Draft(tenant.users["alice"], 1, text) for text in texts(tenant, turn)]
            answers = in_tenant(tenant.schema_name, partial(actions.send_messages, drafts))
            assert [answer.message.content for answer in answers] == texts(tenant, turn)
    assert in_tenant("acme", prepared) >= 2
    # Any other statement is neither prepared nor counted.
    assert in_tenant("acme", lambda: connection.connection.prepare_threshold) is None
    for tenant in tenants:
        with tenant.activated():
            contents = list(Message.objects.order_by("seq").values_list("content", flat=True))
        assert contents == [text for turn in range(turns) for text in texts(tenant, turn)]


def test_a_plan_made_for_small_tables_is_not_kept(
    acme: Tenant, people: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    # As PostgreSQL has it, with which it prefers reading a table as a whole for longer.
    monkeypatch.setattr(thread_connections, "RANDOM_PAGE_COST", "4")
    number = 2_000
    with acme.activated():
        alice = acme.users["alice"]
        actions.create_room(alice, name="team", members=[])

    def rows_read_in_order() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
            cursor.execute("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = %s::regclass", [table])
            return int(cursor.fetchone()[0])

    def vacuum() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM ANALYZE {table}")

    table = Message._meta.db_table
    for first in range(0, number, PREPARED_FROM):
        drafts = [Draft(alice, 1, f"{first + offset}") for offset in range(PREPARED_FROM)]
        in_tenant("acme", partial(actions.send_messages, drafts))
        if not first:
            # Of an empty table PostgreSQL expects that it will grow.
            in_tenant("acme", vacuum)
    # By one plan for all, it would be all that is there, twice for each message: some four millions.
    assert in_tenant("acme", rows_read_in_order) < 1_000_000


def test_a_plan_is_for_a_tenant_a_size_and_a_time(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    def marks() -> list[str]:
        return [thread_connections.plan_mark(rows) for rows in (100, 20, 20)]

    def marks_in_another_minute() -> list[str]:
        monkeypatch.setattr(thread_connections, "PLAN_LASTS", 1e-3)
        return [thread_connections.plan_mark(0)]

    first, still, doubled = in_tenant("acme", marks)
    assert first == still != doubled
    assert in_tenant("globex", marks)[0] != first
    assert in_tenant("acme", marks_in_another_minute)[0] not in {first, doubled}


@pytest.mark.parametrize("pooled", [True, False])
def test_connection_that_breaks_in_the_middle(pooled: bool, request: pytest.FixtureRequest) -> None:
    if not pooled:
        request.getfixturevalue("no_pool")

    def in_transaction() -> None:
        with transaction.atomic():
            ChatRoom.objects.create(name="never")
            break_own_connection()

    for work in (break_own_connection, in_transaction):
        with pytest.raises(Unavailable):
            in_tenant("acme", work)
        # All threads, so that the broken one is among them.
        assert all(type(pid) is int for pid in all_of(*[("acme", backend)] * 40))
    assert in_tenant("acme", ChatRoom.objects.count) == 0


def test_the_threads_notice_when_the_databases_host_is_gone(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def parameters() -> dict[str, str]:
        connection.ensure_connection()
        return {name: value for name, value in connection.connection.info.get_parameters().items() if "keep" in name}

    kept = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}
    assert in_tenant("acme", parameters).items() >= kept.items()
    close_executor()
    # What the host chose stays.
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "keepalives_idle", 60)
    assert in_tenant("acme", parameters)["keepalives_idle"] == "60"
    close_executor()


TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


def timeouts() -> tuple[str, ...]:
    def shown(name: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"SHOW {name}")
            value: str = cursor.fetchone()[0]
            return value

    return tuple(shown(name) for name in TIMEOUTS)


@pytest.mark.parametrize("pooled", [True, False])
def test_timeouts_are_those_of_the_settings_and_only_for_the_threads(
    pooled: bool, request: pytest.FixtureRequest, settings: Any
) -> None:
    if not pooled:
        request.getfixturevalue("no_pool")
    of_the_server = timeouts()
    assert in_tenant("acme", timeouts) == ("15s", "5s", "1min")

    def closed_by_the_work() -> tuple[str, ...]:
        connection.close()
        return timeouts()

    assert in_tenant("acme", closed_by_the_work) == ("15s", "5s", "1min")
    close_executor()
    settings.TENANT_MESSAGING = {"STATEMENT_TIMEOUT": 1.5, "LOCK_TIMEOUT": None}
    assert in_tenant("globex", timeouts) == ("1500ms", of_the_server[1], "1min")
    close_executor()
    settings.TENANT_MESSAGING = {"STATEMENT_TIMEOUT": None, "LOCK_TIMEOUT": None, "IDLE_TRANSACTION_TIMEOUT": None}
    assert in_tenant("globex", timeouts) == of_the_server
    assert timeouts() == of_the_server


def test_a_statement_that_takes_too_long_costs_its_caller_only(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1, "STATEMENT_TIMEOUT": 0.1}
    kept = in_tenant("acme", backend)

    def sleep() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(60)")

    with pytest.raises(Unavailable):
        in_tenant("acme", sleep)
    assert in_tenant("acme", backend) == kept


def test_a_lock_that_is_not_given_up(settings: Any, database_url: str) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1, "LOCK_TIMEOUT": 0.1, "STATEMENT_TIMEOUT": None}
    kept = in_tenant("acme", backend)
    with locked_table(database_url, "acme", "django_tenant_messaging_chatroom"):
        with pytest.raises(Unavailable):
            in_tenant("acme", ChatRoom.objects.count)
        assert in_tenant("globex", ChatRoom.objects.count) == 0
    assert in_tenant("acme", backend) == kept


def test_a_transaction_that_does_nothing_is_ended(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1, "IDLE_TRANSACTION_TIMEOUT": 0.1}
    idles_as, gone = [0], threading.Event()

    def idle() -> None:
        with transaction.atomic():
            ChatRoom.objects.create(name="never")
            idles_as[0] = backend()
            assert gone.wait(30)
            ChatRoom.objects.create(name="never either")

    async def run() -> Any:
        call = asyncio.create_task(run_in_tenant("acme", idle))
        await asyncio.to_thread(wait_until_gone)
        return (await asyncio.gather(call, return_exceptions=True))[0]

    def wait_until_gone() -> None:
        until(lambda: bool(idles_as[0]) and not is_there(idles_as[0]))
        connection.close()
        gone.set()

    assert isinstance(asyncio.run(run()), Unavailable)
    assert in_tenant("acme", ChatRoom.objects.count) == 0


def is_there(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid])
        return bool(cursor.fetchone()[0])


async def test_a_tenant_whose_calls_hang_keeps_no_other_waiting(database_url: str) -> None:
    with locked_table(database_url, "acme", "django_tenant_messaging_chatroom"):
        hanging = [asyncio.create_task(run_in_tenant("acme", ChatRoom.objects.count)) for _ in range(40)]
        others = [run_in_tenant("globex", ChatRoom.objects.count) for _ in range(40)]
        assert await asyncio.wait_for(asyncio.gather(*others), 60) == [0] * 40
        assert not any(call.done() for call in hanging)
    assert await asyncio.gather(*hanging) == [0] * 40


async def test_too_much_that_waits_is_refused(settings: Any, database_url: str) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 2, "DATABASE_QUEUE_LIMIT": 3}
    with locked_table(database_url, "acme", "django_tenant_messaging_chatroom"):
        # One runs, three wait.
        served = [asyncio.create_task(run_in_tenant("acme", ChatRoom.objects.count)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="waiting"):
            await run_in_tenant("acme", ChatRoom.objects.count)
        assert await run_in_tenant("globex", ChatRoom.objects.count) == 0
    assert await asyncio.gather(*served) == [0] * 4
    assert await run_in_tenant("acme", ChatRoom.objects.count) == 0


async def test_exception_restores_the_schema(settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DATABASE_THREADS": 1}
    with pytest.raises(LookupError):
        await run_in_tenant("acme", raise_lookup_error)
    assert executor._threads._threads is not None
    between_calls = executor._threads._threads.submit("acme", current_schema)
    assert await asyncio.wrap_future(between_calls) == "public"


async def test_cancelled_caller_does_not_stop_the_work() -> None:
    started, may_go_on = threading.Event(), threading.Event()

    def write() -> None:
        started.set()
        may_go_on.wait(10)
        ChatRoom.objects.create(name="written")

    task = asyncio.create_task(run_in_tenant("acme", write))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go_on.set()
    await asyncio.to_thread(close_executor)
    assert await run_in_tenant("acme", ChatRoom.objects.count) == 1


async def test_executor_starts_again_after_its_end() -> None:
    assert await run_in_tenant("acme", current_schema) == "acme"
    await asyncio.to_thread(close_executor)
    assert await run_in_tenant("globex", current_schema) == "globex"


def test_activated_restores_what_was_there(acme: Tenant) -> None:
    seen = []
    with activated("acme"):
        with pytest.raises(LookupError, match="globex"), activated("globex"):
            raise LookupError(current_schema())
        seen.append(current_schema())
        with activated("acme"):
            seen.append(current_schema())
            untyped.set_schema_to_public()  # what a careless callee does
        seen.append(current_schema())
        with activated("public"):
            seen.append(search_path())
        seen.append(search_path())
    assert seen == ["acme", "acme", "acme", "public", "acme, public"]
    assert current_schema() == "public"


def test_activated_restores_the_tenant_object(acme: Tenant) -> None:
    from example.customers.models import Customer

    customer = Customer.objects.get(schema_name="acme")
    untyped.set_tenant(customer, include_public=False)
    with activated("globex"):
        assert search_path() == "globex, public"
    assert untyped.tenant is customer
    assert search_path() == "acme"


def test_activated_after_a_rollback(acme: Tenant) -> None:
    with pytest.raises(LookupError), transaction.atomic(), activated("acme"):
        raise_lookup_error()
    with activated("globex"), transaction.atomic():
        with pytest.raises(LookupError), transaction.atomic(), activated("acme"):
            raise_lookup_error()
        assert search_path() == "globex, public"
