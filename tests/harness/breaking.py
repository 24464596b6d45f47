"""Breaking a tenant's schema for as long as a test's body runs, as another process would: nobody here is told."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from django_tenant_messaging import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = tuple(f"django_tenant_messaging.{path.stem}" for path in sorted(Path(migrations.__path__[0]).glob("0*.py")))
"""The app's migrations."""
STATUS_TABLE = "django_tenant_messaging_userstatus"


@contextmanager
def without_table(database_url: str, schema_name: str, table: str = STATUS_TABLE) -> Iterator[None]:
    """Put a table out of sight: what is recorded isn't there."""
    _execute(database_url, f'ALTER TABLE "{schema_name}".{table} RENAME TO put_aside')
    try:
        yield
    finally:
        _execute(database_url, f'ALTER TABLE "{schema_name}".put_aside RENAME TO {table}')


@contextmanager
def without_record(database_url: str, schema_name: str, app: str = "django_tenant_messaging") -> Iterator[None]:
    """Let an app's migrations be unrecorded, as if they had never run."""
    records = f'"{schema_name}".django_migrations'
    _execute(database_url, f"UPDATE {records} SET app = 'put_aside' WHERE app = '{app}'")
    try:
        yield
    finally:
        _execute(database_url, f"UPDATE {records} SET app = '{app}' WHERE app = 'put_aside'")


@contextmanager
def locked_table(database_url: str, schema_name: str, table: str) -> Iterator[None]:
    """Hold a table exclusively: who reads it waits."""
    with psycopg.connect(database_url) as connection:
        connection.execute(f'LOCK TABLE "{schema_name}".{table} IN ACCESS EXCLUSIVE MODE')
        yield


def _execute(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(statement)
