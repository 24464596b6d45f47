"""Looking at schemas: read-only, every name qualified, never through the search path, many in one statement."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, OperationalError, ProgrammingError, connections, transaction
from psycopg import sql

from ...exceptions import Unavailable
from ...types import Readiness, SchemaState
from ..context import is_public_schema
from ..database import TENANT_DATABASE
from .requirements import requirements_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .requirements import Requirements

logger = logging.getLogger(__name__)

BATCH = 200
"""Schemas that one statement reads: it holds a lock on two relations of each, of the 6,400 that PostgreSQL has by
default (``max_locks_per_transaction`` x ``max_connections``)."""
LOCK_TIMEOUT = 2_000
"""Milliseconds to wait for a table that somebody holds exclusively."""

CATALOG = """
SELECT n.nspname, EXISTS (
    SELECT 1 FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'django_migrations')
FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY({names})
"""
RECORDED = """SELECT {name}::text, (SELECT json_agg(json_build_array(app, name))::text FROM {table})"""
ABSENT = """
SELECT r.name, r.migrations, (
    SELECT array_agg(DISTINCT CASE WHEN c.oid IS NULL THEN q.tab ELSE q.tab || '.' || q.col END)
    FROM required q
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = q.tab::name
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = q.col::name AND NOT a.attisdropped
    WHERE a.attname IS NULL)
FROM recorded r JOIN pg_catalog.pg_namespace n ON n.nspname = r.name::name
"""
STATEMENT = """
WITH required(tab, col) AS (SELECT * FROM unnest({tables}::text[], {columns}::text[])),
     recorded(name, migrations) AS ({recorded})
{absent}
"""

Row = tuple[str, str | None, list[str] | None]


def inspect_schema(schema_name: str, kind: str) -> Readiness:
    """Return what one schema is; one statement when its migrations are recorded at all.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    requirements = requirements_of(kind)
    try:
        (row,) = _read([schema_name], requirements)
    except ProgrammingError:
        # No table of migrations, or not even the schema.
        (readiness,) = inspect_schemas({schema_name: kind})
        return readiness
    except DatabaseError as error:
        return _failure(schema_name, error)
    return _judge(row, requirements)


def inspect_schemas(kinds: Mapping[str, str]) -> Iterator[Readiness]:
    """Yield what each schema is, in the given order; ``kinds`` maps their names to their tenant types.

    A schema that can't be read costs the others nothing. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer at all.
    """
    names = iter(kinds)
    while batch := list(islice(names, BATCH)):
        found = _inspect_batch({name: kinds[name] for name in batch})
        yield from (found[name] for name in batch)


def _inspect_batch(kinds: Mapping[str, str]) -> dict[str, Readiness]:
    try:
        statement = sql.SQL(CATALOG).format(names=sql.Literal(list(kinds)))
        has_record: dict[str, bool] = dict(_fetch(statement))
    except DatabaseError as error:
        raise Unavailable(f"The schemas can't be listed: {_first_line(error)}") from error
    found: dict[str, Readiness] = {}
    readable: defaultdict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        if name not in has_record:
            found[name] = Readiness(name, SchemaState.MISSING, is_shared=is_public_schema(name))
        elif has_record[name]:
            readable[kind].append(name)
        else:
            found[name] = _judge((name, None, None), requirements_of(kind))
    for kind, names in readable.items():
        found |= _inspect_readable(names, requirements_of(kind))
    return found


def _inspect_readable(names: list[str], requirements: Requirements) -> dict[str, Readiness]:
    """Read schemas together; when that fails, halves of them, so that the one at fault fails alone."""
    try:
        rows = {row[0]: row for row in _read(names, requirements)}
    except DatabaseError as error:
        if len(names) == 1:
            return {names[0]: _failure(names[0], error)}
        middle = len(names) // 2
        return {
            **_inspect_readable(names[:middle], requirements),
            **_inspect_readable(names[middle:], requirements),
        }
    return {
        # One that vanished meanwhile has no row.
        name: _judge(rows[name], requirements) if name in rows else Readiness(name, SchemaState.MISSING)
        for name in names
    }


def _read(names: Iterable[str], requirements: Requirements) -> list[Row]:
    recorded = sql.SQL(" UNION ALL ").join(
        sql.SQL(RECORDED).format(name=sql.Literal(name), table=sql.Identifier(name, "django_migrations"))
        for name in names
    )
    statement = sql.SQL(STATEMENT).format(
        tables=sql.Literal([table for table, _column in requirements.columns]),
        columns=sql.Literal([column for _table, column in requirements.columns]),
        recorded=recorded,
        absent=sql.SQL(ABSENT),
    )
    return _fetch(statement)


def _fetch(statement: sql.Composed) -> list[Any]:
    """Run a statement, without harm to a transaction that may be open.

    Outside of one, the limit of waiting goes along in the same round trip and ends with it.
    """
    connection = connections[TENANT_DATABASE]
    with connection.cursor() as cursor:
        # Composed against the connection, for its encoding and its rules of quoting.
        text = statement.as_string(cursor.cursor.connection)
        if connection.in_atomic_block:
            with transaction.atomic(TENANT_DATABASE):
                cursor.execute(text)
                return list(cursor.fetchall())
        cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT};{text}")
        cursor.nextset()
        return list(cursor.fetchall())


def _judge(row: Row, requirements: Requirements) -> Readiness:
    name, migrations, absent = row
    recorded = {(app, migration) for app, migration in json.loads(migrations or "[]")}
    missing = requirements.missing(recorded)
    unknown = requirements.unknown(recorded)
    if missing:
        state = SchemaState.BEHIND
    elif absent:
        state = SchemaState.DRIFTED
    else:
        state = SchemaState.AHEAD if unknown else SchemaState.OK
    return Readiness(
        name,
        state,
        missing_migrations=tuple(f"{app}.{migration}" for app, migration in missing),
        unknown_migrations=tuple(f"{app}.{migration}" for app, migration in unknown),
        # Of a schema that is behind, most of what isn't there is still to come.
        missing_relations=() if missing else tuple(sorted(absent or [])),
        is_shared=is_public_schema(name),
    )


def _failure(schema_name: str, error: DatabaseError) -> Readiness:
    connection = connections[TENANT_DATABASE]
    if isinstance(error, OperationalError) and not connection.in_atomic_block and not connection.is_usable():
        connection.close()
        raise Unavailable(f"The database did not answer: {_first_line(error)}") from error
    logger.error("[%s] The schema can't be inspected: %s", schema_name, _first_line(error))
    return Readiness(
        schema_name,
        SchemaState.ERROR,
        error=f"it can't be inspected: {_first_line(error)}",
        is_shared=is_public_schema(schema_name),
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
