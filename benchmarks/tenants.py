"""Many tenants in little time: one is migrated, the others are copies of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management import call_command
from django.db import connection

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL = "tenant0"


def make_tenants(names: Iterable[str]) -> None:
    """Make the tenants that aren't there yet, in the database that Django is set up for."""
    from example.customers.models import Customer

    if "customers_customer" not in connection.introspection.table_names():
        call_command("migrate_schemas", shared=True, verbosity=0)
        Customer(schema_name=MODEL, name=MODEL).save(verbosity=0)
    existing = set(Customer.objects.values_list("schema_name", flat=True))
    new = [name for name in names if name not in existing]
    copy_model(new)
    # Rows alone: saving each would make its schema.
    Customer.objects.bulk_create(Customer(schema_name=name, name=name) for name in new)


def copy_model(names: list[str]) -> None:
    """Make schemas like that of the model tenant: tables, keys between them, and the record of the migrations."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [MODEL])
        tables = [table for (table,) in cursor.fetchall()]
        cursor.execute(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE contype = 'f' AND connamespace = %s::regnamespace",
            [MODEL],
        )
        keys = [f'ALTER TABLE {table} ADD CONSTRAINT "{key}" {text}' for table, key, text in cursor.fetchall()]
        for name in names:
            steps = [f"CREATE SCHEMA {name}"]
            steps += [f'CREATE TABLE {name}."{table}" (LIKE {MODEL}."{table}" INCLUDING ALL)' for table in tables]
            steps += [key.replace(f"{MODEL}.", f"{name}.") for key in keys]
            steps += [f"INSERT INTO {name}.django_migrations SELECT * FROM {MODEL}.django_migrations"]
            cursor.execute(";".join(steps))
        cursor.execute("ANALYZE")
