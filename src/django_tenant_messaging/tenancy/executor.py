"""The one bridge from coroutines to synchronous work in a tenant.

The schema is state of the thread's connection. Entering it inside the very function that the worker thread runs is
the only order in which no other task can come between. The threads are ours: neither Django's request threads nor
the single thread that ``sync_to_async`` shares among all consumers are ever kept waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, ProgrammingError, connections

from ..conf import messaging_settings
from ..exceptions import TenantNotReady, Unavailable
from .context import activated
from .database import TENANT_DATABASE
from .gate import hindrance_after, require_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

P = ParamSpec("P")
R = TypeVar("R")

IDLE_CHECK_AFTER = 1.0
"""Seconds of idleness after which a kept connection is probed before it is used again."""

_thread = threading.local()


class _Threads:
    """The process's executor, made when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._kept: set[BaseDatabaseWrapper] = set()

    def get(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                size = messaging_settings.DATABASE_THREADS
                self._kept = set()
                self._executor = ThreadPoolExecutor(
                    size,
                    thread_name_prefix="tenant-messaging",
                    initializer=partial(setattr, _thread, "kept", self._kept),
                )
            return self._executor

    def close(self) -> None:
        with self._lock:
            executor, self._executor, kept = self._executor, None, self._kept
        if executor is not None:
            # With the database gone, whatever waits would take its connection timeout, one after the other.
            executor.shutdown(wait=True, cancel_futures=True)
            for connection in kept:
                # Its thread has ended, so nobody else uses it.
                connection.inc_thread_sharing()
                connection.close()


_threads = _Threads()


def close_executor() -> None:
    """Finish the running work, drop what waits, and end the threads. For tests and a stopping server."""
    _threads.close()


async def run_in_tenant(schema_name: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a synchronous function in a tenant's schema, in a worker thread, and return its result.

    A cancelled caller doesn't stop the function: what it commits stays committed. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database connection failed, and
    :class:`~django_tenant_messaging.exceptions.TenantNotReady` for a schema that isn't fully migrated, also when
    that shows only in the function's own queries.
    """
    work = partial(function, *args, **kwargs)
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads.get(), context.run, _run, schema_name, work)


def _run(schema_name: str, work: Callable[[], R]) -> R:
    connection = connections[TENANT_DATABASE]
    is_idle = connection.connection is not None and time.monotonic() - _thread.idle_since > IDLE_CHECK_AFTER
    if is_idle and not connection.is_usable():
        connection.close()
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
        connection.close()
        raise Unavailable("The database did not answer; try again.") from error
    finally:
        _give_back_connections()
        _thread.idle_since = time.monotonic()


def _give_back_connections() -> None:
    """Return connections to Django's pool; without one, keep the tenants' connection for the thread's next work.

    The number of threads bounds the kept ones, which ``CONN_MAX_AGE`` can't do under ASGI.
    """
    for connection in connections.all(initialized_only=True):
        keep = connection.alias == TENANT_DATABASE and not connection.settings_dict["OPTIONS"].get("pool")
        if not keep or connection.errors_occurred or connection.in_atomic_block:
            connection.close()
        else:
            _thread.kept.add(connection)
