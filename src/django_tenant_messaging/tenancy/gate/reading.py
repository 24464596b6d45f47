"""The statements that read schemas: every name qualified, never through the search path, many in one statement."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from psycopg import sql

from ...exceptions import Unavailable
from ..database import TENANT_DATABASE
from .catalog import DIGESTED
from .describing import describing
from .requirements import APP_LABEL, Key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .requirements import Requirements
    from .structure import Flaw, Structure

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

Row = tuple[str, str | None, list[str] | None, dict[str, int]]
"""A schema's name, its recorded migrations, what it lacks, and its tables of ours with their digests."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a schema: the migrations it records, what it lacks of what other apps need, and the tables of
    this app that it has, each with what isn't as it should be.
    """

    schema_name: str
    recorded: frozenset[Key] = frozenset()
    absent: tuple[str, ...] = ()
    tables: Mapping[str, tuple[Flaw, ...]] = field(default_factory=dict)


def recording(names: list[str]) -> dict[str, bool]:
    """Return which of these schemas there are, and whether each has a record of migrations."""
    return dict(_fetch(sql.SQL(CATALOG).format(names=sql.Literal(names))))


def held(names: list[str]) -> set[str]:
    """Return the schemas that somebody holds exclusively, or waits to: the record of migrations or a table of ours."""
    statement = sql.SQL(HELD).format(names=sql.Literal(names), ours=sql.Literal(f"{APP_LABEL}_"))
    return {name for (name,) in _fetch(statement)}


def read(names: list[str], requirements: Requirements) -> list[Seen]:
    """Read schemas that have a record of migrations; one that vanished meanwhile isn't among the answers.

    Raises what the database raises for any of them, and :class:`~django_tenant_messaging.exceptions.Unavailable` when
    the schemas are changed again and again meanwhile.
    """
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
    judged: dict[int, tuple[Flaw, ...]] = {}
    for _attempt in range(ATTEMPTS):
        rows: list[Row] = [(*row, json.loads(digests or "{}")) for *row, digests in _fetch(statement)]
        if structure is None or _judge_all(structure, rows, judged):
            return [_seen(row, judged) for row in rows]
    raise Unavailable("The schemas are being changed.")


def _judge_all(structure: Structure, rows: Iterable[Row], judged: dict[int, tuple[Flaw, ...]]) -> bool:
    """Add what is found of the tables to ``judged``, which is the caller's own: what the process remembers, another
    thread may make it forget. Tables that it hasn't met are described, one of all that are alike. Says whether all
    could be judged.
    """
    places: dict[int, tuple[str, str]] = {}
    for name, _migrations, _absent, digests in rows:
        for table, digest in digests.items():
            places.setdefault(digest, (name, table))
    judged |= structure.remembered(places.keys() - judged.keys())
    unknown = [place for digest, place in places.items() if digest not in judged]
    if unknown:
        ((described,),) = _fetch(describing(unknown, structure.users.key_type))
        found = json.loads(described)
        judged |= structure.learn(found["tables"], found["user_type"])
    return places.keys() <= judged.keys()


def _seen(row: Row, judged: Mapping[int, tuple[Flaw, ...]]) -> Seen:
    name, migrations, absent, digests = row
    recorded = frozenset((app, migration) for app, migration in json.loads(migrations or "[]"))
    return Seen(name, recorded, tuple(absent or ()), {table: judged[digest] for table, digest in digests.items()})


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
