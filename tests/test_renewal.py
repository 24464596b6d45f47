"""Keeping who is connected online: many tenants in one statement, none of which keeps another waiting."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from django_tenant_messaging import actions
from django_tenant_messaging.models import UserStatus
from django_tenant_messaging.realtime import access, presence
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.realtime.together import ask_together
from django_tenant_messaging.tenancy import activated, public_schema, run_in_tenant
from tests.harness.breaking import STATUS_TABLE, locked_table, without_table
from tests.harness.presence import connection_opened
from tests.harness.queries import exactly
from tests.harness.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

PATIENCE = 20.0
LONG_AGO = timezone.now() - timedelta(hours=1)


def keys(tenant: Tenant, *names: str) -> list[Any]:
    return [tenant.users[name].pk for name in names]


def renew(users: dict[str, list[Any]], process: str = "here") -> set[str]:
    """Renew as a process does: in the shared schema, and without waiting for long."""
    with activated(public_schema()):
        return ask_together(partial(actions.renew_connections_of, process=process), users)


def online_until(tenant: Tenant, name: str) -> datetime | None:
    with tenant.activated():
        return UserStatus.objects.get(user=tenant.users[name]).online_until


def processes(tenant: Tenant, name: str) -> set[str]:
    with tenant.activated():
        return set(UserStatus.objects.get(user=tenant.users[name]).connections)


def age(tenant: Tenant, *names: str) -> None:
    """Let it be an hour since their connections were renewed."""
    with tenant.activated():
        UserStatus.objects.filter(user__in=keys(tenant, *names)).update(online_until=LONG_AGO)


@pytest.fixture
def online(acme: Tenant, globex: Tenant, team: Any) -> None:
    """Alice and bob of both tenants are connected to this process and to another one."""
    for tenant in (acme, globex):
        with tenant.activated():
            for name in ("alice", "bob"):
                for process in ("here", "there"):
                    connection_opened(tenant.users[name], process=process)


@pytest.mark.usefixtures("online")
class TestTheStatement:
    def test_it_is_one_for_all_and_for_those_who_are_named(self, acme: Tenant, globex: Tenant) -> None:
        """Equal keys in the other tenant are others."""
        before = {tenant: [online_until(tenant, name) for name in ("alice", "bob")] for tenant in (acme, globex)}
        users = {"acme": keys(acme, "alice"), "globex": keys(globex, "bob")}
        with activated(public_schema()), exactly(1):
            assert actions.renew_connections_of(users, process="here") == set()
        (acme_alice, acme_bob), (globex_alice, globex_bob) = before[acme], before[globex]
        assert online_until(acme, "alice") > acme_alice  # type: ignore[operator]
        assert online_until(acme, "bob") == acme_bob
        assert online_until(globex, "alice") == globex_alice
        assert online_until(globex, "bob") > globex_bob  # type: ignore[operator]

    def test_its_text_does_not_differ_with_who_is_online(
        self, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The driver keeps the last texts: as many as differ would seem to leak."""
        texts: list[str] = []
        execute = CursorWrapper.execute

        def noting(self: CursorWrapper, sql: str, params: Any = None) -> Any:
            texts.append(sql)
            return execute(self, sql, params)

        monkeypatch.setattr(CursorWrapper, "execute", noting)
        for names in (["alice"], ["alice", "bob"]):
            with activated(public_schema()):
                actions.renew_connections_of(
                    {tenant.schema_name: keys(tenant, *names) for tenant in (acme, globex)}, process="here"
                )
        assert len({text for text in texts if text.startswith("WITH")}) == 1

    def test_other_processes_count_as_long_as_they_renew(self, acme: Tenant) -> None:
        assert renew({"acme": keys(acme, "alice")}, process="third") == set()
        assert processes(acme, "alice") == {"here", "there", "third"}
        with acme.activated():
            status = UserStatus.objects.get(user=acme.users["alice"])
            status.connections["there"] = LONG_AGO.timestamp()
            status.save()
        assert renew({"acme": keys(acme, "alice")}) == set()
        assert processes(acme, "alice") == {"here", "third"}

    def test_a_locked_status_is_passed_over_and_told(self, acme: Tenant, globex: Tenant, database_url: str) -> None:
        places = [(acme, "alice"), (acme, "bob"), (globex, "alice"), (globex, "bob")]
        before = [online_until(*place) for place in places]
        with psycopg.connect(database_url) as other:
            other.execute(f"SELECT FROM globex.{STATUS_TABLE} WHERE user_id = %s FOR UPDATE", keys(globex, "bob"))
            assert renew({"acme": keys(acme, "alice", "bob"), "globex": keys(globex, "alice", "bob")}) == {"globex"}
        after = [online_until(*place) for place in places]
        assert [old != new for old, new in zip(before, after, strict=True)] == [True, True, True, False]

    def test_a_lost_status_is_told(self, acme: Tenant, globex: Tenant) -> None:
        with globex.activated():
            UserStatus.objects.filter(user=globex.users["bob"]).delete()
        assert renew({"acme": keys(acme, "bob"), "globex": keys(globex, "bob")}) == {"globex"}

    def test_whose_process_stopped_renewing_is_told(self, acme: Tenant, globex: Tenant) -> None:
        age(acme, "bob")
        assert renew({"acme": keys(acme, "alice"), "globex": keys(globex, "alice")}) == {"acme"}

    def test_two_processes_may_name_tenants_and_users_in_any_order(self, acme: Tenant, globex: Tenant) -> None:
        there = {"acme": keys(acme, "alice", "bob"), "globex": keys(globex, "alice", "bob")}
        back = {name: users[::-1] for name, users in reversed(there.items())}

        def often(users: dict[str, list[Any]], process: str) -> None:
            for _ in range(50):
                renew(users, process)

        together(*(partial(often, users, process) for users in (there, back) for process in ("one", "two")))
        for tenant in (acme, globex):
            for name in ("alice", "bob"):
                # Whoever was passed over had just been renewed by somebody else.
                assert renew(there, "one") == set()
                assert {"here", "there", "one"} <= processes(tenant, name)


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not is_true():  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0.05)


