"""Statements that a worker thread's connection keeps prepared for each tenant, so that PostgreSQL plans them once.

PostgreSQL keeps a plan as long as the search path is the one for which the plan was made. So a connection keeps the
path of the tenant that it served last, and sets another tenant's in the same round trip as the statement. libpq itself
runs the statements: a driver's cursor takes as long for one of them as PostgreSQL does.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from functools import lru_cache, partial
from select import POLLIN, POLLOUT, poll
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import errors, pq

from ..conf import messaging_settings
from .identifiers import as_sent, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

logger = logging.getLogger(__name__)

PARAMETER = re.compile(r"(?<!%)%\((\w+)\)s")
SET_PATH = b"SELECT pg_catalog.set_config('search_path', $1, false)"
PLAN_FOR_LARGE_TABLES = b"SELECT pg_catalog.set_config('enable_seqscan', 'off', true)"
"""While a plan is made: a table that is small then may have grown when the plan is used."""
GROWTH = 4
"""A plan is made again after so many times as many uses: the tables have grown with them."""
MOST_FAILURES = 3
"""Times that a connection may lose its statements before it prepares none any more."""
FINE = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}


def _nothing() -> None:
    pass


class _Step(NamedTuple):
    """What is sent, and what follows from its being done."""

    send: Callable[[PGconn], None]
    done: Callable[[], None] = _nothing


class _Statement:
    """A prepared statement; ``uses`` counts how often its text has come."""

    __slots__ = ("name", "planned_at", "uses")

    def __init__(self, name: bytes, uses: int) -> None:
        self.name = name
        self.uses = self.planned_at = uses

    @property
    def is_outgrown(self) -> bool:
        """Whether the plan was made for tables that have grown since."""
        return self.uses >= GROWTH * self.planned_at


class PreparedStatements:
    """The prepared statements of one connection to PostgreSQL, of which there are at most ``PREPARED_STATEMENTS``.

    A text is prepared when it comes for the second time. A text that comes so seldom that others have taken its place
    meanwhile never is: to prepare it each time would take longer than it saves.
    """

    def __init__(self, connection: PGconn) -> None:
        self.connection = connection
        self._prepared: OrderedDict[bytes, _Statement] = OrderedDict()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._number = 0
        self._path_statement: bytes | None = None
        self._failures = 0

    def run(self, text: str, values: Mapping[str, Any], path: Sequence[str] | None) -> str | None:
        """Run a statement that returns one text, in a transaction of its own, and return the text.

        ``path`` is the search path to set before, ``None`` if it is set already. Returns ``None``, having done nothing,
        where nothing can be prepared. Raises psycopg's errors.
        """
        if self._failures >= MOST_FAILURES or not messaging_settings.PREPARED_STATEMENTS:
            return None
        sent, names = numbered(text)
        try:
            return self._run(sent, [_as_text(values[name]) for name in names], path)
        except (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement):
            self._prepared.clear()
            self._path_statement = None
            self._failures += 1
            logger.warning("A database connection has lost its prepared statements: is there a pooler between?")
            return None

    def _run(self, text: bytes, values: list[bytes | None], path: Sequence[str] | None) -> str:
        steps = [] if path is None else self._setting(path)
        statement = self._prepared.get(text)
        if statement is not None and not statement.is_outgrown:
            statement.uses += 1
            self._prepared.move_to_end(text)
            if not steps:
                # A parameter may be NULL, whatever the driver's types say.
                return _text_of(_checked(self.connection.exec_prepared(statement.name, values)))  # type: ignore[arg-type]
            return self._in_one_round_trip([*steps, _Step(partial(_execute, statement.name, values))])
        if statement is None and not self._comes_again(text):
            return self._in_one_round_trip([*steps, _Step(partial(_execute_once, text, values))])
        return self._in_one_round_trip([*steps, *self._preparing(text, values)])

    def _preparing(self, text: bytes, values: list[bytes | None]) -> list[_Step]:
        old = self._prepared.pop(text, None)
        dropped = [] if old is None else [old]
        while len(self._prepared) >= messaging_settings.PREPARED_STATEMENTS:
            dropped.append(self._prepared.popitem(last=False)[1])
        statement = _Statement(self._new_name(), 2 if old is None else old.uses + 1)
        # PostgreSQL keeps what it has prepared also where the statement fails then.
        keep = partial(self._prepared.__setitem__, text, statement)
        return [
            *(_Step(partial(_execute_once, b"DEALLOCATE " + dropped_one.name, None)) for dropped_one in dropped),
            _Step(partial(_execute_once, PLAN_FOR_LARGE_TABLES, None)),
            _Step(partial(_prepare, statement.name, text), keep),
            _Step(partial(_execute, statement.name, values)),
        ]

    def _setting(self, path: Sequence[str]) -> list[_Step]:
        name, steps = self._path_statement, list[_Step]()
        if name is None:
            name = self._new_name()
            steps = [_Step(partial(_prepare, name, SET_PATH), partial(setattr, self, "_path_statement", name))]
        value = as_sent(", ".join(quoted(part) for part in path)).encode()
        return [*steps, _Step(partial(_execute, name, [value]))]

    def _new_name(self) -> bytes:
        self._number += 1
        return f"messaging_{self._number}".encode()

    def _comes_again(self, text: bytes) -> bool:
        """Say whether a text came before, not too long ago, and remember that it came."""
        if text in self._seen:
            del self._seen[text]
            return True
        self._seen[text] = None
        if len(self._seen) > messaging_settings.PREPARED_STATEMENTS:
            self._seen.popitem(last=False)
        return False

    def _in_one_round_trip(self, steps: Sequence[_Step]) -> str:
        """Take all steps in one transaction, and return the text that the last one returns.

        PostgreSQL commits after the last step, so that only what follows says that the transaction is committed.
        """
        connection = self.connection
        connection.enter_pipeline_mode()
        try:
            for step in steps:
                step.send(connection)
            connection.pipeline_sync()
            results = self._results()
        finally:
            if connection.status == pq.ConnStatus.OK:
                connection.exit_pipeline_mode()
        for step, result in zip(steps, results, strict=False):
            if result.status in FINE:
                step.done()
        for result in results:
            _checked(result)
        return _text_of(results[len(steps) - 1])

    def _results(self) -> list[PGresult]:
        """Return the result of each step, or those up to the first error, with what PostgreSQL says at the commit."""
        results: list[PGresult] = []
        while True:
            self._wait()
            result = self.connection.get_result()
            if result is None:
                # The end of a step's results, or of the connection.
                if self.connection.status != pq.ConnStatus.OK:
                    raise errors.OperationalError(self.connection.get_error_message())
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                return results
            elif result.status != pq.ExecStatus.PIPELINE_ABORTED:
                results.append(result)

    def _wait(self) -> None:
        """Wait for the next result, letting other threads run: they can't while libpq waits for a result itself."""
        waiting = poll()
        while self.connection.is_busy():
            unsent = self.connection.flush()
            waiting.register(self.connection.socket, POLLIN | (POLLOUT if unsent else 0))
            waiting.poll()
            self.connection.consume_input()


