"""Describing this app's tables in one schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import connections
from psycopg import sql

from ..database import TENANT_DATABASE
from ..identifiers import stored_table
from .catalog import DETAILS, DIGESTED
from .requirements import APP_LABEL, migrations_of
from .structure import tables_to_keep

if TYPE_CHECKING:
    from collections.abc import Collection

    from .structure import Description

STATEMENT = f"""
WITH looked_at(name, tab) AS (SELECT * FROM unnest({{schemas}}::name[], {{tables}}::name[])), {DIGESTED}
SELECT json_build_object(
    'user_type', to_regtype({{user_type}})::text || coalesce(substring({{user_type}} FROM '\\([^)]*\\)'), ''),
    'tables', (SELECT coalesce(json_agg({DETAILS}), '[]')
        FROM digested d JOIN pg_catalog.pg_class c ON c.oid = d.oid))::text
"""


def describing(places: Collection[tuple[str, str]], user_type: str) -> sql.Composed:
    """Return the statement that describes tables, given as schema and table, as JSON.

    ``user_type`` is what Django calls the type of the users' key; it is told as PostgreSQL calls it.
    """
    return sql.SQL(STATEMENT).format(
        schemas=sql.Literal([schema for schema, _table in places]),
        tables=sql.Literal([table for _schema, table in places]),
        user_type=sql.Literal(user_type),
    )


def describe_tables(
    schema_name: str, tables: Collection[str], user_type: str = "bigint"
) -> tuple[dict[str, Description], str]:
    """Return what the tables of a schema are, and what PostgreSQL calls the type of the users' key."""
    statement = describing([(schema_name, table) for table in tables], user_type)
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(statement.as_string(cursor.cursor.connection))
        found = json.loads(cursor.fetchone()[0])
    return {table["table"]: table for table in found["tables"]}, found["user_type"]


def to_keep(schema_name: str) -> dict[str, Any]:
    """Return what ``structure.json`` keeps, as it is in a migrated schema."""
    models = apps.get_app_config(APP_LABEL).get_models(include_auto_created=True)
    described, _name = describe_tables(schema_name, sorted({stored_table(model) for model in models}))
    names = sorted(migration.name for migration in migrations_of(APP_LABEL))
    return {"migrations": names, "tables": tables_to_keep(described.values())}
