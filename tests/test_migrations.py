"""Migrations of indexes: beside the writes of a tenant with rows, at once in an empty one, and again after a stop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_tenant_messaging import actions, migrations
from django_tenant_messaging.models import Notification
from django_tenant_messaging.tenancy.gate import readiness_of
from django_tenant_messaging.tenancy.gate.migrating import migration_lock
from tests.harness.spare import definition, waiting_migrators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.tenants import Tenant

APP = "django_tenant_messaging"
INDEX = "messaging_notification_to_read"
LATEST = max(path.stem for path in Path(migrations.__path__[0]).glob("0*.py"))


def migrate(tenant: Tenant, target: str) -> list[str]:
    """Migrate a tenant's schema to a migration; return the statements about indexes."""
    with CaptureQueriesContext(connection) as captured:
        call_command("migrate_schemas", APP, target, schema_name=tenant.schema_name, interactive=False, verbosity=0)
    return [query["sql"] for query in captured if " INDEX " in query["sql"] and "pg_index" not in query["sql"]]


def schema_of(tenant: Tenant) -> dict[str, Any]:
    models = apps.get_app_config(APP).get_models()
    return {model._meta.db_table: definition(tenant, model._meta.db_table) for model in models}


@pytest.fixture
def used(spare: Tenant) -> Tenant:
    """A tenant with rows in all tables whose indexes change, as the first migration made it."""
    alice, bob = spare.create_user("alice"), spare.create_user("bob")
    with spare.activated():
        room = actions.open_direct_room(alice, other=bob)
        actions.send_message(alice, room_id=room.pk, content="hello")
        actions.ensure_userstatus_exists(bob)
    migrate(spare, "0001")
    return spare


@pytest.fixture
def old_snapshot(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that reads as of before, such as a backup's."""
    with psycopg.connect(database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1 FROM pg_class LIMIT 1")
        yield reader


def test_back_and_forth_ends_where_a_new_tenant_begins(used: Tenant, acme: Tenant) -> None:
    assert INDEX not in str(definition(used, Notification._meta.db_table))
    migrate(used, LATEST)
    assert schema_of(used) == schema_of(acme)


def test_tables_with_rows_are_written_to_meanwhile(used: Tenant) -> None:
    made = migrate(used, "0002")
    assert len(made) == 9
    assert [statement for statement in made if "CONCURRENTLY" not in statement] == []


def test_new_tenant_waits_for_nobody(spare: Tenant, old_snapshot: Any) -> None:
    migrate(spare, "0001")
    made = migrate(spare, "0002")
    assert len(made) == 9
    assert "CONCURRENTLY" not in "".join(made)


def test_in_a_transaction_it_is_done_within_it(used: Tenant, acme: Tenant) -> None:
    with transaction.atomic():
        made = migrate(used, LATEST)
    assert "CONCURRENTLY" not in "".join(made)
    assert schema_of(used) == schema_of(acme)


def test_interrupted_migration_goes_on_where_it_was(used: Tenant, acme: Tenant, old_snapshot: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '300ms'")
        with pytest.raises(OperationalError, match="statement timeout"):
            migrate(used, "0002")
        cursor.execute("RESET statement_timeout")
    assert readiness_of(used.schema_name).missing_migrations[0] == f"{APP}.0002_lean_indexes"
    old_snapshot.rollback()
    migrate(used, LATEST)
    assert schema_of(used) == schema_of(acme)


def test_index_of_the_shared_schema_is_never_taken_for_the_tenants(used: Tenant, acme: Tenant) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE public.stranger (id int)")
        cursor.execute("CREATE INDEX messaging_status_expiry ON public.stranger (id)")
        cursor.execute(f'DROP INDEX "{used.schema_name}".messaging_status_expiry')
    try:
        migrate(used, "0002")
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('public.messaging_status_expiry') IS NOT NULL")
            assert cursor.fetchone() == (True,)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE public.stranger")
    migrate(used, LATEST)
    assert schema_of(used) == schema_of(acme)


def test_those_who_wait_for_a_migration_do_not_keep_it_from_ending(used: Tenant) -> None:
    done: list[str] = []

    def wait() -> None:
        try:
            with migration_lock(used.schema_name):
                done.append("waiting")
        finally:
            connections.close_all()

    with migration_lock(used.schema_name):
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not waiting_migrators():
            assert waiting.is_alive()
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '20s'")
        migrate(used, "0002")
        with connection.cursor() as cursor:
            cursor.execute("RESET statement_timeout")
        done.append("migrating")
    waiting.join(20)
    assert done == ["migrating", "waiting"]


def test_status_is_renewed_in_place(acme: Tenant, people: tuple[str, ...]) -> None:
    users = list(acme.users.values())
    with acme.activated(), transaction.atomic():
        actions.store_connections(opened=users, closed=[], process="here")
        before = _updates()
        for _ in range(10):
            actions.renew_connections([user.pk for user in users], process="here")
        updates, in_place = _updates()
    assert (updates - before[0], in_place - before[1]) == (30, 30)


def _updates() -> tuple[int, int]:
    """Updates of statuses in this transaction, and how many of them wrote no index."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_stat_get_xact_tuples_updated(t.oid), pg_stat_get_xact_tuples_hot_updated(t.oid)"
            f" FROM (SELECT to_regclass('{APP}_userstatus')::oid AS oid) AS t"
        )
        found: tuple[int, int] = cursor.fetchone()
        return found
