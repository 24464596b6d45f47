"""Comparing with the database: one statement for all tenants, none of which keeps another waiting."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from django.db import connection
from django.db.models.functions import Now

from django_tenant_messaging import actions
from django_tenant_messaging.models import Membership, RoomCounter
from django_tenant_messaging.realtime import catchup, comparison, following, hub
from django_tenant_messaging.realtime.comparison import MOST_UNDER_WAY, Comparison
from django_tenant_messaging.realtime.hub import Hub, hub_of_this_loop
from django_tenant_messaging.realtime.together import MAX_TENANTS, PLANNING, ask_planned
from django_tenant_messaging.selectors import read_heads, read_joins
from django_tenant_messaging.selectors.heads import RECENT_JOIN_SECONDS
from django_tenant_messaging.tenancy import public_schema, run_in_tenant
from tests.harness.breaking import locked_table
from tests.harness.peer import another_hub
from tests.harness.queries import fresh_statement, queries
from tests.test_delivery import LossyLayer, got, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

ROOM = 1
COUNTERS = RoomCounter._meta.db_table
PATIENCE = 20.0


pytestmark = pytest.mark.usefixtures("team")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LossyLayer:
    """It loses everything but the probes: only the comparison finds what other processes wrote."""
    layer = LossyLayer()
    layer.fate = lambda message: int(message["type"] == "messaging.probe")
    monkeypatch.setattr("django_tenant_messaging.realtime.link.get_channel_layer", lambda _alias: layer)
    return layer


@pytest.fixture
async def other_process(layer: LossyLayer, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a process that learns of what others write by comparing alone."""
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.05}
    async with another_hub(peers) as hub:
        yield hub


