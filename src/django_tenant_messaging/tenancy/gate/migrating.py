"""Changing a schema: one migrator at a time, whichever process it is in."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from django.core.management import call_command
from django.db import connections

from ...types import printable
from ..database import TENANT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

PAUSE = 0.2
"""Seconds after which a lock that somebody else has is tried again."""
WAITING: LiteralString = " -- waits for another migrator of this schema"
"""What the database's list of sessions says of a process that waits."""


@contextmanager
def migration_lock(schema_name: str) -> Iterator[None]:
    """Hold the advisory lock of a schema's migration, waiting for whoever has it.

    It is held by a transaction on a connection of its own: a migration closes Django's, and a pooler such as PgBouncer
    keeps a client on one server connection only for as long as a transaction lasts. Two migrators of one schema would
    fail each other; PostgreSQL frees the lock when a migrator is killed.

    The transaction has no snapshot, and a process that waits has none either, but asks again and again: a migration
    that builds an index beside writes waits for every older snapshot of the database, and would wait for ever for a
    process that waits for the lock.
    """
    parameters = connections[TENANT_DATABASE].get_connection_params()
    with closing(psycopg.connect(**parameters, autocommit=True)) as connection:
        if not _locked(connection, schema_name):
            logger.info("[%s] Waiting for another process that migrates this schema.", printable(schema_name))
            while not _locked(connection, schema_name, WAITING):
                time.sleep(PAUSE)
        yield


@contextmanager
def no_transaction_left() -> Iterator[None]:
    """Roll back what the body began and left open when it raises.

    Django's schema editor leaves its transaction when the SQL fails that it puts off to its end: nobody could use the
    connection any longer.
    """
    connection = connections[TENANT_DATABASE]
    outer = len(connection.atomic_blocks)
    try:
        yield
    except BaseException as error:
        for block in reversed(connection.atomic_blocks[outer:]):
            block.__exit__(type(error), error, error.__traceback__)
        raise


def _locked(connection: psycopg.Connection[Any], schema_name: str, said: LiteralString = "") -> bool:
    """Begin a transaction that has the lock; ``False``, and no transaction, when somebody else has it."""
    if not _try(connection, schema_name, said):
        return False
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    if _try(connection, schema_name):
        return True
    connection.rollback()
    return False


def _try(connection: psycopg.Connection[Any], schema_name: str, said: LiteralString = "") -> bool:
    """Take the lock until the transaction ends, which is at once when none was begun."""
    taken = connection.execute(f"SELECT pg_try_advisory_xact_lock(%s){said}", [_key(schema_name)]).fetchone()
    return taken == (True,)


def run_migrations(schema_name: str, *labels: str, verbosity: int = 0) -> None:
    """Apply to a schema what its migrations record lacks, of one app if it is named; raises what the migration raises.

    The migrations that those of the app depend on are applied too.
    """
    call_command(
        "migrate_schemas", *labels, schema_name=schema_name, executor="standard", interactive=False, verbosity=verbosity
    )


def _key(schema_name: str) -> int:
    digest = hashlib.sha256(f"tenant-messaging migration\0{TENANT_DATABASE}\0{schema_name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