def _checked(result: PGresult) -> PGresult:
    if result.status not in FINE:
        raise errors.error_from_result(result)
    return result


def _prepare(name: bytes, text: bytes, connection: PGconn) -> None:
    connection.send_prepare(name, text)


def _execute(name: bytes, values: Sequence[bytes | None], connection: PGconn) -> None:
    connection.send_query_prepared(name, values)


def _execute_once(text: bytes, values: Sequence[bytes | None] | None, connection: PGconn) -> None:
    connection.send_query_params(text, values)


def _text_of(result: PGresult) -> str:
    value = result.get_value(0, 0)
    assert value is not None  # noqa: S101 - the statements return a text
    return value.decode()


@lru_cache(maxsize=4096)
def numbered(text: str) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement with parameters by name as PostgreSQL takes it, by number, and the names in that order."""
    names = tuple(dict.fromkeys(PARAMETER.findall(text)))
    return as_sent(PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", text)).encode(), names


def _as_text(value: Any) -> bytes | None:
    """Return a value, such as a number, a UUID, a text or a list of them, as PostgreSQL reads it from text."""
    if value is None:
        return None
    if isinstance(value, list):
        items = ('"' + str(item).replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value)
        return ("{" + ",".join(items) + "}").encode()
    return str(value).encode()
