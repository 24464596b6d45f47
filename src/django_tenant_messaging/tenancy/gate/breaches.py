"""Which rows break what is to be made: how many, and the first of them by their keys. What they hold isn't told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connections

from ..database import TENANT_DATABASE
from ..identifiers import quoted
from .structure import kept_tables

if TYPE_CHECKING:
    from .structure import Description

FEW = 5
"""Rows that are named."""


def breach_of_nulls(schema: str, table: str, column: str) -> str:
    """Tell which rows have nothing in a column; empty when none is so, here and below."""
    return _told(schema, table, f"{quoted(column)} IS NULL", "rows without a value there")


def breach_of_check(schema: str, table: str, definition: str) -> str:
    """Tell which rows don't pass a check, given as ``CHECK (...)``."""
    condition = definition.removeprefix("CHECK ").replace("%", "%%")
    return _told(schema, table, f"NOT {condition}", "rows that break it")


def breach_of_key(schema: str, table: str, key: Description) -> str:
    """Tell which rows refer to nothing."""
    target = quoted(key["schema"] or schema, key["table"])
    pairs = list(zip(key["columns"], key["target"], strict=True))
    is_given = " AND ".join(f"it.{quoted(column)} IS NOT NULL" for column, _target in pairs)
    is_same = " AND ".join(f"its.{quoted(other)} = it.{quoted(column)}" for column, other in pairs)
    condition = f"{is_given} AND NOT EXISTS (SELECT FROM {target} its WHERE {is_same})"
    return _told(schema, table, condition, f"rows that refer to what isn't in {key['table']}")


def breach_of_unique(schema: str, table: str, index: Description) -> str:
    """Tell which rows are alike where each has to be another."""
    parts = ", ".join(quoted(column) for column in index["columns"])
    wanted = [f"{quoted(column)} IS NOT NULL" for column in index["columns"]]
    wanted += [index["condition"].replace("%", "%%")] if index["condition"] else []
    key = quoted(_key_of(table))
    alike = (
        f"{key} IN (SELECT {key} FROM (SELECT {key}, count(*) OVER (PARTITION BY {parts}) AS times"
        f" FROM {quoted(schema, table)} WHERE {' AND '.join(wanted)}) counted WHERE times > 1)"
    )
    return _told(schema, table, alike, f"rows with the same {', '.join(index['columns'])} as others")


def _told(schema: str, table: str, condition: str, what: str) -> str:
    name = _key_of(table)
    key = quoted(name)
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"SELECT {key}, count(*) OVER () FROM {quoted(schema, table)} it WHERE {condition} ORDER BY 1 LIMIT {FEW}",
            [],
        )
        found = cursor.fetchall()
    if not found:
        return ""
    count = found[0][1]
    first = ", ".join(str(row[0]) for row in found)
    return f"{what}: {count} ({name} {first}{' and others' if count > FEW else ''})"


def _key_of(table: str) -> str:
    indexes = kept_tables()[table]["indexes"]
    (column,) = next(index["columns"] for index in indexes if index["kind"] == "PRIMARY KEY")
    return str(column)
