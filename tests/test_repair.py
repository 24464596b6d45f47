"""Looking at a single schema, and repairing it: what comes of each state, and what is refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, transaction
from django.db.utils import OperationalError
from django_tenants.signals import post_schema_sync

from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.models import ChatRoom, Message, UserStatus
from django_tenant_messaging.tenancy.gate import (
    drift,
    inspect_schema,
    inspect_schemas,
    inspection,
    reading,
    schema_kinds,
    verdicts,
)
from django_tenant_messaging.tenancy.gate.migrating import migration_lock
from django_tenant_messaging.tenancy.gate.repair import Repair, repair_schema
from django_tenant_messaging.types import SchemaState
from tests.harness.breaking import locked_table, without_table
from tests.harness.queries import exactly, queries
from tests.harness.spare import OwnMigrations, copy_tables, definition, execute, spare_tenant, tables

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant

OURS = "django_tenant_messaging_"
OUR_TABLES = [
    "chatroom",
    "membership",
    "mention",
    "message",
    "messagerevision",
    "notification",
    "roomcounter",
    "userstatus",
]
untyped: Any = connection


def state(schema_name: str) -> SchemaState:
    return inspect_schema(schema_name, "").state


def drop(tenant: Tenant, *names: str) -> None:
    execute(*(f'DROP TABLE "{tenant.schema_name}".{name} CASCADE' for name in names))


def drop_column(tenant: Tenant, table: str, column: str) -> None:
    execute(f'ALTER TABLE "{tenant.schema_name}".{table} DROP COLUMN {column} CASCADE')


def repaired(tenant: Tenant) -> Repair:
    repair = repair_schema(tenant.schema_name, "")
    assert repair.failure == ""
    assert repair.readiness.state is SchemaState.OK
    return repair


def refused(tenant: Tenant) -> str:
    repair = repair_schema(tenant.schema_name, "")
    assert not repair.is_success
    assert repair.done == ()
    return repair.failure


def fill(tenant: Tenant) -> None:
    """A user, a room and a message."""
    for name in ("alice", "bob"):
        tenant.create_user(name)
    with tenant.activated():
        Message.objects.create(sender=tenant.users["alice"], receiver=tenant.users["bob"], content="hello")


# What is nothing's fault


def test_a_ready_schema_is_left_alone(spare: Tenant) -> None:
    assert repaired(spare).done == ()


def test_a_schema_that_is_ahead_is_left_alone(spare: Tenant) -> None:
    execute(
        "INSERT INTO spare.django_migrations (app, name, applied) VALUES ('django_tenant_messaging', '0099', now())"
    )
    repair = repair_schema("spare", "")
    assert (repair.readiness.state, repair.done, repair.is_success) == (SchemaState.AHEAD, (), True)


def test_what_was_believed_is_forgotten_though_somebody_else_was_quicker(spare: Tenant, database_url: str) -> None:
    with without_table(database_url, "spare"):
        assert not verdicts.of("spare").is_ready
    assert repaired(spare).done == ()
    assert verdicts.fresh("spare") is None


# Behind


def test_a_schema_that_is_behind_is_migrated(
    spare: Tenant, own: OwnMigrations, caplog: pytest.LogCaptureFixture
) -> None:
    own.write("messages", "0001_first", "migrations.RunSQL('CREATE TABLE first ()')")
    own.write("messages", "0002_second", "migrations.RunPython(run)", after="0001_first")
    assert inspect_schema("spare", "").missing_migrations == ("messages.0001_first", "messages.0002_second")
    with caplog.at_level(logging.INFO):
        repair = repaired(spare)
    assert repair.done == ("applied messages.0001_first, messages.0002_second",)
    assert "first" in tables("spare")
    assert "Running migrations for tenant: spare" in caplog.messages
    assert "Migrations completed successfully for tenant: spare" in caplog.messages


def test_a_failing_migration_is_named_with_the_error_at_its_origin(
    spare: Tenant, own: OwnMigrations, caplog: pytest.LogCaptureFixture
) -> None:
    own.write("messages", "0001_good", "migrations.RunSQL('CREATE TABLE good ()')")
    own.write(
        "messages",
        "0002_bad",
        "migrations.RunPython(run)",
        after="0001_good",
        run="""
        try:
            schema_editor.execute("SELECT 1 FROM nothing_there")
        except Exception as error:
            raise RuntimeError("no luck") from error
        """,
    )
    repair = repair_schema("spare", "")
    assert repair.failure == (
        'messages.0002_bad: RuntimeError: no luck, because of UndefinedTable: relation "nothing_there" does not exist'
    )
    assert repair.done == ("applied messages.0001_good",)
    assert repair.readiness.missing_migrations == ("messages.0002_bad",)
    (record,) = [record for record in caplog.records if "can't be repaired" in record.getMessage()]
    assert record.__dict__["schema_name"] == "spare"
    assert record.exc_info is not None


def test_a_history_that_django_refuses_is_told(spare: Tenant) -> None:
    execute("DELETE FROM spare.django_migrations WHERE (app, name) = ('contenttypes', '0001_initial')")
    failure = repair_schema("spare", "").failure
    assert "InconsistentMigrationHistory" in failure
    assert "applied before its dependency contenttypes.0001_initial" in failure


def test_the_callers_schema_is_kept(spare: Tenant, own: OwnMigrations) -> None:
    own.write("messages", "0001_bad", "migrations.RunSQL('SELECT 1 FROM nothing_there')")
    with spare.activated():
        repair_schema("spare", "")
        assert untyped.schema_name == "spare"
        assert UserStatus.objects.count() == 0


# Missing


def test_a_killed_creation_is_done_again(tenants: Any) -> None:
    heard: list[str] = []

    def hear(tenant: Any, **_kwargs: Any) -> None:
        heard.append(tenant.schema_name)

    with spare_tenant("spare", is_made=False) as spare:
        assert state("spare") is SchemaState.MISSING
        post_schema_sync.connect(hear)
        try:
            assert repaired(spare).done == ("created and migrated",)
        finally:
            post_schema_sync.disconnect(hear)
        # As after any creation.
        assert heard == ["spare"]
        fill(spare)


def test_a_creation_that_was_killed_half_way_is_finished(tenants: Any) -> None:
    with spare_tenant("spare", is_made=False) as spare:
        execute("CREATE SCHEMA spare")
        call_command("migrate_schemas", "auth", schema_name="spare", verbosity=0)
        assert state("spare") is SchemaState.BEHIND
        repaired(spare)
        fill(spare)


def test_a_schema_without_a_tenant_is_told(tenants: Any) -> None:
    failure = repair_schema("nobodys", "").failure
    assert failure == "no tenant has this schema any longer"


# Drifted


@pytest.mark.parametrize(
    "table", ["membership", "mention", "messagerevision", "notification", "roomcounter", "userstatus"]
)
def test_a_dropped_table_of_ours_is_as_new(spare: Tenant, globex: Tenant, table: str) -> None:
    drop(spare, OURS + table)
    assert inspect_schema("spare", "").missing_relations == (OURS + table,)
    assert repaired(spare).done == (f"table {OURS}{table} was created again, empty",)
    assert definition(spare, OURS + table) == definition(globex, OURS + table)


def test_all_tables_of_ours_are_as_new(spare: Tenant, globex: Tenant) -> None:
    drop(spare, *(OURS + table for table in OUR_TABLES))
    assert len(repaired(spare).done) == len(OUR_TABLES)
    for table in OUR_TABLES:
        assert definition(spare, OURS + table) == definition(globex, OURS + table)
    fill(spare)
    with spare.activated():
        get_user_model().objects.filter(username="alice").delete()
        assert list(Message.objects.values_list("sender", flat=True)) == [None]


def test_all_tables_of_an_app_with_many_to_many_fields_are_as_new(spare: Tenant, globex: Tenant) -> None:
    gone = [name for name in tables("spare") if name.startswith(("auth_", "django_admin_log", OURS))]
    drop(spare, *gone)
    repaired(spare)
    for table in gone:
        assert definition(spare, table) == definition(globex, table)
    # Django fills its own table again.
    with spare.activated():
        assert get_user_model().objects.count() == 0
        assert untyped.schema_name == "spare"
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM spare.auth_permission")
            assert cursor.fetchone()[0] > 0


def test_a_dropped_many_to_many_table_is_as_new(spare: Tenant, globex: Tenant) -> None:
    drop(spare, "auth_user_groups")
    assert repaired(spare).done == ("table auth_user_groups was created again, empty",)
    assert definition(spare, "auth_user_groups") == definition(globex, "auth_user_groups")


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (OURS + "membership", "changed_seq"),
        (OURS + "membership", "user_id"),
        (OURS + "message", "sender_id"),
        (OURS + "message", "reply_to_id"),
        (OURS + "message", "room_id"),
        (OURS + "notification", "is_read"),
        (OURS + "userstatus", "user_id"),
        (OURS + "chatroom", "direct_key"),
        ("auth_permission", "codename"),
        ("django_admin_log", "action_flag"),
    ],
)
def test_a_dropped_column_is_as_new_in_an_empty_table(spare: Tenant, globex: Tenant, table: str, column: str) -> None:
    drop_column(spare, table, column)
    if table == "auth_permission":
        execute("DELETE FROM spare.auth_permission")
    assert inspect_schema("spare", "").missing_relations == (f"{table}.{column}",)
    assert repaired(spare).done == (f"column {table}.{column} was added again, without the values it had",)
    assert definition(spare, table) == definition(globex, table)


def test_a_dropped_column_with_a_default_is_added_to_rows(spare: Tenant) -> None:
    fill(spare)
    drop_column(spare, OURS + "message", "is_read")
    drop_column(spare, OURS + "userstatus", "last_seen")
    assert len(repaired(spare).done) == 2
    with spare.activated():
        assert Message.objects.get().is_read is False


@pytest.mark.parametrize("table", [OURS + "chatroom", OURS + "message", "auth_user", "django_content_type"])
def test_a_table_that_others_refer_to_is_not_made_up(spare: Tenant, table: str) -> None:
    before = tables("spare")
    drop(spare, table)
    failure = refused(spare)
    assert f"refers to rows of {table}, which are gone with their table: restore schema spare from a backup" in failure
    assert tables("spare") == [name for name in before if name != table]


def test_a_column_that_rows_need_is_not_made_up(spare: Tenant) -> None:
    fill(spare)
    drop_column(spare, OURS + "message", "content")
    assert refused(spare) == (
        f"{OURS}message.content has no default and can't be null, and its table has rows:"
        " restore schema spare from a backup"
    )


def test_ids_are_not_made_up(spare: Tenant) -> None:
    fill(spare)
    drop_column(spare, OURS + "notification", "id")
    assert "identifies its rows, and its table has rows" in refused(spare)


def test_all_or_nothing_is_repaired(spare: Tenant) -> None:
    fill(spare)
    drop(spare, OURS + "mention")
    drop_column(spare, OURS + "message", "content")
    refused(spare)
    assert OURS + "mention" not in tables("spare")


def test_one_value_for_all_rows_is_not_forced_into_a_unique_column(spare: Tenant) -> None:
    fill(spare)
    with spare.activated():
        Message.objects.create(
            sender=spare.users["alice"], receiver=spare.users["bob"], content="a second of the same sender"
        )
    drop_column(spare, OURS + "message", "client_id")
    assert "could not create unique index" in refused(spare)
    assert state("spare") is SchemaState.DRIFTED


MADE_BY_SQL = "migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True))]), "


@pytest.mark.parametrize(
    "operation",
    [
        "migrations.RunSQL('SELECT 1')",
        "migrations.SeparateDatabaseAndState(database_operations=[migrations.RunSQL('SELECT 1')])",
    ],
)
def test_a_table_that_sql_may_have_changed_is_not_made_up(spare: Tenant, own: OwnMigrations, operation: str) -> None:
    own.write("messages", "0001_thing", MADE_BY_SQL + operation)
    repaired(spare)
    drop(spare, "messages_thing")
    assert "messages.0001_thing runs SQL of its own" in refused(spare)


def test_a_table_that_models_describe_is_made_again(spare: Tenant, own: OwnMigrations) -> None:
    own.write("messages", "0001_thing", MADE_BY_SQL + "migrations.RunPython(run)")
    repaired(spare)
    drop(spare, "messages_thing")
    assert repaired(spare).done == ("table messages_thing was created again, empty",)


def test_what_is_unique_together_is_so_again(spare: Tenant, globex: Tenant) -> None:
    execute("DELETE FROM spare.auth_permission")
    drop_column(spare, "auth_permission", "content_type_id")
    repaired(spare)
    assert definition(spare, "auth_permission") == definition(globex, "auth_permission")


def test_faked_migrations_are_found_and_made_good(tenants: Any, globex: Tenant) -> None:
    with spare_tenant("spare", is_made=False) as spare:
        execute("CREATE SCHEMA spare")
        call_command("migrate_schemas", schema_name="spare", fake=True, verbosity=0)
        found = inspect_schema("spare", "")
        assert found.state is SchemaState.DRIFTED
        assert OURS + "message" in found.missing_relations
        repaired(spare)
        for table in tables("globex"):
            assert definition(spare, table) == definition(globex, table)


def test_a_clone_of_a_stale_template_is_made_good(spare: Tenant, globex: Tenant) -> None:
    """Its tables are those of the template, its records those of today."""
    drop(spare, *(OURS + table for table in OUR_TABLES))
    with spare_tenant("clone", is_made=False) as clone:
        execute("CREATE SCHEMA clone")
        execute(*(f"CREATE TABLE clone.{table} (LIKE spare.{table} INCLUDING ALL)" for table in tables("spare")))
        call_command("migrate_schemas", schema_name="clone", fake=True, verbosity=0)
        assert state("clone") is SchemaState.DRIFTED
        repaired(clone)
        assert definition(clone, OURS + "message") == definition(globex, OURS + "message")


def test_public_tables_never_stand_in_for_a_tenants(spare: Tenant, settings: Any) -> None:
    """An app that is shared as well: queries of the tenant are answered from the shared schema in silence."""
    settings.SHARED_APPS = [*settings.SHARED_APPS, "django_tenant_messaging"]
    table = OURS + "userstatus"
    execute(f"CREATE TABLE public.{table} (LIKE spare.{table} INCLUDING ALL)")
    try:
        drop(spare, table)
        with spare.activated():
            assert UserStatus.objects.count() == 0
        assert inspect_schema("spare", "").missing_relations == (table,)
        repaired(spare)
        assert table in tables("spare")
        execute("DROP SCHEMA spare CASCADE", "CREATE SCHEMA spare")
        assert state("spare") is SchemaState.BEHIND
    finally:
        execute(f"DROP TABLE public.{table}")


def test_a_repair_does_not_wait_for_ever_for_a_table_in_use(
    spare: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "LOCK_TIMEOUT", 100)
    drop(spare, OURS + "userstatus")
    with locked_table(database_url, "spare", "auth_user"):
        assert "lock timeout" in refused(spare)
    repaired(spare)


def test_the_other_tenant_is_undisturbed(acme: Tenant, globex: Tenant, spare: Tenant) -> None:
    fill(globex)
    before = {table: definition(globex, table) for table in tables("globex")}
    drop(spare, *(OURS + table for table in OUR_TABLES))
    repaired(spare)
    assert {table: definition(globex, table) for table in tables("globex")} == before
    with globex.activated():
        assert (Message.objects.count(), ChatRoom.objects.count()) == (1, 1)


# Tenant types


@pytest.fixture
def types(settings: Any) -> None:
    """The tenants' names are their types."""
    settings.HAS_MULTI_TYPE_TENANTS = True
    settings.MULTI_TYPE_DATABASE_FIELD = "name"
    settings.TENANT_TYPES = {
        "public": {"APPS": settings.SHARED_APPS, "URLCONF": settings.PUBLIC_SCHEMA_URLCONF},
        "Acme": {"APPS": settings.TENANT_APPS, "URLCONF": settings.ROOT_URLCONF},
        "small": {"APPS": ["django.contrib.contenttypes", "django.contrib.auth"], "URLCONF": settings.ROOT_URLCONF},
    }


