"""Tenants of a test's own, to be broken, and migrations of its own to break them with."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from itertools import count
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from django.db import connection

from django_tenant_messaging.tenancy.gate.migrating import WAITING
from tests.harness.tenants import Tenant, leave_tenant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

NUMBERS = count(1)
HEAD = """
from django.db import connection, migrations, models


def run(apps, schema_editor):
{body}


class Migration(migrations.Migration):
    dependencies = {dependencies}
    operations = [{operations}]
"""


@contextmanager
def spare_tenant(schema_name: str, *, name: str = "Spare", is_made: bool = True) -> Iterator[Tenant]:
    """A tenant that is gone after the body, whatever became of it; without a schema unless `is_made`."""
    from example.customers.models import Customer

    leave_tenant()
    customer = Customer(schema_name=schema_name, name=name)
    if is_made:
        customer.save(verbosity=0)
    else:
        # As a process leaves it that is killed after the row's insertion.
        Customer.objects.bulk_create([customer])
    try:
        yield Tenant(schema_name)
    finally:
        leave_tenant()
        execute("SET lock_timeout = '10s'", f'DROP SCHEMA IF EXISTS "{schema_name}" CASCADE', "RESET lock_timeout")
        Customer.objects.filter(schema_name=schema_name).delete()
        leave_tenant()


def execute(*statements: str) -> None:
    """Run SQL in the shared schema."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def tables(schema_name: str) -> list[str]:
    """The tables of a schema."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema_name])
        return [name for (name,) in cursor.fetchall()]


def copy_tables(source: str, quoted: str) -> None:
    """Make a schema's tables in another one, without rows; keys, which LIKE doesn't copy, lead to its own tables."""
    execute(*(f"CREATE TABLE {quoted}.{table} (LIKE {source}.{table} INCLUDING ALL)" for table in tables(source)))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT t.relname, conname, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class t"
            " ON t.oid = conrelid WHERE contype = 'f' AND connamespace = %s::regnamespace",
            [source],
        )
        keys = cursor.fetchall()
    execute(
        *(
            f'ALTER TABLE {quoted}.{table} ADD CONSTRAINT "{name}" {text.replace(f"{source}.", f"{quoted}.")}'
            for table, name, text in keys
        )
    )


def definition(tenant: Tenant, table: str) -> dict[str, list[tuple[Any, ...]]]:
    """Columns, constraints and indexes of a table as PostgreSQL tells them, without the schema's name."""
    queries = {
        "columns": (
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity, pg_get_expr(adbin, adrelid)"
            " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY 1"
        ),
        "constraints": (
            "SELECT conname, contype, condeferrable, condeferred, convalidated, pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE conrelid = to_regclass(%s) ORDER BY 1"
        ),
        "indexes": (
            "SELECT relname, indisunique, indisprimary, indisvalid, pg_get_indexdef(indexrelid)"
            " FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = to_regclass(%s) ORDER BY 1"
        ),
    }
    found = {}
    with tenant.activated(), connection.cursor() as cursor:
        for what, query in queries.items():
            cursor.execute(query, [f'"{tenant.schema_name}"."{table}"'])
            found[what] = [
                tuple(part.replace(f"{tenant.schema_name}.", "") if isinstance(part, str) else part for part in row)
                for row in cursor.fetchall()
            ]
    assert found["columns"], f"{tenant.schema_name} has no table {table}"
    return found


class OwnMigrations:
    """Migrations of an app that has none, `messages` for tenants or `staticfiles` for the shared schema."""

    def __init__(self, folder: Path, settings: Any, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._settings = settings
        self._number = next(NUMBERS)
        patch.syspath_prepend(str(folder))

    def write(self, label: str, name: str, operations: str, *, run: str = "pass", after: str = "") -> None:
        """Write a migration; `run` is the body of a function that `migrations.RunPython(run)` may name."""
        # What a package of migrations requires is worked out once for its name.
        package = self._folder / f"migrations_of_{label}_{self._number}"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        dependencies = [(label, after)] if after else []
        body = indent(dedent(run), " " * 4)
        (package / f"{name}.py").write_text(HEAD.format(body=body, dependencies=dependencies, operations=operations))
        importlib.invalidate_caches()
        self._settings.MIGRATION_MODULES = {**self._settings.MIGRATION_MODULES, label: package.name}

    def forget(self) -> None:
        """Unload them, so that other tests may write others."""
        for name in [name for name in sys.modules if name.startswith("migrations_of_")]:
            del sys.modules[name]


def waiting_migrators() -> int:
    """How many wait for the lock of a migration in this database: they say so in the list of sessions."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%%' || %s",
            [WAITING],
        )
        (number,) = cursor.fetchone()
        return int(number)
