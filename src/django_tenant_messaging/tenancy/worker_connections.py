"""A worker thread's connection to the database: the host's own kind, which knows what its search path is.

django-tenants sets the path before each statement. On a connection that nobody else uses, it only has to be set when
the tenant changes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .prepared import PreparedStatements

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def worker_wrapper(hosts: Any) -> Any:
    """Return the class of the worker threads' connections, given that of the host's."""

    class WorkerConnection(hosts):  # type: ignore[misc]
        path: list[str] | None = None
        """The search path that PostgreSQL has, ``None`` when it isn't known."""
        prepared: PreparedStatements | None = None

        def _handle_search_path(self, *args: Any, **kwargs: Any) -> None:
            wanted = self._get_cursor_search_paths()
            if wanted == self.path:
                self.search_path_set_schemas = wanted
                return
            super()._handle_search_path(*args, **kwargs)
            self.path = self.search_path_set_schemas

        def rollback(self) -> None:
            self.path = None
            super().rollback()

        def savepoint_rollback(self, sid: str) -> None:
            self.path = None
            super().savepoint_rollback(sid)

        def close(self) -> None:
            self.path = self.prepared = None
            super().close()

    return WorkerConnection


def run_prepared(connection: Any, text: str, values: Mapping[str, Any]) -> str | None:
    """Run a statement, prepared if it can be, on a worker thread's connection, in its tenant; see :mod:`.prepared`."""
    connection.ensure_connection()
    raw = connection.connection.pgconn
    if connection.prepared is None or connection.prepared.connection is not raw:
        connection.prepared = PreparedStatements(raw)
    wanted = connection._get_cursor_search_paths()
    path = None if wanted == connection.path else wanted
    with connection.wrap_database_errors:
        # An error takes back the path with the rest.
        answer: str | None = connection.prepared.run(text, values, path)
    if answer is not None:
        connection.path = wanted
    return answer