def test_each_tenant_type_has_its_own_apps(tenants: Any, types: None) -> None:
    with spare_tenant("spare", name="small", is_made=False) as spare:
        found = {one.schema_name: one for one in inspect_schemas(schema_kinds())}
        assert found["public"].state is SchemaState.OK
        assert found["acme"].state is SchemaState.OK
        assert found["spare"].state is SchemaState.MISSING
        assert found["globex"].state is SchemaState.ERROR
        assert "'Globex' is not one of TENANT_TYPES" in found["globex"].reason
        assert repair_schema("spare", "small").is_success
        assert "auth_user" in tables("spare")
        assert not [name for name in tables("spare") if name.startswith(OURS)]
        drop(spare, "auth_user_groups")
        assert repair_schema("spare", "small").is_success
        assert "auth_user_groups" in tables("spare")


def test_a_single_schema_of_an_unknown_type_is_an_error(tenants: Any, types: None) -> None:
    assert inspect_schema("globex", "Globex").state is SchemaState.ERROR


# Looking


def test_looking_at_one_schema_takes_one_query(acme: Tenant) -> None:
    inspect_schema("acme", "")
    with exactly(1):
        inspect_schema("acme", "")


def test_looking_at_many_schemas_takes_as_many_queries_as_at_few(spare: Tenant) -> None:
    list(inspect_schemas(schema_kinds()))
    with queries() as few:
        list(inspect_schemas(schema_kinds(["public", "acme"])))
    with queries() as many:
        assert len(list(inspect_schemas(schema_kinds()))) == 4
    assert len(many) == len(few)


