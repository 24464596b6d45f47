"""Changing a schema: one migrator at a time, whichever process it is in."""

from __future__ import annotations

import hashlib
import logging
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg
from django.core.management import call_command
from django.db import connections

from ..database import TENANT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)


@contextmanager
def migration_lock(schema_name: str) -> Iterator[None]:
    """Hold the advisory lock of a schema's migration, waiting for whoever has it.

    It is held by a transaction on a connection of its own: a migration closes Django's, and a pooler such as PgBouncer
    keeps a client on one server connection only for as long as a transaction lasts. Two migrators of one schema would
    fail each other; PostgreSQL frees the lock when a migrator is killed.
    """
    parameters = connections[TENANT_DATABASE].get_connection_params()
    with closing(psycopg.connect(**parameters)) as connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_key(schema_name)])
        if cursor.fetchone() != (True,):
            logger.info("[%s] Waiting for another process that migrates this schema.", schema_name)
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_key(schema_name)])
        yield


def run_migrations(schema_name: str, *, verbosity: int = 0) -> None:
    """Apply to a schema what its migrations record lacks; raises what the migration raises."""
    call_command(
        "migrate_schemas", schema_name=schema_name, executor="standard", interactive=False, verbosity=verbosity
    )


def _key(schema_name: str) -> int:
    digest = hashlib.sha256(f"tenant-messaging migration\0{TENANT_DATABASE}\0{schema_name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
