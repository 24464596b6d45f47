"""Whether a schema may be served, as one process knows it: how long it believes, and what makes it look again."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import ProgrammingError, connection, transaction
from django.test import override_settings

from django_tenant_messaging.exceptions import TenantNotReady, Unavailable
from django_tenant_messaging.tenancy import (
    activated,
    close_executor,
    public_schema,
    readiness_of,
    readiness_of_all,
    require_all_ready,
    require_ready,
    run_in_tenant,
)
from django_tenant_messaging.tenancy.gate import hindrance, hindrance_after, inspect_schema, verdicts
from django_tenant_messaging.types import Readiness, SchemaState
from tests.harness.breaking import OURS, locked_table, without_record, without_table
from tests.harness.queries import exactly, queries
from tests.harness.together import together

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.clock import Clock
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("tenants")
# The package exports an object of the same name.
MODULE = sys.modules["django_tenant_messaging.tenancy.gate.verdicts"]


def test_both_tenants_are_ready_and_each_is_looked_at_once() -> None:
    with exactly(1):
        assert readiness_of("acme") == Readiness("acme", SchemaState.OK)
    with exactly(0):
        assert readiness_of("acme").is_ready
    with exactly(1):
        assert readiness_of("globex").is_ready


def test_a_positive_answer_is_believed_for_its_time(clock: Clock, database_url: str) -> None:
    assert readiness_of("acme").is_ready
    with without_table(database_url, "acme"):
        clock.now += 59.9
        with exactly(0):
            assert readiness_of("acme").is_ready
        clock.now += 0.2
        with exactly(1):
            assert readiness_of("acme").state is SchemaState.DRIFTED
        assert readiness_of("globex").is_ready


def test_what_another_process_repaired_is_served_again_soon(clock: Clock, database_url: str) -> None:
    with without_record(database_url, "acme"):
        assert readiness_of("acme").missing_migrations == OURS
        clock.now += 1.9
        with exactly(0):
            assert not readiness_of("acme").is_ready
    with exactly(0):
        assert not readiness_of("acme").is_ready
    clock.now += 0.2
    assert readiness_of("acme").is_ready


def test_several_are_looked_at_together_and_stay_together(clock: Clock, database_url: str) -> None:
    both = ("acme", "globex")
    assert all(readiness_of(name).is_ready for name in ("public", "acme"))
    clock.now += 31
    # The schemas' kinds, which of them are there, and what they hold.
    with exactly(3):
        require_all_ready(both)
    clock.now += 30
    assert readiness_of("public").is_ready
    clock.now += 24
    with exactly(0):
        require_all_ready(both)
    with without_table(database_url, "globex"):
        # Still valid, but not when this will be asked the next time.
        clock.now += 4
        with exactly(3), pytest.raises(TenantNotReady) as caught:
            require_all_ready(both)
        assert caught.value.readiness.schema_name == "globex"
        assert readiness_of("acme").is_ready
    with pytest.raises(TenantNotReady):
        require_all_ready(("acme", "nobody"))


@override_settings(TENANT_MESSAGING={"MIGRATION_CHECK_TTL": 0.0})
def test_the_time_is_a_setting() -> None:
    assert readiness_of("acme").is_ready
    with exactly(1):
        assert readiness_of("acme").is_ready


def test_many_who_ask_at_once_make_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    go_on = threading.Event()

    def slow(schema_name: str, kind: str) -> Readiness:
        looks.append(schema_name)
        go_on.wait(10)
        return inspect_schema(schema_name, kind)

    monkeypatch.setattr(MODULE, "inspect_schema", slow)
    threading.Timer(0.2, go_on.set).start()
    answers = together(*[lambda: readiness_of("acme")] * 20)
    assert looks == ["acme"]
    assert all(answer.is_ready for answer in answers)


class SlowLook:
    """A look at a schema that lasts until somebody else has asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._looking, self._go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(MODULE, "inspect_schema", self._look)

    def _look(self, schema_name: str, kind: str) -> Readiness:
        self._looking.set()
        assert self._go_on.wait(10)
        return inspect_schema(schema_name, kind)

    def meanwhile(self, ask: Callable[[], Any]) -> Any:
        """Return what somebody is told, or the error, while the look goes on; it ends then."""
        assert self._looking.wait(10)
        try:
            return ask()
        except (TenantNotReady, Unavailable) as error:
            return error
        finally:
            self._go_on.set()