class Watch:
    """What was read, by whom for whom."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[tuple[str, str]] = []
        self.compared: list[tuple[str, ...]] = []
        for module in (hub, following, catchup):
            monkeypatch.setattr(module, "run_in_tenant", self._noting(module.run_in_tenant))
        monkeypatch.setattr(comparison, "read_heads", self._reading)
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def _noting(self, run: Callable[..., Any]) -> Callable[..., Any]:
        async def noting(schema_name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
            self.reads.append((schema_name, getattr(function, "__name__", repr(function))))
            return await run(schema_name, function, *args, **kwargs)

        return noting

    def _reading(self, asked: Any, **options: Any) -> Any:
        found = read_heads(asked, **options)
        self.compared.append(tuple(sorted(asked)))
        self._loop.call_soon_threadsafe(self._changed.set)
        return found

    async def compared_again(self, number: int) -> None:
        """Wait for so many more comparisons that went well."""
        number += len(self.compared)
        async with asyncio.timeout(PATIENCE):
            while len(self.compared) < number:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


async def test_all_tenants_of_a_process_are_compared_by_one_statement(
    acme: Tenant, globex: Tenant, peers: Peers, watch: Watch, other_process: Hub
) -> None:
    here, there = [await peers.connect(tenant, "bob", hub=other_process) for tenant in (acme, globex)]
    await watch.compared_again(2)
    assert watch.compared[-1] == ("acme", "globex")
    await write(acme, "here")
    await write(globex, "there")
    await got(here, "here")
    await got(there, "there")
    await watch.compared_again(3)
    assert set(watch.compared[-3:]) == {("acme", "globex")}


def test_it_is_one_query_and_one_for_its_plan(acme: Tenant, globex: Tenant) -> None:
    rooms, kept_as = {tenant.schema_name: [ROOM] for tenant in (acme, globex)}, fresh_statement()
    for number in (3, 2):
        with queries() as made:
            heads = read_heads(rooms, kept_as=kept_as)
        assert len(made) == number
        assert {schema_name: found.seqs for schema_name, found in heads.items()} == {"acme": {1: 0}, "globex": {1: 0}}
    with queries() as made:
        read_joins({tenant.schema_name: [user.pk for user in tenant.users.values()] for tenant in (acme, globex)})
    assert len(made) == 1


def test_a_statement_is_another_with_other_tenants(acme: Tenant, globex: Tenant) -> None:
    """What a name stood for before is forgotten, also where room ids are equal."""
    with globex.activated():
        actions.send_message(globex.users["alice"], room_id=ROOM, content="one")
    for _ in range(2):
        for schema_name, seq in (("acme", 0), ("globex", 1)):
            heads = read_heads({schema_name: [ROOM]}, kept_as="kept")
            assert {name: found.seqs for name, found in heads.items()} == {schema_name: {ROOM: seq}}
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE name = 'kept'")
        assert cursor.fetchone() == (1,)


def test_a_connection_that_forgot_the_statement_prepares_it_again(acme: Tenant) -> None:
    for _ in range(2):
        assert read_heads({"acme": [ROOM]}, kept_as="kept")["acme"].seqs == {ROOM: 0}
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")


def test_equal_ids_of_rooms_in_one_statement_are_kept_apart(acme: Tenant, globex: Tenant) -> None:
    with globex.activated():
        alice = globex.users["alice"]
        other = actions.create_room(alice, name="another", members=[])
        for number in range(3):
            actions.send_message(alice, room_id=other.pk, content=f"{number}")
    rooms = {"acme": [ROOM, other.pk], "globex": [other.pk, 99]}
    heads = read_heads(rooms, kept_as="kept")
    assert {name: found.seqs for name, found in heads.items()} == {"acme": {ROOM: 0}, "globex": {other.pk: 3}}
    heads = read_heads({"acme": [], "globex": [ROOM]}, kept_as="kept")
    assert {name: found.seqs for name, found in heads.items()} == {"acme": {}, "globex": {ROOM: 0}}


def test_joins_of_late_are_those_of_who_is_still_there(acme: Tenant, globex: Tenant) -> None:
    users = acme.users
    with acme.activated():
        actions.remove_member(users["alice"], room_id=ROOM, user=users["bob"])
        dave = acme.create_user("dave")
        actions.add_members(users["alice"], room_id=ROOM, users=[dave])
    joins = read_joins({"acme": [users["bob"].pk, dave.pk], "globex": [globex.users["bob"].pk]})
    assert joins == {"acme": {(str(dave.pk), ROOM)}, "globex": {(str(globex.users["bob"].pk), ROOM)}}


def test_whether_somebody_joined_of_late(acme: Tenant, globex: Tenant) -> None:
    with acme.activated():
        _let_joins_be_old()
    rooms: dict[str, list[int]] = {"acme": [ROOM], "globex": []}
    for kept_as in (same := fresh_statement(), same, fresh_statement()):
        heads = read_heads(rooms, kept_as=kept_as)
        assert {name: found.has_joins for name, found in heads.items()} == {"acme": False, "globex": True}


async def test_who_joined_is_read_where_somebody_did_and_nowhere_else(
    acme: Tenant, globex: Tenant, peers: Peers, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
    for tenant in (acme, globex):
        await peers.connect(tenant, "bob")
    await run_in_tenant("acme", _let_joins_be_old)
    read: list[dict[str, list[Any]]] = []

    def reading(users: Any) -> Any:
        read.append(users)
        return read_joins(users)

    monkeypatch.setattr(comparison, "read_joins", reading)
    comparing = Comparison(hub_of_this_loop())
    await comparing._compare()
    assert read == [{"globex": [globex.users["bob"].pk]}]
    await run_in_tenant("globex", _let_joins_be_old)
    await comparing._compare()
    assert len(read) == 1


def _let_joins_be_old() -> None:
    Membership.objects.update(joined_at=Now() - timedelta(seconds=RECENT_JOIN_SECONDS + 1))


class TestGroups:
    """Tenants whose statement is planned once."""

    @pytest.fixture
    def groups(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[int, str]]:
        monkeypatch.setattr(comparison, "MAX_TENANTS", 3)
        comparing = Comparison(cast("Hub", None))
        return lambda names: {number: "".join(group) for number, group in comparing._grouped(names)}

    def test_who_comes_changes_one(self, groups: Callable[[str], dict[int, str]]) -> None:
        assert groups("abcd") == {0: "abc", 1: "d"}
        assert groups("eadcb") == {0: "abc", 1: "de"}

    def test_who_leaves_changes_one_and_makes_room(self, groups: Callable[[str], dict[int, str]]) -> None:
        assert groups("abcdefg") == {0: "abc", 1: "def", 2: "g"}
        assert groups("acdefg") == {0: "ac", 1: "def", 2: "g"}
        assert groups("acgx") == {0: "acx", 2: "g"}
        assert groups("acgxy") == {0: "acx", 1: "y", 2: "g"}


def test_a_large_table_is_not_read_through(acme: Tenant) -> None:
    """Nor does PostgreSQL start processes for it, or plan the statement again and again."""
    kept_as = fresh_statement()
    ask_planned(partial(read_heads, kept_as=kept_as), {"acme": [ROOM]})
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for name, value in PLANNING.items():
            cursor.execute(f"SET LOCAL {name} = {value}")
        cursor.execute(f"EXPLAIN EXECUTE {kept_as}('{{\"{{1}}\"}}')")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = %s", [kept_as])
        assert cursor.fetchone() == (2, 0)
        cursor.execute("ROLLBACK")
    assert "Seq Scan" not in plan
    assert "messaging_member_joined" in plan
    assert "Gather" not in plan


async def test_a_thousand_tenants_take_a_few_statements(
    acme: Tenant, globex: Tenant, peers: Peers, watch: Watch, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
    monkeypatch.setattr(comparison, "MAX_TENANTS", 1)
    for tenant in (acme, globex):
        await peers.connect(tenant, "bob")
    watch.compared.clear()
    await Comparison(hub_of_this_loop())._compare()
    assert watch.compared == [("acme",), ("globex",)]
    assert MAX_TENANTS == 50


async def test_nothing_is_read_when_nothing_changed(
    acme: Tenant, globex: Tenant, peers: Peers, watch: Watch, other_process: Hub
) -> None:
    """Not for who joined a minute ago and knows it, nor for who has left again."""
    for tenant in (acme, globex):
        for name in ("alice", "bob"):
            await peers.connect(tenant, name, hub=other_process)
    users = acme.users
    await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=ROOM, user=users["carol"])
    carol = await peers.connect(acme, "carol", hub=other_process)
    assert carol.hello["rooms"] == []
    await write(acme, "one", sender="alice")
    await peers.opened[1].until(lambda: peers.opened[1].contents() == ["one"])
    await watch.compared_again(2)
    watch.reads.clear()
    await watch.compared_again(5)
    assert watch.reads == []
    await write(globex, "something")
    await peers.opened[2].until(lambda: peers.opened[2].contents() == ["something"])
    assert Counter(watch.reads) == {("globex", "_read"): 1}


async def test_a_locked_tenant_keeps_nobody_waiting_but_itself(
    acme: Tenant, globex: Tenant, peers: Peers, watch: Watch, other_process: Hub, database_url: str
) -> None:
    here, there = [await peers.connect(tenant, "bob", hub=other_process) for tenant in (acme, globex)]
    await watch.compared_again(1)
    with locked_table(database_url, "globex", COUNTERS):
        await write(acme, "one")
        await got(here, "one")
        await watch.compared_again(2)
        await write(acme, "two")
        await got(here, "one", "two")
        assert set(watch.compared[-2:]) == {("acme",)}
    await write(globex, "at last")
    await got(there, "at last")
    async with asyncio.timeout(PATIENCE):
        while watch.compared[-1] != ("acme", "globex"):
            await watch.compared_again(1)


async def test_a_tenant_whose_schema_is_gone_is_closed_and_the_other_is_not(
    acme: Tenant, globex: Tenant, peers: Peers, watch: Watch, other_process: Hub, database_url: str, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {
        "RECONCILE_INTERVAL": 0.05,
        "MIGRATION_CHECK_TTL": 0.1,
        "MIGRATION_RECHECK_INTERVAL": 0.1,
    }
    here, there = [await peers.connect(tenant, "bob", hub=other_process) for tenant in (acme, globex)]
    await watch.compared_again(1)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("ALTER SCHEMA globex RENAME TO away")
        try:
            await there.until(lambda: there.close_code is not None)
            await write(acme, "undisturbed")
            await got(here, "undisturbed")
        finally:
            other.execute("ALTER SCHEMA away RENAME TO globex")
    assert there.close_code == 4503


async def test_a_database_that_is_away_is_told_once_for_all_tenants(
    acme: Tenant,
    globex: Tenant,
    peers: Peers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for tenant in (acme, globex):
        await peers.connect(tenant, "bob")
    await hub_of_this_loop().presence.settled(5)

    def ended(*_args: Any, **_options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(comparison, "read_heads", ended)
    comparing = Comparison(hub_of_this_loop())
    await comparing._compare()
    assert comparing._alone == set()
    told = [record.getMessage() for record in caplog.records if record.name == comparison.__name__]
    assert told == ["Comparing 2 tenants with the database failed: The database did not answer; try again."]
    monkeypatch.undo()
    caplog.set_level(logging.WARNING)
    await comparing._compare()


class Clock:
    """The time as the comparison sees it: it passes by sleeping, and by what a comparison takes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.rounds = asyncio.Semaphore(0)
        self.asleep = asyncio.Event()

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.asleep.set()
        await self.rounds.acquire()
        self.now += seconds

    async def round(self) -> float:
        """Let it sleep until the next time, and return for how long it means to."""
        self.asleep.clear()
        self.rounds.release()
        await self.asleep.wait()
        return self.slept[-1]


