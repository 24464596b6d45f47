"""What a repair, a look and a send make of one another, and of a schema that goes away or comes meanwhile."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, connections

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import TenantNotReady
from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.tenancy.gate import inspect_schema, inspect_schemas, inspection, mending, reading
from django_tenant_messaging.tenancy.gate.describing import describe_tables
from django_tenant_messaging.tenancy.gate.repair import repair_schema
from django_tenant_messaging.types import SchemaState
from example.customers.models import Customer, Domain
from tests.harness.commands import run_command
from tests.harness.spare import execute, spare_tenant
from tests.test_mending import break_it, contents, fill
from tests.test_structure import OURS
from tests.test_verify_command import PATIENCE, finish, holding, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

BUILT = "messaging_message_client_id_new"


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def value(query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return (cursor.fetchone() or (None,))[0]


def builders() -> int:
    return int(
        value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE UNIQUE INDEX CONC%' AND state = 'active'")
    )


# A repair and what goes on beside it


def test_a_repair_that_is_killed_while_it_builds_an_index_is_done_again(spare: Tenant, database_url: str) -> None:
    """Killed, so that nothing of it could clean up; its build mustn't go on by itself either."""
    fill(spare)
    before = contents(spare)
    break_it("a unique constraint")
    with psycopg.connect(database_url) as older:
        # The build waits for it.
        older.execute(f"UPDATE spare.{OURS}message SET content = content WHERE id = 1")
        process = start(database_url, "--fix", "--schema=spare")
        until(lambda: value(f"SELECT to_regclass('spare.{BUILT}')") is not None or process.poll() is not None)
        assert process.poll() is None, finish(process)
        process.send_signal(signal.SIGKILL)
        finish(process)
        until(lambda: builders() == 0)
        assert value(f"SELECT indisvalid FROM pg_index WHERE indexrelid = 'spare.{BUILT}'::regclass") is False
    status, printed, complaints = finish(start(database_url, "--fix", "--schema=spare"))
    assert (status, complaints) == (0, "")
    assert printed.splitlines()[:2] == [
        f"spare: index {BUILT}, which wasn't valid, was dropped",
        "spare: unique constraint messaging_message_client_id was built again",
    ]
    assert contents(spare) == before


@pytest.mark.parametrize(
    "what",
    [
        "a unique constraint",
        "an index",
        "a foreign key",
        "what happens when a user is deleted",
        "a check",
        "a column that may be null",
    ],
)
def test_messages_are_sent_while_it_is_repaired(what: str, spare: Tenant, globex: Tenant) -> None:
    fill(spare)
    with spare.activated():
        room = actions.create_room(spare.users["alice"], name="team", members=[spare.users["bob"]])
    break_it(what)
    sent: list[int] = []
    failed: list[BaseException] = []
    is_over = threading.Event()

    def send() -> None:
        try:
            while not is_over.is_set():
                with spare.activated():
                    outcome = actions.send_message(spare.users["alice"], room_id=room.pk, content=f"number {len(sent)}")
                sent.append(outcome.message.seq)
        except BaseException as error:  # noqa: BLE001 - told by the test itself
            failed.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        until(lambda: len(sent) > 3 or failed)
        repair = repair_schema("spare", "")
        count = len(sent)
        until(lambda: len(sent) > count + 3 or failed)
    finally:
        is_over.set()
        thread.join()
    assert failed == []
    assert repair.is_success, repair.failure
    assert sent == list(range(1, len(sent) + 1))


# A schema that goes away or comes


def delete(schema_name: str) -> None:
    """As the deletion of a tenant does."""
    execute(f"DROP SCHEMA {schema_name} CASCADE")
    Customer.objects.filter(schema_name=schema_name).delete()


