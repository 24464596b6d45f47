"""Looking at schemas: read-only, every name qualified, never through the search path, many in one statement."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, ProgrammingError, connections, transaction
from psycopg import errors, sql

from ...exceptions import Unavailable
from ...types import Readiness, SchemaState
from ..context import is_public_schema
from ..database import TENANT_DATABASE
from .failures import first_line, is_away
from .requirements import requirements_of
from .schemas import unusable_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .requirements import Requirements

logger = logging.getLogger(__name__)

BATCH = 200
"""Schemas that one statement reads: it holds a lock on two relations of each, of the 6,400 that PostgreSQL has by
default (``max_locks_per_transaction`` x ``max_connections``)."""
LOCK_TIMEOUT = 2_000
"""Milliseconds to wait for a table that somebody holds exclusively."""
SETTINGS = (
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}",
    # Two hundred schemas look so expensive to the planner that it would compile the statement, longer than that runs.
    "SET LOCAL jit = off",
)

CATALOG = """
SELECT n.nspname, EXISTS (
    SELECT 1 FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'django_migrations')
FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY({names})
"""
HELD = """
SELECT DISTINCT n.nspname
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_database d ON d.oid = l.database AND d.datname = current_database()
JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relname = 'django_migrations'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = ANY({names})
WHERE l.mode = 'AccessExclusiveLock'
"""
RECORDED = """SELECT {name}::text, (SELECT json_agg(json_build_array(app, name))::text FROM {table})"""
ABSENT = """
SELECT r.name, r.migrations, (
    SELECT array_agg(absent.name)
    FROM required q
    -- Looked up by its key: a join makes the planner read the whole catalog for each schema.
    CROSS JOIN LATERAL (SELECT (
        SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relname = q.tab) AS oid) c
    CROSS JOIN LATERAL (SELECT array(
        SELECT a.attname FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS cols) present
    CROSS JOIN LATERAL (
        SELECT q.tab::text WHERE c.oid IS NULL
        UNION ALL
        SELECT q.tab || '.' || col FROM unnest(q.cols) col WHERE c.oid IS NOT NULL AND col <> ALL (present.cols)
    ) absent(name)
    -- Settles nearly every table by one comparison.
    WHERE NOT q.cols <@ present.cols)
FROM recorded r JOIN pg_catalog.pg_namespace n ON n.nspname = r.name::name
"""
STATEMENT = """
WITH required(tab, cols) AS MATERIALIZED (
         SELECT tab::name, array_agg(col::name)
         FROM unnest({tables}::text[], {columns}::text[]) given(tab, col) GROUP BY tab),
     recorded(name, migrations) AS ({recorded})
{absent}
"""

Row = tuple[str, str | None, list[str] | None]


def inspect_schema(schema_name: str, kind: str) -> Readiness:
    """Return what one schema is; one statement when its migrations are recorded at all.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    if reason := unusable_name(schema_name):
        return _refused(schema_name, reason)
    try:
        requirements = requirements_of(kind)
    except LookupError as error:
        return _unknowable(schema_name, error)
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
        found = {name: _refused(name, reason) for name in batch if (reason := unusable_name(name))}
        found |= _inspect_batch({name: kinds[name] for name in batch if name not in found})
        yield from (found[name] for name in batch)


def _inspect_batch(kinds: Mapping[str, str]) -> dict[str, Readiness]:
    try:
        statement = sql.SQL(CATALOG).format(names=sql.Literal(list(kinds)))
        has_record: dict[str, bool] = dict(_fetch(statement))
    except DatabaseError as error:
        raise Unavailable(reason=f"The schemas can't be listed: {first_line(error)}") from error
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for name, kind in kinds.items():
        by_kind[kind].append(name)
    found: dict[str, Readiness] = {}
    for kind, names in by_kind.items():
        found |= _inspect_kind(kind, names, has_record)
    return found


def _inspect_kind(kind: str, names: list[str], has_record: Mapping[str, bool]) -> dict[str, Readiness]:
    try:
        requirements = requirements_of(kind)
    except LookupError as error:
        return {name: _unknowable(name, error) for name in names}
    found = {
        name: _judge((name, None, None), requirements)
        if name in has_record
        else Readiness(name, SchemaState.MISSING, is_shared=is_public_schema(name))
        for name in names
        if not has_record.get(name)
    }
    return found | _inspect_readable([name for name in names if has_record.get(name)], requirements)


def _inspect_readable(names: list[str], requirements: Requirements) -> dict[str, Readiness]:
    """Read schemas together; when that fails, in parts, so that the one at fault fails alone."""
    if not names:
        return {}
    try:
        rows = {row[0]: row for row in _read(names, requirements)}
    except DatabaseError as error:
        held = _held(names) if isinstance(error.__cause__, errors.LockNotAvailable) else set[str]()
        found = {name: _failure(name, error) for name in names if name in held or len(names) == 1}
        rest = [name for name in names if name not in found]
        # Without those that are locked, which would cost the full patience each, it may well do.
        middle = 0 if found else len(rest) // 2
        return found | _inspect_readable(rest[:middle], requirements) | _inspect_readable(rest[middle:], requirements)
    return {
        # One that vanished meanwhile has no row.
        name: _judge(rows[name], requirements) if name in rows else Readiness(name, SchemaState.MISSING)
        for name in names
    }


def _held(names: list[str]) -> set[str]:
    """Return the schemas whose record of migrations somebody holds exclusively, or waits to."""
    return {name for (name,) in _fetch(sql.SQL(HELD).format(names=sql.Literal(names)))}


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
    """Run a statement that only reads, without harm to a transaction that may be open.

    How it is to run goes along in the same round trip and ends with it, unless the statement has to be in a
    transaction of its own anyway.
    """
    connection = connections[TENANT_DATABASE]
    with connection.cursor() as cursor:
        raw = cursor.cursor.connection
        # Composed against the connection, for its encoding and its rules of quoting.
        text = statement.as_string(raw)
        # A host may let psycopg prepare what repeats, which two statements in one can't be.
        if not connection.in_atomic_block and raw.prepare_threshold is None:
            cursor.execute(";".join((*SETTINGS, text)))
            while cursor.nextset():
                pass
            return list(cursor.fetchall())
        with transaction.atomic(TENANT_DATABASE):
            for setting in SETTINGS:
                cursor.execute(setting)
            cursor.execute(text)
            rows = list(cursor.fetchall())
            # Ends the settings too, which would else last as long as the caller's transaction.
            transaction.set_rollback(True, TENANT_DATABASE)
        return rows


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
    if is_away(error):
        connection = connections[TENANT_DATABASE]
        if not connection.in_atomic_block:
            connection.close()
        raise Unavailable(reason=f"The database did not answer: {first_line(error)}") from error
    return _unknowable(schema_name, error)


def _refused(schema_name: str, reason: str) -> Readiness:
    error = f"{reason}: give the tenant a schema of another name"
    return Readiness(schema_name, SchemaState.ERROR, error=error, is_shared=is_public_schema(schema_name))


def _unknowable(schema_name: str, error: Exception) -> Readiness:
    logger.error("[%s] The schema can't be inspected: %s", schema_name, first_line(error))
    return Readiness(
        schema_name,
        SchemaState.ERROR,
        error=f"it can't be inspected: {first_line(error)}",
        is_shared=is_public_schema(schema_name),
    )
