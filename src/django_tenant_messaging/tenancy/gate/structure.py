"""What the migrations make of this app's own tables, and in what a table differs from that.

``structure.json`` keeps it, as PostgreSQL describes a schema that was migrated: columns, constraints and indexes with
their names, by which only what is made again is called. What is compared is what they do. Made by ``make structure``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..identifiers import as_sent, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..identifiers import SQLName

Description = dict[str, Any]
"""A table as ``catalog.DETAILS`` describes it, or as it should be."""

KEPT = Path(__file__).with_name("structure.json")
USERS, USER_TYPE = "{users}", "{users' key}"
"""What stands in the kept description for the host's table of users, and for the type of its key."""
MOST_JUDGED = 4_096
"""Digests whose judgement a process remembers; all schemas of one history have the same few."""
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}


@cache
def kept_tables() -> Mapping[str, Description]:
    """Return what the migrations make, by table."""
    tables: dict[str, Description] = json.loads(KEPT.read_text())["tables"]
    return tables


def kept_migrations() -> tuple[str, ...]:
    """Return the names of the migrations that make it."""
    return tuple(json.loads(KEPT.read_text())["migrations"])


@dataclass(frozen=True, slots=True)
class Users:
    """Where the user keys refer to. ``schema`` is empty for the tenant's own, ``key_type`` as Django calls it."""

    schema: str
    table: str
    key: str
    key_type: str


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that isn't as the migrations make it.

    ``part`` is ``relation`` (a table or a column isn't there), ``table``, ``column``, ``index``, ``key``, ``check`` or
    ``besides`` (something is there that changes what the table does), and ``name`` what the migrations call it.
    ``undo`` is the statement that takes away what is there besides, with ``{table}`` for the table.
    """

    table: str
    part: str
    name: str
    text: str
    undo: str = ""


@dataclass(slots=True)
class Structure:
    """What this app's tables have to be in the schemas of one kind."""

    users: Users
    tables: Mapping[str, Description] = field(default_factory=kept_tables)
    judged: dict[int, tuple[Flaw, ...]] = field(default_factory=dict)
    """What was found of tables, by their digests."""

    def remembered(self, digests: Iterable[int]) -> dict[int, tuple[Flaw, ...]]:
        """Return what was found of tables, by those of these digests that this process remembers."""
        # Asked for once: another thread may forget them between a look whether they are there and their reading.
        found = ((digest, self.judged.get(digest)) for digest in digests)
        return {digest: flaws for digest, flaws in found if flaws is not None}

    def learn(self, described: Iterable[Description], user_type: str) -> dict[int, tuple[Flaw, ...]]:
        """Judge tables, and remember it for all that have the same digest. Returns what was found, by the digests."""
        found = {int(table["digest"]): tuple(self.flaws(table, user_type)) for table in described}
        if len(self.judged) > MOST_JUDGED:
            self.judged.clear()
        self.judged.update(found)
        return found

    def flaws(self, found: Description, user_type: str) -> Iterator[Flaw]:
        """Yield in what a table differs. More than is expected is no difference, unless it changes what the table does:
        a newer release may have made it.
        """
        name = found["table"]
        expected = self.expected(name, user_type)
        if found["kind"] != "r":
            kind = KINDS.get(found["kind"], f"a relation of kind {found['kind']!r}")
            yield Flaw(name, "table", name, f"{name}: {kind} instead of a table")
            return
        if found["persistence"] != "p":
            yield Flaw(name, "table", name, f"{name}: unlogged, so that a crash empties it")
        for text, undo in _besides(expected["columns"], found):
            yield Flaw(name, "besides", name, f"{name}{text}", undo)
        yield from _column_flaws(name, expected["columns"], found["columns"])
        for wanted in expected["indexes"]:
            problem = _index_problem(wanted, found["indexes"])
            if problem:
                yield Flaw(
                    name, "index", wanted["name"], f"{name}: {wanted['kind'].lower()} {wanted['name']} {problem}"
                )
        for wanted in expected["keys"]:
            problem = _key_problem(wanted, found["keys"])
            if problem:
                text = f"{name}: foreign key ({', '.join(wanted['columns'])}) {problem}"
                yield Flaw(name, "key", wanted["name"], text)
        for wanted in expected["checks"]:
            problem = _check_problem(wanted, found["checks"])
            if problem:
                yield Flaw(name, "check", wanted["name"], f"{name}: check constraint {wanted['name']} {problem}")

    def expected(self, table: str, user_type: str) -> Description:
        """Return what a table has to be, for this host's users."""
        kept = self.tables[table]
        columns = {
            name: {**column, "type": user_type} if column["type"] == USER_TYPE else column
            for name, column in kept["columns"].items()
        }
        users = {"schema": self.users.schema, "table": self.users.table, "target": [self.users.key]}
        keys = [{**key, **users} if key["table"] == USERS else key for key in kept["keys"]]
        return {**kept, "columns": columns, "keys": keys}


def _besides(expected: Description, found: Description) -> Iterator[tuple[str, str]]:
    """Yield what shows, hides, redirects or refuses rows, each with the statement that undoes it."""
    for parent in found["parents"] or ():
        yield f": inherits from {parent}, which shows its rows", f"ALTER TABLE {{table}} NO INHERIT {parent}"
    # PostgreSQL itself composed their names.
    yield from map(_shown, found["children"] or ())
    for rule in found["rules"] or ():
        yield f": rule {rule} rewrites its statements", f"DROP RULE {rule} ON {{table}}"
    if found["is_secured"]:
        yield ": row security is enabled, which hides rows", "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    if found["is_forced"]:
        yield ": row security is forced on its owner", "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"
    for name, column in found["columns"].items():
        is_given = column["default"] is not None or column["identity"] or column["generated"] or found["is_filled"]
        if name not in expected and column["not_null"] and not is_given:
            text = f".{name}: must not be null and has no default, so that no row can be added"
            yield text, f"ALTER TABLE {{table}} ALTER COLUMN {as_sent(quoted(name))} DROP NOT NULL"


def _shown(child: SQLName) -> tuple[str, str]:
    return f": shows the rows of {child}, which inherits from it", f"ALTER TABLE {child} NO INHERIT {{table}}"


def _column_flaws(table: str, expected: Description, found: Description) -> Iterator[Flaw]:
    for name, wanted in expected.items():
        if name not in found:
            yield Flaw(table, "relation", f"{table}.{name}", f"{table}.{name}")
            continue
        problems = list(_column_problems(wanted, found[name]))
        if problems:
            yield Flaw(table, "column", name, f"{table}.{name}: {', '.join(problems)}")


def _column_problems(wanted: Description, found: Description) -> Iterator[str]:
    if not holds(wanted["type"], found["type"]):
        yield f"type {found['type']} instead of {wanted['type']}"
    if wanted["not_null"] and not found["not_null"]:
        yield "may be null"
    if found["not_null"] and not wanted["not_null"]:
        yield "must not be null"
    if wanted["identity"] != found["identity"]:
        yield "not an identity column as it should be" if wanted["identity"] else "an identity column"
    if wanted["generated"] != found["generated"]:
        yield "not generated as it should be" if wanted["generated"] else "generated"
    if wanted["default"] is not None and wanted["default"] != found["default"]:
        yield f"default {found['default']} instead of {wanted['default']}"
    if wanted["is_exact"] and not found["is_exact"]:
        yield "a collation that takes different texts for equal"


def holds(wanted: str, found: str) -> bool:
    """Say whether a column of one type does for another: itself, or a longer text."""
    if found == wanted:
        return True
    limit = _varchar_limit(wanted)
    if limit is None:
        return False
    return found in {"text", "character varying"} or (_varchar_limit(found) or 0) >= limit


def _varchar_limit(name: str) -> int | None:
    head, _, rest = name.partition("(")
    return int(rest[:-1]) if head == "character varying" and rest else None


def alike(wanted: Description, found: Iterable[Description]) -> list[Description]:
    """Return the indexes or checks that do the same as one, whatever they are called and whether they are valid."""
    return [one for one in found if all(one.get(part) == wanted.get(part) for part in ("kind", "definition"))]


def deferrable(wanted: Description, found: Iterable[Description]) -> list[Description]:
    """Return the unique constraints that do the same as one, but at the end of the transaction.

    They are no arbiters of ``ON CONFLICT``, which fails where there is one.
    """
    return alike({**wanted, "kind": f"{wanted['kind']} DEFERRABLE"}, found)


def _index_problem(wanted: Description, found: list[Description]) -> str:
    same = alike(wanted, found)
    if deferrable(wanted, found):
        return "deferrable: it doesn't refuse at once"
    if not same:
        return "missing"
    return "" if any(one["is_valid"] for one in same) else "invalid: it wasn't built to the end"


def _key_problem(wanted: Description, found: Iterable[Description]) -> str:
    there = on_same_columns(wanted, found)
    if not there:
        return "missing"
    for one in there:
        if any(one[part] != wanted[part] for part in ("schema", "table", "target")):
            return f"refers to {_target(one)} instead of {_target(wanted)}"
        if one["rule"] != wanted["rule"]:
            return f"{one['rule'] or 'without a rule'} instead of {wanted['rule']}"
        if not one["is_enabled"]:
            return "disabled by its triggers"
        if not one["is_valid"]:
            return "not valid: rows may break it"
    return ""


def on_same_columns(wanted: Description, found: Iterable[Description]) -> list[Description]:
    """Return the foreign keys of the same columns: each of them has its effect."""
    return [one for one in found if one["columns"] == wanted["columns"]]


def _target(key: Description) -> str:
    return ".".join(part for part in (key["schema"], key["table"], *key["target"]) if part)


def _check_problem(wanted: Description, found: Iterable[Description]) -> str:
    same = alike(wanted, found)
    if not same:
        return "missing"
    return "" if any(one["is_valid"] for one in same) else "not valid: rows may break it"


def tables_to_keep(described: Iterable[Description]) -> dict[str, Description]:
    """Return descriptions of a migrated schema without what belongs to that schema and to its host."""
    tables = {table["table"]: table for table in described}
    return {name: _to_keep(table, set(tables)) for name, table in sorted(tables.items())}


def _to_keep(table: Description, ours: set[str]) -> Description:
    user_columns = {
        column for key in table["keys"] for column in key["columns"] if key["schema"] or key["table"] not in ours
    }
    columns = {
        name: {**column, "type": USER_TYPE, "is_exact": False} if name in user_columns else column
        for name, column in sorted(table["columns"].items())
    }
    keys = [
        {**_without_state(key), "schema": "", "table": USERS, "target": []}
        if user_columns.issuperset(key["columns"])
        else _without_state(key)
        for key in table["keys"]
    ]
    lists = {part: [_without_state(one) for one in table[part]] for part in ("indexes", "checks")}
    return {"columns": columns, **lists, "keys": keys}


def _without_state(one: Description) -> Description:
    return {name: value for name, value in one.items() if name not in {"is_valid", "is_enabled"}}
