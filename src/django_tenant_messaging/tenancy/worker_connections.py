"""A worker thread's connection to the database: the host's own kind, which knows whether it runs what is prepared.

Each cursor of django-tenants sets the search path by itself. Only between two prepared statements, with no cursor in
between, the path is known to be what the first of them set.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import OperationalError
from psycopg.pq import TransactionStatus

from .prepared import PreparedStatements

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def worker_wrapper(hosts: Any) -> Any:
    """Return the class of the worker threads' connections, given that of the host's."""

    class WorkerConnection(hosts):  # type: ignore[misc]
        path: list[str] | None = None
        """The search path that the last prepared statement found or set, ``None`` once anything else may have run."""
        path_is_fresh = False
        """Whether it did that in this call or, before a call's first statement, in the one before."""
        prepared: PreparedStatements | None = None

        def begin_call(self) -> None:
            """Forget the path unless the call before set it: what else that call did may have gone by the driver."""
            if not self.path_is_fresh:
                self.path = None
            self.path_is_fresh = False

        def _cursor(self, *args: Any, **kwargs: Any) -> Any:
            self.path = None
            return super()._cursor(*args, **kwargs)

        def _handle_search_path(self, *args: Any, **kwargs: Any) -> None:
            """Set the path, or raise: when that fails, as by a timeout, django-tenants goes on in the tenant before.

            In a failed transaction PostgreSQL itself refuses what follows, except to end it.
            """
            super()._handle_search_path(*args, **kwargs)
            if self.search_path_set_schemas is None and _status(self) is not TransactionStatus.INERROR:
                raise OperationalError("The search path of the tenant couldn't be set.")

        def close(self) -> None:
            self.path = self.prepared = None
            super().close()

    return WorkerConnection


def is_between_transactions(connection: Any) -> bool:
    """Say whether no transaction is open, as PostgreSQL sees it: a host may have begun one by itself."""
    return connection.connection is None or _status(connection) is TransactionStatus.IDLE


def run_prepared(connection: Any, text: str, values: Mapping[str, Any]) -> str | None:
    """Run a statement, prepared if it can be, on a worker thread's connection, in its tenant; see :mod:`.prepared`."""
    connection.ensure_connection()
    if not is_between_transactions(connection):
        return None
    raw = connection.connection.pgconn
    if connection.prepared is None or connection.prepared.connection is not raw:
        connection.prepared = PreparedStatements(raw)
    wanted = connection._get_cursor_search_paths()
    path = None if wanted == connection.path else wanted
    connection.path = None
    with connection.wrap_database_errors:
        answer: str | None = connection.prepared.run(text, values, path)
    if answer is not None:
        connection.path, connection.path_is_fresh = wanted, True
    return answer


def _status(connection: Any) -> TransactionStatus:
    return TransactionStatus(connection.connection.pgconn.transaction_status)