def test_a_tenant_that_is_deleted_before_its_repair_is_left_out(spare: Tenant, database_url: str) -> None:
    break_it("an index")
    with spare_tenant("other"):
        execute("DROP TABLE other.django_tenant_messaging_userstatus")
        with holding("spare") as wait_for:
            process = start(database_url, "--fix", "--schema=spare", "--schema=other")
            wait_for(1, process)
            delete("spare")
        status, printed, complaints = finish(process)
        assert inspect_schema("other", "").is_ready
    assert (status, complaints) == (0, "")
    assert "spare: FAILED: no tenant has this schema any longer" in printed


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_schema_that_is_dropped_while_it_is_mended(
    after: int, spare: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("a unique constraint", "an index", "a check"):
        break_it(what)
    calls = [0]

    def described(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == after:
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("DROP SCHEMA spare CASCADE")
                other.execute("DELETE FROM customers_customer WHERE schema_name = 'spare'")
        return describe_tables(*args)

    monkeypatch.setattr(mending, "describe_tables", described)
    repair = repair_schema("spare", "")
    assert repair.readiness.state is SchemaState.MISSING
    assert repair.failure == "no tenant has this schema any longer"


def test_a_schema_that_is_dropped_while_many_are_looked_at(
    spare: Tenant, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    read, calls = reading.read, [0]

    def reading_late(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            with psycopg.connect(database_url, autocommit=True) as other:
                other.execute("DROP SCHEMA spare CASCADE")
        return read(*args)

    monkeypatch.setattr(inspection, "read", reading_late)
    found = {one.schema_name: one.state for one in inspect_schemas({"acme": "", "spare": "", "globex": ""})}
    assert found == {"acme": SchemaState.OK, "spare": SchemaState.MISSING, "globex": SchemaState.OK}


def test_a_tenant_that_is_deleted_while_all_are_verified_fails_nothing(
    spare: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = reading.read, [0]

    def reading_late(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            delete("spare")
        return read(*args)

    monkeypatch.setattr(inspection, "read", reading_late)
    status, printed, complaints = run_command("verify_tenant_migrations")
    assert (status, printed[-1], complaints) == (0, "3 schemas: 3 ok", [])


def test_a_tenant_that_is_being_made_is_waited_for(tenants: Any, database_url: str) -> None:
    with spare_tenant("begun", is_made=False):
        with holding("begun") as wait_for:
            process = start(database_url, "--fix")
            wait_for(1, process)
        status, _printed, complaints = finish(process)
    assert (status, complaints) == (0, "")


async def test_a_schema_that_is_dropped_under_its_sockets(
    spare: Tenant, globex: Tenant, peers: Peers, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.2}

    def prepare() -> None:
        Domain.objects.create(domain=spare.host, tenant=Customer.objects.get(schema_name="spare"), is_primary=True)
        for tenant in (spare, globex):
            users = [tenant.create_user(name) for name in ("alice", "bob")]
            with tenant.activated():
                actions.create_room(users[0], name="team", members=users[1:])

    await sync_to_async(prepare)()
    alice, bob = await peers.connect(spare, "alice"), await peers.connect(spare, "bob")
    foreign = await peers.connect(globex, "alice")
    for number in range(12):
        assert (await alice.post(1, f"secret {number}"))["type"] == "ok"
    await bob.until(lambda: len(bob.contents()) == 12)
    refused: list[str] = []

    async def flood() -> None:
        while alice.close_code is None:
            reply = await alice.post(1, f"secret more {len(refused)}")
            if reply["type"] == "error":
                refused.append(reply["code"])

    def drop() -> None:
        """It locks the tables in another order than a send does, and PostgreSQL may end either."""
        for _ in range(10):
            with suppress(OperationalError):
                execute("SET lock_timeout = '10s'", "DROP SCHEMA spare CASCADE", "RESET lock_timeout")
                return
        pytest.fail("The schema couldn't be dropped.")

    sending = asyncio.create_task(flood())
    await sync_to_async(drop)()
    await alice.until(lambda: alice.close_code is not None)
    await bob.until(lambda: bob.close_code is not None)
    sending.cancel()
    assert (alice.close_code, bob.close_code) == (4503, 4503)
    assert set(refused) <= {"tenant_not_ready", "unavailable", "rate_limited"}
    with pytest.raises(TenantNotReady):
        await run_in_tenant("spare", Message.objects.count)
    assert (await foreign.post(1, "as ever"))["type"] == "ok"
    await foreign.until(lambda: "as ever" in foreign.contents())
    # Over several intervals: a few records, not one for each.
    await asyncio.sleep(2)
    assert len(caplog.records) <= 6, [record.message for record in caplog.records]
    assert "secret" not in caplog.text