async def renewed(tenant: Tenant) -> None:
    """Wait until bob was renewed once more."""
    read = partial(run_in_tenant, tenant.schema_name, online_until, tenant, "bob")
    before = await read()
    async with asyncio.timeout(PATIENCE):
        while await read() == before:  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.05)


@pytest.fixture
async def bobs(acme: Tenant, globex: Tenant, team: Any, peers: Peers, settings: Any) -> None:
    """Bob of each tenant is connected, and renewed every 0.4 seconds."""
    settings.TENANT_MESSAGING = {
        "PRESENCE_TTL": 1.0,
        "ACCESS_RECHECK_INTERVAL": 3600,
        "MIGRATION_CHECK_TTL": 0.1,
        "MIGRATION_RECHECK_INTERVAL": 0.1,
        "RECONCILE_INTERVAL": 3600,
    }
    for tenant in (acme, globex):
        await peers.connect(tenant, "bob")
    await hub_of_this_loop().presence.settled(5)


@pytest.mark.usefixtures("bobs")
class TestAProcess:
    async def test_renews_its_tenants_together(
        self, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nobody(*_args: Any, **_options: Any) -> None:
            raise AssertionError("renewed alone")

        monkeypatch.setattr(presence, "renew_connections", nobody)
        for tenant in (acme, globex):
            await renewed(tenant)

    async def test_a_locked_tenant_keeps_nobody_waiting_but_itself(
        self, acme: Tenant, globex: Tenant, database_url: str
    ) -> None:
        with locked_table(database_url, "globex", STATUS_TABLE):
            for _ in range(3):
                await renewed(acme)
        await renewed(globex)

    async def test_a_tenant_that_is_not_ready_keeps_nobody_from_it(
        self, acme: Tenant, database_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with without_table(database_url, "globex"):
            await until(lambda: "[globex] Online statuses couldn't be renewed" in caplog.text)
            await renewed(acme)

    async def test_a_mistake_in_one_tenant_is_told_and_tried_again(
        self, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_args: Any, **_options: Any) -> None:
            raise LookupError("a mistake")

        with monkeypatch.context() as patch:
            patch.setattr(presence, "renew_connections_of", fail)
            patch.setattr(presence, "expire_connections", fail)
            await until(lambda: caplog.text.count("Online statuses couldn't be renewed.") >= 2)
        for tenant in (acme, globex):
            await renewed(tenant)

    async def test_a_database_that_is_away_is_told_once_for_all(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def ended(*_args: Any, **_options: Any) -> None:
            raise OperationalError("gone")

        monkeypatch.setattr(presence, "renew_connections_of", ended)
        await until(lambda: "Who is online in 2 tenants couldn't be renewed" in caplog.text)
        assert "Online statuses couldn't be renewed" not in caplog.text


class Hanging:
    """The first call of a function hangs until it is let go, in the thread that has a connection of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._first = threading.Lock()
        self.hangs = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._first.acquire(blocking=False):
            self.hangs.set()
            assert self.let_go.wait(PATIENCE)
        return self._function(*args, **options)


@pytest.fixture
def hanging() -> Iterator[Callable[[Callable[..., Any]], Hanging]]:
    made: list[Hanging] = []

    def hang(function: Callable[..., Any]) -> Hanging:
        made.append(Hanging(function))
        return made[-1]

    yield hang
    for one in made:
        one.let_go.set()


@pytest.mark.usefixtures("bobs")
async def test_a_connection_that_hangs_keeps_nobody_from_being_renewed(
    acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch, hanging: Callable[..., Hanging]
) -> None:
    monkeypatch.setattr(presence, "PATIENCE", 0.1)
    monkeypatch.setattr(presence, "renew_connections_of", hang := hanging(actions.renew_connections_of))
    assert await asyncio.to_thread(hang.hangs.wait, PATIENCE)
    for tenant in (acme, globex):
        await renewed(tenant)


@pytest.mark.usefixtures("team")
@pytest.mark.parametrize(
    ("look", "options"),
    [("plainly_stay", {}), ("lost_rights", {"TENANT_MEMBERSHIP": lambda user, _schema: user.is_active})],
)
async def test_a_connection_that_hangs_keeps_nobody_from_being_looked_at(
    look: str,
    options: dict[str, Any],
    acme: Tenant,
    globex: Tenant,
    peers: Peers,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    hanging: Callable[..., Hanging],
) -> None:
    settings.TENANT_MESSAGING = {"ACCESS_RECHECK_INTERVAL": 1.0, **options}
    monkeypatch.setattr(access, "PATIENCE", 0.1)
    bobs = [await peers.connect(tenant, "bob") for tenant in (acme, globex)]
    # Now that those who came were looked at: the next look is a regular one.
    monkeypatch.setattr(access, look, hang := hanging(getattr(access, look)))
    assert await asyncio.to_thread(hang.hangs.wait, PATIENCE)
    for tenant in (acme, globex):
        await run_in_tenant(tenant.schema_name, deactivate)
    for bob in bobs:
        await bob.until(lambda bob=bob: bob.close_code is not None)  # type: ignore[misc]
        assert bob.close_code == 4401


def deactivate() -> None:
    """Nobody announces it."""
    get_user_model().objects.filter(username="bob").update(is_active=False)