def test_who_is_refused_does_not_wait_for_the_next_look(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, database_url: str
) -> None:
    with without_table(database_url, "acme"):
        assert not readiness_of("acme").is_ready
        clock.now += 3
        slow, ask = SlowLook(monkeypatch), partial(readiness_of, "acme")
        answers = together(ask, partial(slow.meanwhile, ask))
    assert [answer.state for answer in answers] == [SchemaState.DRIFTED] * 2


def test_a_look_that_takes_long_makes_no_ready_tenant_unready(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    assert readiness_of("acme").is_ready
    clock.now += 61
    monkeypatch.setattr(MODULE, "CHECK_PATIENCE", 0.05)
    slow = SlowLook(monkeypatch)
    found, answer = together(partial(readiness_of, "acme"), partial(slow.meanwhile, partial(require_ready, "acme")))
    assert found.is_ready
    assert type(answer) is Unavailable


def test_a_look_that_began_before_a_change_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken(schema_name: str, kind: str) -> Readiness:
        found = inspect_schema(schema_name, kind)
        verdicts.forget(schema_name)
        return found

    monkeypatch.setattr(MODULE, "inspect_schema", overtaken)
    assert readiness_of("acme").is_ready
    assert verdicts.fresh("acme") is None


def test_what_an_open_transaction_sees_is_not_believed_after_it() -> None:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE acme.django_tenant_messaging_userstatus RENAME TO put_aside")
        assert readiness_of("acme").state is SchemaState.DRIFTED
        transaction.set_rollback(True)
    assert readiness_of("acme").is_ready


def test_an_error_while_looking_means_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_schema_name: str, _kind: str) -> Readiness:
        raise ImportError("No module named 'shop.migrations.0002'")

    monkeypatch.setattr(MODULE, "inspect_schema", broken)
    found = readiness_of("acme")
    assert found.state is SchemaState.ERROR
    assert "shop.migrations.0002" in found.reason
    with pytest.raises(TenantNotReady):
        require_ready("acme")


class Losing:
    """Ends the connection right before one of the statements in its body."""

    def __init__(self, database_url: str, lost_at: int) -> None:
        self.left = lost_at
        self._database_url = database_url

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """See `connection.execute_wrapper`."""
        if not self.left:
            pid = context["connection"].connection.info.backend_pid
            with psycopg.connect(self._database_url) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        self.left -= 1
        return execute(sql, params, many, context)


