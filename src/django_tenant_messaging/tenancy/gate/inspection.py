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
from .catalog import DIGESTED
from .describing import describing
from .failures import first_line, is_away
from .requirements import APP_LABEL, requirements_of
from .schemas import unusable_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .requirements import Requirements
    from .structure import Structure

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
JOIN pg_catalog.pg_class c ON c.oid = l.relation AND (
    c.relname = 'django_migrations' OR starts_with(c.relname::text, {ours}))
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = ANY({names})
WHERE l.mode = 'AccessExclusiveLock'
"""
RECORDED = "SELECT {name}, app, name FROM {table}"
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
    WHERE NOT q.cols <@ present.cols), s.digests
FROM recorded r
JOIN pg_catalog.pg_namespace n ON n.nspname = r.name::name
LEFT JOIN structured s ON s.name = n.nspname
"""
STRUCTURE = f"""
     looked_at(name, tab) AS (SELECT name::name, tab FROM recorded CROSS JOIN unnest({{ours}}::name[]) tab),
     {DIGESTED},
     structured(name, digests) AS (
         SELECT nspname, json_object_agg(tab, digest)::text FROM digested GROUP BY nspname)
"""
NO_STRUCTURE = "structured(name, digests) AS (SELECT NULL::name, NULL::text WHERE false)"
STATEMENT = """
WITH required(tab, cols) AS MATERIALIZED (
         SELECT tab::name, array_agg(col::name)
         FROM unnest({tables}::text[], {columns}::text[]) given(tab, col) GROUP BY tab),
     recorded(name, migrations) AS MATERIALIZED (
         SELECT tenant, json_agg(json_build_array(app, name)) FILTER (WHERE app IS NOT NULL)::text
         FROM unnest({names}::text[]) tenant LEFT JOIN ({recorded}) record(owner, app, name) ON owner = tenant
         GROUP BY tenant),
     {structure}
{absent}
"""
ATTEMPTS = 5
"""How often a structure is looked at that is changed between the look at its digest and the one at its details."""

Row = tuple[str, str | None, list[str] | None, str | None]
"""A schema's name, its recorded migrations, what it lacks, and its tables of ours with their digests."""


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
        name: _judge((name, None, None, None), requirements)
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
        found = _gone(names) if isinstance(error, ProgrammingError) else {}
        held = _held(names) if isinstance(error.__cause__, errors.LockNotAvailable) else set[str]()
        found |= {name: _failure(name, error) for name in names if name in held or (len(names) == 1 and not found)}
        rest = [name for name in names if name not in found]
        # Without those that are gone, or locked, which would cost the full patience each, it may well do.
        middle = 0 if found else len(rest) // 2
        return found | _inspect_readable(rest[:middle], requirements) | _inspect_readable(rest[middle:], requirements)
    return {
        # One that vanished meanwhile has no row.
        name: _judge(rows[name], requirements) if name in rows else Readiness(name, SchemaState.MISSING)
        for name in names
    }


def _gone(names: list[str]) -> dict[str, Readiness]:
    """Return those schemas that aren't there any longer."""
    there = {name for name, _has_record in _fetch(sql.SQL(CATALOG).format(names=sql.Literal(names)))}
    return {name: Readiness(name, SchemaState.MISSING) for name in names if name not in there}


def _held(names: list[str]) -> set[str]:
    """Return the schemas that somebody holds exclusively, or waits to: the record of migrations or a table of ours."""
    return {
        name for (name,) in _fetch(sql.SQL(HELD).format(names=sql.Literal(names), ours=sql.Literal(f"{APP_LABEL}_")))
    }


def _read(names: list[str], requirements: Requirements) -> list[Row]:
    recorded = sql.SQL(" UNION ALL ").join(
        sql.SQL(RECORDED).format(name=sql.Literal(name), table=sql.Identifier(name, "django_migrations"))
        for name in names
    )
    structure = requirements.structure
    ours = sorted(structure.tables) if structure else []
    columns = [pair for pair in requirements.columns if pair[0] not in ours]
    statement = sql.SQL(STATEMENT).format(
        tables=sql.Literal([table for table, _column in columns]),
        columns=sql.Literal([column for _table, column in columns]),
        names=sql.Literal(names),
        recorded=recorded,
        structure=sql.SQL(STRUCTURE if structure else NO_STRUCTURE).format(ours=sql.Literal(ours)),
        absent=sql.SQL(ABSENT),
    )
    for _attempt in range(ATTEMPTS):
        rows: list[Row] = _fetch(statement)
        if structure is None or not _learn(structure, rows):
            return rows
    raise Unavailable("The schemas are being changed.")


def _learn(structure: Structure, rows: Iterable[Row]) -> bool:
    """Have tables described whose digests this process hasn't met, one of all that are alike; say if there are any."""
    unknown: dict[int, tuple[str, str]] = {}
    for name, _migrations, _absent, digests in rows:
        for table, digest in json.loads(digests or "{}").items():
            if digest not in structure.judged:
                unknown.setdefault(digest, (name, table))
    if not unknown:
        return False
    ((described,),) = _fetch(describing(unknown.values(), structure.users.key_type))
    found = json.loads(described)
    structure.learn(found["tables"], found["user_type"])
    return not all(digest in structure.judged for digest in unknown)


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
    name, migrations, absent, digests = row
    recorded = {(app, migration) for app, migration in json.loads(migrations or "[]")}
    pending, unknown = requirements.missing(recorded), requirements.unknown(recorded)
    missing, put_off = _split(((app, f"{app}.{migration}") for app, migration in pending), requirements)
    flaws = requirements.flaws(
        json.loads(digests or "{}"), is_ahead=any(app == APP_LABEL for app, _migration in unknown)
    )
    gone = sorted([*(absent or []), *(flaw.name for flaw in flaws if flaw.part == "relation")])
    # Of an app that is behind, most of what isn't there is still to come.
    behind = {app for app, _migration in pending}
    owned = ((requirements.owner(relation), relation) for relation in gone)
    lacking, spared = _split(((app, relation) for app, relation in owned if app not in behind), requirements)
    differences = [(APP_LABEL, flaw.text) for flaw in flaws if flaw.part != "relation" and APP_LABEL not in behind]
    if missing:
        state, lacking, differences = SchemaState.BEHIND, [], []
    elif lacking or differences:
        state = SchemaState.DRIFTED
    else:
        state = SchemaState.AHEAD if unknown else SchemaState.OK
    return Readiness(
        name,
        state,
        missing_migrations=_texts(missing),
        unknown_migrations=tuple(f"{app}.{migration}" for app, migration in unknown),
        missing_relations=_texts(lacking),
        differences=_texts(differences),
        tolerated=_texts([*put_off, *spared]),
        apps=tuple(sorted({app for app, _text in (*missing, *lacking, *differences)})),
        is_shared=is_public_schema(name),
    )


def _split(
    named: Iterable[tuple[str, str]], requirements: Requirements
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Part what apps lack, as pairs of an app and a name: what refuses a tenant, and what doesn't."""
    refusing, tolerated = list[tuple[str, str]](), list[tuple[str, str]]()
    for app, name in named:
        (refusing if requirements.is_required(app) else tolerated).append((app, name))
    return refusing, tolerated


def _texts(named: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(text for _app, text in named)


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