class TestHowOften:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        instead = SimpleNamespace(sleep=clock.sleep, Event=asyncio.Event, timeout=asyncio.timeout)
        monkeypatch.setattr(comparison, "asyncio", instead)
        monkeypatch.setattr(comparison, "time", clock)
        return clock

    @pytest.fixture
    async def running(self, clock: Clock, settings: Any, peers: Peers, acme: Tenant) -> AsyncIterator[Hub]:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 2.0}
        await peers.connect(acme, "bob")
        running = hub_of_this_loop()
        task = asyncio.create_task(Comparison(running).run_forever())
        await clock.asleep.wait()
        yield running
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_as_set_while_the_layer_works(self, clock: Clock, running: Hub) -> None:
        assert running.link.is_whole
        assert [await clock.round() for _ in range(3)] == [2.0, 2.0, 2.0]

    async def test_more_often_while_it_does_not_and_as_set_again_after(self, clock: Clock, running: Hub) -> None:
        running.link._is_down = True
        assert [await clock.round() for _ in range(3)] == [0.25, 0.25, 0.25]
        running.link._is_down = False
        assert await clock.round() == 2.0

    @pytest.mark.parametrize(("takes", "sleeps"), [(0.01, 0.25), (0.1, 0.4), (0.4, 1.6), (3.0, 2.0)])
    async def test_never_more_than_a_fifth_of_the_time(
        self, takes: float, sleeps: float, clock: Clock, running: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def take(*_args: Any) -> dict[str, Any]:
            clock.now += takes
            return {}

        monkeypatch.setattr(comparison, "run_in_tenant", take)
        running.link._is_down = True
        assert [await clock.round() for _ in range(2)] == [pytest.approx(sleeps)] * 2

    async def test_a_mistake_ends_nothing(
        self, clock: Clock, running: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise LookupError("a mistake")

        monkeypatch.setattr(running, "tidy", fail)
        assert [await clock.round() for _ in range(2)] == [2.0, 2.0]
        assert caplog.text.count("Looking after the sockets failed.") == 2


class Hanging:
    """Some of the next statements of comparisons hang until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.to_hang = 0
        self.asked = 0
        self.hung = threading.Semaphore(0)
        self._let_go = threading.Event()
        monkeypatch.setattr(comparison, "PATIENCE", 0.1)
        monkeypatch.setattr(comparison, "read_heads", self._read)

    def _read(self, asked: Any, **options: Any) -> Any:
        self.asked += 1
        if self.to_hang:
            self.to_hang -= 1
            self.hung.release()
            assert self._let_go.wait(PATIENCE)
        return read_heads(asked, **options)

    async def hang(self, number: int) -> None:
        """Return when so many hang."""
        self.to_hang = number
        for _ in range(number):
            assert await asyncio.to_thread(self.hung.acquire, timeout=PATIENCE)

    def let_go(self) -> None:
        self.to_hang = 0
        self._let_go.set()


@pytest.fixture
async def hanging(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hanging]:
    hanging = Hanging(monkeypatch)
    yield hanging
    hanging.let_go()


async def test_a_connection_that_hangs_keeps_nobody_from_learning_what_was_lost(
    acme: Tenant, peers: Peers, hanging: Hanging, other_process: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    bob = await peers.connect(acme, "bob", hub=other_process)
    await hanging.hang(1)
    await write(acme, "meanwhile")
    await got(bob, "meanwhile")
    assert "takes long; it is asked again" in caplog.text
    hanging.let_go()
    await write(acme, "after")
    await got(bob, "meanwhile", "after")


async def test_a_database_that_hangs_is_not_asked_more_and_more(
    acme: Tenant, peers: Peers, hanging: Hanging, other_process: Hub
) -> None:
    bob = await peers.connect(acme, "bob", hub=other_process)
    await hanging.hang(MOST_UNDER_WAY)
    asked = hanging.asked
    # Many rounds of 0.05 s.
    await asyncio.sleep(1)
    assert hanging.asked == asked
    await write(acme, "meanwhile")
    hanging.let_go()
    await got(bob, "meanwhile")


async def test_a_layer_that_hangs_does_not_hold_up_the_comparison(
    acme: Tenant, peers: Peers, layer: LossyLayer, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the time it is made for."""
    bob = await peers.connect(acme, "bob", hub=other_process)

    async def hang(*_args: Any) -> None:
        await asyncio.Event().wait()

    for call in ("group_send", "group_add"):
        monkeypatch.setattr(layer, call, hang)
    with monkeypatch.context() as patch:
        # For ever, as far as this test goes.
        patch.setattr("django_tenant_messaging.realtime.link.PUBLISH_TIMEOUT", 3600)
        patch.setattr("django_tenant_messaging.realtime.link.SUBSCRIBE_TIMEOUT", 3600)
        for number in range(3):
            await write(acme, f"{number}")
            await bob.until(lambda number=number: len(bob.contents()) > number)  # type: ignore[misc]
    await got(bob, "0", "1", "2")


async def test_who_may_be_asked_of_the_public_schema(acme: Tenant, globex: Tenant) -> None:
    """The statement names its schemas: it needs no tenant's search path."""
    heads = await run_in_tenant(public_schema(), partial(read_heads, {"acme": [ROOM, 99]}, kept_as="kept"))
    assert heads["acme"].seqs == {ROOM: 0}
