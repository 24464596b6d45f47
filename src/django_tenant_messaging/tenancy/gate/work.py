"""The work on one table of a schema: statements that others needn't wait for long, and what is told of them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, connections, transaction

from ..database import TENANT_DATABASE
from ..identifiers import as_sent, quoted
from .drift import LOCK_TIMEOUT, RepairRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .structure import Flaw

BUILD_TIMEOUT = 600_000
"""Milliseconds that the building of an index waits for transactions that were there before. Nobody waits behind it."""
CLIENT_CHECK = 1_000
"""Milliseconds after which PostgreSQL notices during such a statement that the process that asked for it is gone."""
REWRITE_LIMIT = 64 * 1024 * 1024
"""Bytes of a table that may be written anew, while nobody can use it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is done about one flaw; ``done`` is told to people."""

    schema: str
    flaw: Flaw
    done: list[str]

    def tell(self, what: str) -> None:
        """Say that something was done."""
        self.done.append(what)

    def require_none(self, breach: str) -> None:
        """Refuse if rows break what is to be made."""
        if breach:
            raise RepairRefusedError(f"{self.flaw.text}: {breach}; change or delete them, and run it again")

    def refuse(self, why: str) -> None:
        """Refuse to mend it."""
        raise RepairRefusedError(f"{self.flaw.text}: {why}")

    def alter(self, change: str) -> None:
        """Change the table, in a moment."""
        with patient() as cursor:
            cursor.execute(f"ALTER TABLE {quoted(self.schema, self.flaw.table)} {change}", [])

    def rewrite(self, change: str) -> None:
        """Change the table in a way that writes it anew, if it is small."""
        table = quoted(self.schema, self.flaw.table)
        with patient() as cursor:
            statement = f"ALTER TABLE {table} {change}"
            cursor.execute(f"SELECT pg_total_relation_size('{as_literal(table)}'::regclass)", [])
            (size,) = cursor.fetchone()
            if size > REWRITE_LIMIT:
                self.refuse(
                    f"the table is of {size} bytes and would be locked while it is written anew; when it isn't in"
                    f" use, run: {as_sent(statement)}"
                )
            cursor.execute(statement, [])

    def concurrently(self, statement: str) -> None:
        """Run a statement that can't be part of a transaction. It ends with this process, however that ends."""
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")
            cursor.execute(f"SET lock_timeout = {BUILD_TIMEOUT}")
            # A server on Windows can't: what nobody waits for any longer goes on there to its end.
            with suppress(DatabaseError):
                cursor.execute(f"SET client_connection_check_interval = {CLIENT_CHECK}")
            try:
                cursor.execute(statement, [])
            finally:
                cursor.execute("RESET statement_timeout")
                cursor.execute("RESET lock_timeout")
                cursor.execute("RESET client_connection_check_interval")


def as_literal(name: str) -> str:
    """Return a name, composed as SQL, as what stands between the quotes of a literal."""
    return name.replace("'", "''")


@contextmanager
def patient() -> Iterator[Any]:
    """A cursor in a transaction that waits for a table in use, but not for ever: others queue behind it."""
    with transaction.atomic(TENANT_DATABASE), connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        cursor.execute("SET LOCAL statement_timeout = 0")
        yield cursor