def test_batches_keep_the_order(spare: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(spare, OURS + "userstatus")
    monkeypatch.setattr(inspection, "BATCH", 2)
    found = [(one.schema_name, one.state.value) for one in inspect_schemas(schema_kinds())]
    assert found == [("public", "ok"), ("acme", "ok"), ("globex", "ok"), ("spare", "drifted")]


def test_looking_inside_a_transaction_leaves_it_as_it_was(spare: Tenant, database_url: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 1")
        cursor.execute("SET LOCAL lock_timeout = '7s'")
        assert state("spare") is SchemaState.OK
        assert state("nowhere") is SchemaState.MISSING
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("7s",)
        cursor.execute("SELECT * FROM mine")
        assert cursor.fetchone() == (1,)


def test_looking_never_waits_for_long_inside_a_transaction(
    acme: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SETTINGS", ("SET LOCAL lock_timeout = 100",))
    with locked_table(database_url, "acme", "django_migrations"), transaction.atomic():
        assert state("acme") is SchemaState.ERROR
        assert state("globex") is SchemaState.OK


def test_a_locked_schema_costs_the_others_nothing(
    spare: Tenant, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SETTINGS", ("SET LOCAL lock_timeout = 100",))
    with locked_table(database_url, "acme", "django_migrations"), queries() as made:
        found = {one.schema_name: one for one in inspect_schemas(schema_kinds())}
    assert [name for name, one in found.items() if not one.is_ready] == ["acme"]
    assert "lock timeout" in found["acme"].reason
    # One statement waited in vain, not one for each half in which the locked one is.
    assert len([query for query in made if "array_agg" in query]) == 3
    assert state("acme") is SchemaState.OK


def test_looking_writes_nothing(spare: Tenant) -> None:
    drop(spare, OURS + "userstatus")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        found = [one.state.value for one in inspect_schemas(schema_kinds())]
        assert found == ["ok", "ok", "ok", "drifted"]


def test_a_role_that_may_only_read_the_records_is_enough(spare: Tenant, database_url: str) -> None:
    role = untyped.settings_dict["NAME"] + "_reader"
    execute(
        f"CREATE ROLE {role}",
        f"GRANT USAGE ON SCHEMA public, acme, globex, spare TO {role}",
        f"GRANT SELECT ON public.customers_customer, public.django_migrations, acme.django_migrations TO {role}",
        f"GRANT SELECT ON spare.django_migrations TO {role}",
        f"SET ROLE {role}",
    )
    try:
        found = {one.schema_name: one for one in inspect_schemas(schema_kinds())}
        single = inspect_schema("globex", "")
    finally:
        execute("RESET ROLE", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    assert [name for name, one in found.items() if one.is_ready] == ["public", "acme", "spare"]
    assert found["globex"].state is SchemaState.ERROR
    assert "permission denied" in found["globex"].reason
    assert single == found["globex"]


def test_a_host_may_let_postgres_prepare_its_statements(acme: Tenant) -> None:
    """By the options `server_side_binding` and `prepare_threshold`."""
    connection.ensure_connection()
    raw: Any = connection.connection
    before = raw.prepare_threshold, raw.cursor_factory
    raw.prepare_threshold, raw.cursor_factory = 0, psycopg.Cursor
    try:
        assert [state("acme") for _ in range(3)] == [SchemaState.OK] * 3
    finally:
        raw.prepare_threshold, raw.cursor_factory = before


@pytest.mark.parametrize("name", ["Upper", "with space", "per%cent %s", "ünïcöde-日本"])
def test_any_schema_name_will_do(tenants: Any, name: str) -> None:
    from example.customers.models import Customer

    (customer,) = Customer.objects.bulk_create([Customer(schema_name=name, name="Odd")])
    quoted = f'"{name}"'
    try:
        (found,) = inspect_schemas(schema_kinds([name]))
        assert (found.schema_name, found.state) == (name, SchemaState.MISSING)
        execute(f"CREATE SCHEMA {quoted}")
        copy_tables("acme", quoted)
        execute(f"INSERT INTO {quoted}.django_migrations SELECT * FROM acme.django_migrations")
        assert state(name) is SchemaState.OK
        execute(f"DROP TABLE {quoted}.{OURS}userstatus")
        assert state(name) is SchemaState.DRIFTED
        repair = repair_schema(name, "")
        assert repair.is_success, repair.failure
    finally:
        execute(f"DROP SCHEMA IF EXISTS {quoted} CASCADE")
        Customer.objects.filter(pk=customer.pk).delete()


# The database fails


def test_a_repair_without_a_database_is_unavailable(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {**untyped.get_connection_params(), "host": "/nowhere"}
    monkeypatch.setattr(connection, "get_connection_params", lambda: parameters)
    with pytest.raises(Unavailable, match="did not answer"):
        repair_schema("acme", "")


def test_a_connection_that_breaks_costs_one_schema(spare: Tenant, own: OwnMigrations) -> None:
    own.write(
        "messages",
        "0001_break",
        "migrations.RunPython(run)",
        run='schema_editor.execute("SELECT pg_terminate_backend(pg_backend_pid())")',
    )
    repair = repair_schema("spare", "")
    assert repair.failure.startswith("messages.0001_break: OperationalError: ")
    assert repair.readiness.state is SchemaState.BEHIND


def test_the_lock_is_free_after_a_failure(spare: Tenant) -> None:
    with pytest.raises(OperationalError, match="on purpose"), migration_lock("spare"):
        raise OperationalError("on purpose")
    repaired(spare)


def test_a_column_that_may_have_been_renamed_is_told(spare: Tenant, globex: Tenant) -> None:
    fill(spare)
    execute(f"ALTER TABLE spare.{OURS}message RENAME COLUMN content TO words")
    assert refused(spare).endswith(
        "restore schema spare from a backup, or, if it was renamed (to words?), rename it back"
    )
    execute(f"ALTER TABLE spare.{OURS}message RENAME COLUMN words TO content")
    assert repaired(spare).done == ()
    assert state("globex") is SchemaState.OK
