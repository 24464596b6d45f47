"""Repairing what differs in the structure of our tables, without losing a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django_tenants.utils import get_tenant_model

from django_tenant_messaging.models import Message
from django_tenant_messaging.tenancy.gate import inspect_schema, mending, work
from django_tenant_messaging.tenancy.gate.repair import Repair, repair_schema
from django_tenant_messaging.types import SchemaState
from tests.harness.spare import definition, execute, spare_tenant, tables
from tests.test_structure import BROKEN, OURS
from tests.test_verify_command import finish, holding, start

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant

UNREPAIRABLE = {
    "another tenant's rows": f"run: ALTER TABLE globex.{OURS}message NO INHERIT spare.{OURS}message",
    "rows that another table shows": f"run: ALTER TABLE spare.{OURS}message NO INHERIT spare.parent",
    "rules": f"run: DROP RULE lost ON spare.{OURS}message",
    "row security": f"run: ALTER TABLE spare.{OURS}message DISABLE ROW LEVEL SECURITY",
    "forced row security": f"run: ALTER TABLE spare.{OURS}message NO FORCE ROW LEVEL SECURITY",
    "a column of others that nobody fills": f"run: ALTER TABLE spare.{OURS}message ALTER COLUMN later DROP NOT NULL",
    "the type of a key to users": "to change it could lose or falsify values",
    "a collation that folds case": "change it by hand",
    "a view": "restore schema spare from a backup",
    "a partitioned table": "restore schema spare from a backup",
}


def break_it(what: str) -> None:
    execute(*(statement.replace("acme.", "spare.") for statement in BROKEN[what][0]))


def fill(tenant: Tenant) -> list[Message]:
    for name in ("alice", "bob"):
        tenant.create_user(name)
    alice, bob = (tenant.users[name] for name in ("alice", "bob"))
    with tenant.activated():
        return [Message.objects.create(sender=alice, receiver=bob, content=f"secret {number}") for number in range(7)]


def contents(tenant: Tenant) -> list[tuple[Any, ...]]:
    with tenant.activated():
        return list(Message.objects.order_by("id").values_list())


def repaired(tenant: Tenant) -> Repair:
    repair = repair_schema(tenant.schema_name, "")
    assert repair.failure == ""
    assert repair.readiness.state is SchemaState.OK
    return repair


def refused(tenant: Tenant) -> str:
    repair = repair_schema(tenant.schema_name, "")
    assert not repair.is_success
    assert "secret" not in repair.failure
    return repair.failure


def test_what_loses_nothing_is_repaired(spare: Tenant, globex: Tenant) -> None:
    """All of it in one schema with rows; each leaves it as a migrated one."""
    fill(spare)
    for name in ("alice", "bob"):
        # For the key that refers to the other's users, by equal ids.
        globex.create_user(name)
    before = contents(spare)
    ours = [name for name in tables("globex") if name.startswith(OURS)]
    for what in BROKEN:
        if what in UNREPAIRABLE:
            continue
        break_it(what)
        assert inspect_schema("spare", "").state is SchemaState.DRIFTED, what
        repair = repaired(spare)
        assert repair.done, what
        assert contents(spare) == before, what
        execute(
            *(
                f"DROP INDEX IF EXISTS spare.{index}_was"
                for index in ("messaging_message_reply", "messaging_message_changed")
            ),
            "DROP INDEX IF EXISTS spare.messaging_message_client_id_was",
        )
        for table in ours:
            assert definition(spare, table) == definition(globex, table), (what, repair.done)
    with spare.activated():
        # The identity goes on after what was there.
        last = before[-1][0]
        message = Message.objects.create(sender=spare.users["alice"], receiver=spare.users["bob"], content="one more")
        assert message.pk > last


@pytest.mark.parametrize("what", UNREPAIRABLE)
def test_what_could_lose_something_is_refused(what: str, spare: Tenant) -> None:
    break_it(what)
    failure = refused(spare).replace('"', "")
    assert UNREPAIRABLE[what] in failure
    assert inspect_schema("spare", "").state is SchemaState.DRIFTED
    if " run: " in failure:
        # The statement that is told does it.
        execute(failure.rpartition(" run: ")[2])
        assert inspect_schema("spare", "").state is SchemaState.OK
        assert inspect_schema("globex", "").state is SchemaState.OK


def test_rows_that_are_alike_are_named_and_nothing_is_lost(spare: Tenant) -> None:
    break_it("a unique constraint")
    messages = fill(spare)
    execute(f"UPDATE spare.{OURS}message SET client_id = (SELECT client_id FROM spare.{OURS}message WHERE id = 1)")
    before = contents(spare)
    assert refused(spare) == (
        f"{OURS}message: unique constraint messaging_message_client_id missing: rows with the same sender_id,"
        " client_id as others: 7 (id 1, 2, 3, 4, 5 and others); change or delete them, and run it again"
    )
    assert contents(spare) == before
    with spare.activated():
        for message in messages:
            message.refresh_from_db()
            Message.objects.filter(pk=message.pk).update(client_id=f"00000000-0000-0000-0000-{message.pk:012}")
    repaired(spare)


def test_rows_that_refer_to_nobody_are_named(spare: Tenant) -> None:
    messages = fill(spare)
    break_it("the triggers of the users' table")
    execute("DELETE FROM spare.auth_user WHERE username = 'alice'")
    failure = refused(spare)
    assert (
        "message: foreign key (sender_id) disabled by its triggers: rows that refer to what isn't in auth_user: 7"
        f" (id {', '.join(str(one.pk) for one in messages[:5])} and others); change or delete them" in failure
    )
    # What isn't broken is repaired nevertheless.
    assert [one for one in inspect_schema("spare", "").differences if "receiver_id" in one] == []
    execute(
        f"UPDATE spare.{OURS}message SET sender_id = NULL",
        f"DELETE FROM spare.{OURS}membership WHERE user_id = 1",
        f"DELETE FROM spare.{OURS}userstatus WHERE user_id = 1",
        f"UPDATE spare.{OURS}chatroom SET created_by_id = NULL",
    )
    repaired(spare)
    with spare.activated():
        spare.users["bob"].delete()
        assert set(Message.objects.values_list("receiver", flat=True)) == {None}


def test_rows_without_a_value_are_named(spare: Tenant) -> None:
    fill(spare)
    break_it("a column that may be null")
    execute(f"UPDATE spare.{OURS}message SET seq = NULL WHERE id = 3")
    assert refused(spare) == (
        f"{OURS}message.seq: may be null: rows without a value there: 1 (id 3); change or delete them, and run it again"
    )
    execute(f"UPDATE spare.{OURS}message SET seq = 3 WHERE id = 3")
    repaired(spare)


def test_rows_that_dont_pass_a_check_are_named(spare: Tenant) -> None:
    fill(spare)
    break_it("a check")
    execute(f"UPDATE spare.{OURS}chatroom SET direct_key = NULL")
    assert "check constraint messaging_room_direct_key missing: rows that break it: 1 (id 1);" in refused(spare)


def test_a_large_table_is_not_locked_for_long(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "REWRITE_LIMIT", 100)
    break_it("a table that isn't logged")
    assert f'run: ALTER TABLE "spare"."{OURS}messagerevision" SET LOGGED' in refused(spare)


def test_a_half_built_index_is_dropped_and_built(spare: Tenant) -> None:
    """As `CREATE INDEX CONCURRENTLY` leaves it that was killed or found rows alike, beside one that was renamed."""
    fill(spare)
    break_it("a unique constraint")
    execute(
        f"CREATE UNIQUE INDEX messaging_message_client_id_new ON spare.{OURS}message (sender_id, client_id)",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'spare.messaging_message_client_id_new'::regclass",
    )
    assert repaired(spare).done == (
        "index messaging_message_client_id_new, which wasn't valid, was dropped",
        "unique constraint messaging_message_client_id was built again",
    )


def test_a_repair_that_was_killed_goes_on(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of its statements, as if the process were gone then."""
    fill(spare)
    for what in ("a unique constraint", "a column that may be null", "what happens when a user is deleted", "a check"):
        break_it(what)

    class Killed(BaseException):
        pass

    def killing(after: int) -> Any:
        left = after

        def run(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            nonlocal left
            found = execute(sql, params, many, context)
            if sql.startswith(("ALTER TABLE", "CREATE", "DROP INDEX")):
                left -= 1
                if left == 0:
                    connection.needs_rollback = connection.in_atomic_block
                    raise Killed
            return found

        return run

    deaths = 0
    while deaths < 40:
        try:
            with connection.execute_wrapper(killing(deaths + 1)):
                repair = repair_schema("spare", "")
        except Killed:
            deaths += 1
            connection.close()
            continue
        assert repair.is_success, repair.failure
        break
    assert deaths >= 5


def test_an_index_is_built_while_others_wait_for_the_lock(spare: Tenant, database_url: str) -> None:
    """The build waits for every older transaction, and so for one that waits for the lock that the builder has."""
    fill(spare)
    break_it("a unique constraint")
    with holding("spare") as wait_for:
        processes = [start(database_url, "--fix", "--schema=spare") for _ in range(3)]
        wait_for(3, *processes)
    results = [finish(process) for process in processes]
    assert [(status, complaints) for status, _printed, complaints in results] == [(0, "")] * 3
    printed = sorted(printed.splitlines()[0] for _status, printed, _complaints in results)
    assert printed == [
        "spare: ready by now",
        "spare: ready by now",
        "spare: unique constraint messaging_message_client_id was built again",
    ]


def test_others_are_served_meanwhile_and_untouched(spare: Tenant, acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex):
        fill(tenant)
    before = {table: definition(globex, table) for table in tables("globex")}
    break_it("a unique constraint")
    repaired(spare)
    assert {table: definition(globex, table) for table in tables("globex")} == before
    assert len(contents(acme)) == len(contents(globex)) == 7


@pytest.mark.parametrize("name", ["per%cent %s", "a USING b", "Upper.case", "ünïcöde-日本"])
def test_any_schema_name_will_do(tenants: Any, name: str) -> None:
    with spare_tenant("plain") as plain:
        execute(f"ALTER SCHEMA plain RENAME TO {quoted_name(name)}")
        customers = get_tenant_model().objects
        customers.filter(schema_name="plain").update(schema_name=name)
        try:
            assert inspect_schema(name, "").is_ready
            for what in ("a unique constraint", "an identity", "a column that may be null", "an index"):
                execute(*(one.replace("acme.", quoted_name(name) + ".") for one in BROKEN[what][0]))
            break_key = [one.replace("acme.", quoted_name(name) + ".") for one in BROKEN["a foreign key"][0]]
            execute(*break_key)
            done: list[str] = []
            mending.mend(inspect_schema(name, ""), "", done)
            assert len(done) == 5
            assert inspect_schema(name, "").is_ready
        finally:
            execute(f"ALTER SCHEMA {quoted_name(name)} RENAME TO plain")
            customers.filter(schema_name=name).update(schema_name="plain")
            assert plain.schema_name == "plain"


def quoted_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