@pytest.mark.parametrize(
    ("where", "lost_at"), [("thread", 0), ("thread", 1), ("transaction", 0), ("transaction", 1), ("transaction", 3)]
)
def test_a_lost_connection_says_nothing_of_the_schema(
    where: str, lost_at: int, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether while the tenant's kind is read, while the schema is inspected, or between."""
    losing = Losing(database_url, lost_at)

    def look() -> None:
        with connection.execute_wrapper(losing), transaction.atomic() if where == "transaction" else nullcontext():
            require_ready("acme")

    def in_thread() -> None:
        asyncio.run(run_in_tenant(public_schema(), look))

    run = in_thread if where == "thread" else look
    with pytest.raises(Unavailable):
        run()
    close_executor()
    assert losing.left < 0
    connection.close()
    assert readiness_of("acme").is_ready
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("lost_at", range(2))
def test_a_connection_that_is_lost_outside_of_all_is_told_too(lost_at: int, database_url: str) -> None:
    for look in (partial(require_ready, "acme"), partial(require_all_ready, ("acme", "globex"))):
        verdicts.forget("acme")
        with connection.execute_wrapper(Losing(database_url, lost_at)), pytest.raises(Unavailable):
            look()
        connection.close()
    assert readiness_of("acme").is_ready


def test_what_asks_for_no_error_gets_a_refusal_that_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_schema_name: str, _kind: str) -> Readiness:
        raise Unavailable("The database did not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(MODULE, "inspect_schema", away)
        for found in (readiness_of("acme"), hindrance("acme")):
            assert found is not None
            assert found.state is SchemaState.ERROR
            assert "did not answer" in found.reason
    assert readiness_of("acme").is_ready


def test_a_locked_record_is_an_error_and_the_other_tenant_is_served(database_url: str) -> None:
    with locked_table(database_url, "acme", "django_migrations"):
        assert readiness_of("acme").state is SchemaState.ERROR
        assert "lock timeout" in readiness_of("acme").reason
        assert readiness_of("globex").is_ready
    verdicts.forget("acme")
    assert readiness_of("acme").is_ready


def test_the_limit_of_waiting_ends_with_the_look() -> None:
    assert readiness_of("acme").is_ready
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("0",)


def test_an_unknown_schema_is_missing() -> None:
    assert readiness_of("initech").state is SchemaState.MISSING


def test_a_missing_table_is_noticed_at_once_however_fresh_the_verdict_is(database_url: str) -> None:
    assert readiness_of("acme").is_ready
    with without_table(database_url, "acme"):
        assert hindrance("acme") is None
        with activated("acme"), pytest.raises(ProgrammingError) as raised, connection.cursor() as cursor:
            cursor.execute("SELECT * FROM django_tenant_messaging_userstatus")
        found = hindrance_after(raised.value, "acme")
        assert found is not None
        assert found.state is SchemaState.DRIFTED
        assert hindrance("globex") is None


def test_an_undefined_table_of_the_hosts_own_query_is_not_the_gates() -> None:
    with activated("acme"), pytest.raises(ProgrammingError) as raised, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM a_table_of_nobody")
    assert hindrance_after(raised.value, "acme") is None
    assert hindrance_after(ValueError("no such table"), "acme") is None


def test_a_tenant_needs_the_shared_schema_too(database_url: str) -> None:
    with without_table(database_url, "public", "customers_domain"):
        found = hindrance("acme")
        assert found is not None
        assert (found.schema_name, found.is_shared, found.missing_relations) == ("public", True, ("customers_domain",))
        assert found.remedy == "python manage.py verify_tenant_migrations --fix --schema=public"


def test_the_emergency_switch_lets_everything_through_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock, database_url: str
) -> None:
    monkeypatch.setattr(MODULE, "_bypass_warned", float("-inf"))
    with without_table(database_url, "acme"):
        monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "true")
        for _ in range(3):
            require_ready("acme")
        clock.now += 61
        require_ready("acme")
        warnings = [record for record in caplog.records if "DISABLE_MIGRATION_CHECK" in record.getMessage()]
        assert [record.levelname for record in warnings] == ["WARNING"] * 2
        monkeypatch.setenv("DISABLE_MIGRATION_CHECK", "false")
        with pytest.raises(TenantNotReady):
            require_ready("acme")


def test_an_unready_schema_is_critical_once_a_minute_and_its_recovery_is_told(
    caplog: pytest.LogCaptureFixture, clock: Clock, database_url: str
) -> None:
    caplog.set_level(logging.INFO)
    with without_record(database_url, "acme"):
        for _ in range(20):
            readiness_of("acme")
            clock.now += 4
    readiness_of("acme")
    told = [record for record in caplog.records if record.name == MODULE.__name__]
    assert [record.levelname for record in told] == ["CRITICAL", "CRITICAL", "WARNING"]
    fields: Any = told[0]
    assert fields.schema_name == "acme"
    assert fields.schema_state == "behind"
    assert fields.missing_migrations == list(OURS)
    assert fields.remedy == "python manage.py migrate_schemas --schema=acme"
    assert fields.remedy in fields.getMessage()
    assert "ready again" in told[2].getMessage()


def test_all_schemas_are_looked_at_together(database_url: str) -> None:
    with queries() as first:
        assert {name: found.state for name, found in readiness_of_all().items()} == dict.fromkeys(
            ("public", "acme", "globex"), SchemaState.OK
        )
    with queries() as second:
        readiness_of_all()
    # The list; then the catalog, and a statement for each kind of schema.
    assert (len(first), len(second)) == (4, 1)


def test_the_second_tenant_is_never_looked_at_for_the_first(acme: Tenant) -> None:
    with queries() as made:
        readiness_of(acme.schema_name)
    assert all("globex" not in statement for statement in made)
