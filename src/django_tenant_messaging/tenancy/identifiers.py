"""Names inside SQL: each name of a schema, a table or a column that a statement holds is composed here.

A schema's name may hold nearly any character, and so may the names that a host gives its tables and columns. What is
composed here is for statements that are executed with parameters, where the driver takes ``%`` for a sign of its own:
it is doubled. ``as_sent`` undoes that for a statement without parameters.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NewType

SQLName = NewType("SQLName", str)
"""A name as it stands in SQL, in quotes and qualified if need be."""

LONGEST_NAME = 63
"""Bytes after which PostgreSQL cuts a name short."""
_PART = r'"((?:[^"]|"")+)"'
_NAMES = re.compile(rf"(?:{_PART}\.)?{_PART}")


@lru_cache(maxsize=4096)
def quoted(*names: str) -> SQLName:
    """Return a name as SQL, after those that qualify it; ``ValueError`` for one with a NUL character."""
    if any("\0" in name for name in names):
        raise ValueError(f"A name in SQL can't hold a NUL character: {names!r}")
    return SQLName(".".join('"' + name.replace('"', '""') + '"' for name in names).replace("%", "%%"))


def table_of(model: Any) -> SQLName:
    """Return a model's table as SQL, to be found along the search path, unless its ``db_table`` names a schema."""
    return _composed(model._meta.db_table)


def table_in(schema_name: str, model: Any) -> SQLName:
    """Return a model's table in a schema as SQL, or in the one that its ``db_table`` names."""
    table = table_of(model)
    return table if is_elsewhere(model) else SQLName(f"{quoted(schema_name)}.{table}")


def column_of(model: Any, field_name: str) -> SQLName:
    """Return the column of a model's field as SQL; ``pk`` stands for its primary key, as in a query."""
    options = model._meta
    field = options.pk if field_name == "pk" else options.get_field(field_name)
    return _composed(field.column)


def is_elsewhere(model: Any) -> bool:
    """Say whether a model's ``db_table`` names a schema, by quotes inside of it: all tenants have the same table."""
    return len(_stored_names(model._meta.db_table)) > 1


def stored_schema(model: Any) -> str:
    """Return the schema that a model's ``db_table`` names; empty when it names none."""
    return _stored_names(model._meta.db_table)[0] if is_elsewhere(model) else ""


def stored_table(model: Any) -> str:
    """Return what the database calls a model's table, without its schema."""
    return _cut(_stored_names(model._meta.db_table)[-1])


def stored_column(field: Any) -> str:
    """Return what the database calls a field's column."""
    return _cut(_stored_names(field.column)[-1])


@lru_cache(maxsize=4096)
def _stored_names(name: str) -> tuple[str, ...]:
    """Return what a ``db_table`` or ``db_column`` is called in the database, after the schema's name if it holds one.

    Django puts quotes around it that has none, and leaves those inside as they are.
    """
    found = _quoted_by_django(name)
    # What is no name in Django's quotes either is taken for the name itself.
    return tuple(part.replace('""', '"') for part in found.groups() if part) if found else (name,)


def unfindable_names(model: Any) -> list[str]:
    """Return those names of a model's table and columns that Django's own queries don't find: a single ``%`` is a
    placeholder to them, and a single ``"`` ends the name.
    """
    names = [model._meta.db_table, *(field.column for field in model._meta.concrete_fields)]
    return [name for name in names if _quoted_by_django(name) is None or "%" in name.replace("%%", "")]


def as_sent(statement: str) -> str:
    """Return a statement that takes no parameters as the database gets it."""
    return statement.replace("%%", "%")


def _cut(name: str) -> str:
    """Return what PostgreSQL makes of a name that is too long for it."""
    return name.encode()[:LONGEST_NAME].decode(errors="ignore")


def _quoted_by_django(name: str) -> re.Match[str] | None:
    return _NAMES.fullmatch(name if name.startswith('"') and name.endswith('"') else f'"{name}"')


@lru_cache(maxsize=256)
def _composed(name: str) -> SQLName:
    # Django's own queries are executed with parameters, with ``%`` as it is in the name.
    return quoted(*(part.replace("%%", "%") for part in _stored_names(name)))
