"""The database connections of the worker threads: one each, of their own, kept between calls, with timeouts.

They don't come from Django's pool. There each call would have to set the timeouts and take them back, for the pages'
sake, and a flood of frames would leave the pages without connections. The number of threads bounds them, which
``CONN_MAX_AGE`` can't do under ASGI.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from zlib import crc32

from django.db import connections
from django.db.backends.postgresql.base import ServerBindingCursor
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from ..conf import messaging_settings
from .context import current_schema
from .database import TENANT_DATABASE
from .worker_connections import is_between_transactions, run_prepared, worker_wrapper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

IDLE_CHECK_AFTER = 1.0
"""Seconds of idleness after which a connection is probed before it is used again."""
PREPARE_THRESHOLD = 5
"""Executions of a statement before its connection prepares it: psycopg's default, which Django turns off."""
PREPARED_MAX = 20
"""Most statements that psycopg has prepared on a connection. The one that writes several messages takes 0.7 MB of
PostgreSQL's memory."""
RANDOM_PAGE_COST = "1"
"""As much as the next page: what a chat touches is in memory. With PostgreSQL's default of 4, made for turning disks,
it reads all of a table of some pages rather than its index, for each row that is written."""
KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
"""How the end of the other side is noticed that nothing tells of, such as by a cable, in 25 seconds. The system's own
default is two hours, and the timeouts of statements are kept by the database, which isn't heard then."""
PLAN_LASTS = 60.0
"""Seconds that a plan is used at most."""

_thread = threading.local()


class ThreadConnections:
    """The connections of a group of threads."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def ensure(self) -> None:
        """See to it that this thread has its own connection, and that it isn't known to be broken; before a call."""
        if not hasattr(_thread, "own"):
            _thread.own = connections[TENANT_DATABASE] = _like(connections[TENANT_DATABASE])
            self._made.append(_thread.own)
            return
        _thread.own.begin_call()
        is_idle = time.monotonic() - _thread.idle_since > IDLE_CHECK_AFTER
        if is_idle and _thread.own.connection is not None and not _thread.own.is_usable():
            _thread.own.close()

    def tidy(self) -> None:
        """Keep the thread's own connection if it works, and give back those of other databases; after a call."""
        for connection in connections.all(initialized_only=True):
            if connection is _thread.own and not connection.in_atomic_block and is_between_transactions(connection):
                connection.close_if_unusable_or_obsolete()
            else:
                connection.close()
        _thread.idle_since = time.monotonic()

    def close(self) -> None:
        """Close all; the threads must have ended."""
        for connection in self._made:
            connection.inc_thread_sharing()
            connection.close()


@contextmanager
def preparing_cursor() -> Iterator[Any]:
    """Yield a cursor for a statement that a busy tenant often repeats: a worker thread's connection prepares it.

    The database then reads and plans the text once for each connection, not each time; Django's own cursors never
    prepare. A plan is good for one search path: texts have to differ between tenants, or each is planned anew for the
    other. In any other thread it is a cursor of Django's.
    """
    connection = connections[TENANT_DATABASE]
    if connection is not getattr(_thread, "own", None):
        with connection.cursor() as cursor:
            yield cursor
        return
    connection.ensure_connection()
    raw = connection.connection
    usual = raw.cursor_factory, raw.prepare_threshold
    # Only now: a connection that prepares at all counts each statement, and for that keeps the texts of the last ones.
    raw.cursor_factory = ServerBindingCursor
    raw.prepare_threshold = connection.settings_dict["OPTIONS"].get("prepare_threshold", PREPARE_THRESHOLD)
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        raw.cursor_factory, raw.prepare_threshold = usual


def execute_prepared(text: str, values: Mapping[str, Any]) -> str | None:
    """Run a statement that every tenant often repeats and that returns one text, and return the text.

    The parameters stand in the statement by name, each with its type, and the names of tables are qualified: see
    :class:`.prepared.PreparedStatements`. Returns ``None``, having done nothing, in a transaction, outside of a worker
    thread, where the host prepares nothing, and where somebody listens to what the connection executes: there a cursor
    of Django's has to run the statement.
    """
    connection: Any = connections[TENANT_DATABASE]
    if (
        not _is_own(connection)
        or connection.in_atomic_block
        or connection.queries_logged
        or connection.execute_wrappers
        or connection.settings_dict["OPTIONS"].get("prepare_threshold", PREPARE_THRESHOLD) is None
    ):
        return None
    return run_prepared(connection, text, values)


def plan_mark(rows: int) -> str:
    """Return an SQL comment that gives a text, about to write so many rows, another plan when it needs one.

    A plan is good for one search path, so for one tenant. And it stays what it was when the tables were small: to read
    all of a table of one page for each row that is written is right, of a thousand pages it is a standstill. So the
    mark changes when this connection has written twice as much as before, and after ``PLAN_LASTS`` seconds for what
    others wrote.
    """
    schema_name = current_schema()
    written: Counter[str] = _thread.__dict__.setdefault("written", Counter())
    written[schema_name] += rows
    minute = int(time.monotonic() / PLAN_LASTS)
    return f"-- {crc32(schema_name.encode()):x} {written[schema_name].bit_length()} {minute}"


def _like(hosts: Any) -> Any:
    """Return a connection as the host set it up, but outside of the pool and without an end, and that notices when
    nobody is there any more.
    """
    options = KEEPALIVE | {name: value for name, value in hosts.settings_dict["OPTIONS"].items() if name != "pool"}
    wrapper: Any = type(hosts)
    wrapper = worker_wrapper(wrapper)
    return wrapper({**hosts.settings_dict, "OPTIONS": options, "CONN_MAX_AGE": None}, TENANT_DATABASE)


@receiver(connection_created)
def _bound(connection: Any, **_kwargs: Any) -> None:
    """Set what a call can wait for the database, what is kept there, and how it plans: once for each connection.

    By a statement: PgBouncer refuses most parameters in the connection's start.
    """
    own: Any = getattr(_thread, "own", None)
    if connection is own:
        connection.connection.prepared_max = PREPARED_MAX
        settings = [(name, f"{int(seconds * 1000)}ms") for name, seconds in _timeouts()]
        settings.append(("random_page_cost", RANDOM_PAGE_COST))
        if not connection.settings_dict["OPTIONS"].get("server_side_binding"):
            # Of what has parameters for the database, all is ours, and is planned without regard to their values.
            settings.append(("plan_cache_mode", "force_generic_plan"))
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        connection.connection.execute(f"SELECT {calls}", [value for setting in settings for value in setting])


def _is_own(connection: object) -> bool:
    return connection is getattr(_thread, "own", None)


def _timeouts() -> Iterator[tuple[str, float]]:
    for name, seconds in (
        ("statement_timeout", messaging_settings.STATEMENT_TIMEOUT),
        ("lock_timeout", messaging_settings.LOCK_TIMEOUT),
        ("idle_in_transaction_session_timeout", messaging_settings.IDLE_TRANSACTION_TIMEOUT),
    ):
        if seconds is not None:
            yield name, seconds
