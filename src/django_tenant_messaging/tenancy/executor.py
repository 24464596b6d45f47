"""The one bridge from coroutines to synchronous work in a tenant.

The schema is state of the thread's connection. Entering it inside the very function that the worker thread runs is
the only order in which no other task can come between. The threads are ours: neither Django's request threads nor
the single thread that ``sync_to_async`` shares among all consumers are ever kept waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import InterfaceError, InternalError, OperationalError, ProgrammingError
from psycopg.errors import IdleInTransactionSessionTimeout

from ..conf import messaging_settings
from ..exceptions import TenantNotReady, Unavailable
from .context import activated
from .fairness import FairThreads, QueueFull
from .gate import hindrance_after, require_ready
from .thread_connections import ThreadConnections

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

P = ParamSpec("P")
R = TypeVar("R")


class _Threads:
    """The process's threads and their connections, made when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: FairThreads | None = None
        self._connections = ThreadConnections()

    def submit(self, schema_name: str, context: contextvars.Context, work: Callable[[], R]) -> Future[R]:
        with self._lock:
            if self._threads is None:
                self._connections = ThreadConnections()
                self._threads = FairThreads(
                    messaging_settings.DATABASE_THREADS, most_waiting=messaging_settings.DATABASE_QUEUE_LIMIT
                )
            call = partial(context.run, _run, self._connections, schema_name, work)
            return self._threads.submit(schema_name, call)

    def close(self) -> None:
        with self._lock:
            threads, self._threads = self._threads, None
            kept = self._connections
        if threads is not None:
            # With the database gone, whatever waits would take its connection timeout, one after the other.
            threads.close()
            kept.close()


_threads = _Threads()


def close_executor() -> None:
    """Finish the running work, drop what waits, and end the threads. For tests and a stopping server."""
    _threads.close()


async def run_in_tenant(schema_name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a synchronous function in a tenant's schema, in a worker thread, and return its result.

    A tenant has at most as many threads as it leaves free to the others, so half of them when it is alone; its calls
    start in the order in which they were made. Statements, locks and idle transactions have the timeouts of the
    settings. A cancelled caller doesn't stop the function: what it commits stays committed.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database didn't answer in time, or
    when ``DATABASE_QUEUE_LIMIT`` calls of the tenant wait already, and
    :class:`~django_tenant_messaging.exceptions.TenantNotReady` for a schema that isn't fully migrated, also when
    that shows only in the function's own queries.
    """
    try:
        outcome = _threads.submit(schema_name, contextvars.copy_context(), partial(function, *args, **kwargs))
    except QueueFull:
        raise Unavailable("Too much is waiting for the database; try again.") from None
    return await asyncio.wrap_future(outcome)


def _run(kept: ThreadConnections, schema_name: str, work: Callable[[], R]) -> R:
    kept.ensure()
    try:
        require_ready(schema_name)
        with activated(schema_name):
            return work()
    except ProgrammingError as error:
        found = hindrance_after(error, schema_name)
        if found is None:
            raise
        raise TenantNotReady(found) from error
    except (OperationalError, InterfaceError) as error:
        raise _unavailable() from error
    except InternalError as error:
        if not isinstance(error.__cause__, IdleInTransactionSessionTimeout):
            raise
        raise _unavailable() from error
    finally:
        kept.tidy()


def _unavailable() -> Unavailable:
    return Unavailable("The database did not answer; try again.")
