"""Mending what differs in this app's tables, beside live traffic and without losing a row.

Each step is committed by itself and looks at what is there, so that a repair that was ended anywhere goes on where it
was. Indexes are built ``CONCURRENTLY`` and constraints added ``NOT VALID`` before their rows are looked at, so nobody
waits for more than a moment; what would rewrite a large table is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from django.db import DatabaseError

from ..identifiers import as_sent, quoted
from .breaches import breach_of_check, breach_of_key, breach_of_nulls
from .describing import describe_tables
from .drift import RepairRefusedError
from .failures import first_line, is_away
from .indexing import build_index
from .requirements import requirements_of
from .structure import alike, holds, on_same_columns
from .work import Work, as_literal, patient

if TYPE_CHECKING:
    from ...types import Readiness
    from .structure import Description, Flaw, Structure

ORDER = ("besides", "table", "column", "index", "check", "key")
"""Keys refer to unique columns of other tables, and indexes are of columns."""
WIDER = {("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint")}
"""Types whose every value the other one holds, though the table has to be written anew."""
IDENTITY = {"d": "BY DEFAULT", "a": "ALWAYS"}


def mend(readiness: Readiness, kind: str, done: list[str]) -> None:
    """Mend what differs in a schema, and tell in ``done`` what was done, in words.

    Raises :class:`RepairRefusedError` for what would lose something, and where rows break a constraint: it tells how
    many, and the first of them by their keys. All else is done nevertheless.
    """
    structure = requirements_of(kind).structure
    if structure is None:
        return
    mender = _Mender(readiness.schema_name, structure, done)
    refusals = []
    for flaw in mender.flaws():
        try:
            mender.mend(flaw)
        except RepairRefusedError as error:
            refusals.append(str(error))
        except DatabaseError as error:
            if is_away(error):
                raise
            refusals.append(f"{flaw.text}: {first_line(error)}")
    if refusals:
        raise RepairRefusedError("; ".join(refusals))


@dataclass(frozen=True, slots=True)
class _Mender:
    schema: str
    structure: Structure
    done: list[str]

    def flaws(self) -> list[Flaw]:
        """Return what differs, in the order in which it can be mended."""
        described, user_type = self._described()
        found = [
            flaw
            for table in _in_order(self.structure)
            if table in described
            for flaw in self.structure.flaws(described[table], user_type)
            if flaw.part in ORDER
        ]
        return sorted(found, key=lambda flaw: ORDER.index(flaw.part))

    def mend(self, flaw: Flaw) -> None:
        """Mend one thing, as the table is by now."""
        described, user_type = self._described()
        if flaw.table not in described:
            # Dropped meanwhile, which the next look tells.
            return
        found, wanted = described[flaw.table], self.structure.expected(flaw.table, user_type)
        if flaw not in self.structure.flaws(found, user_type):
            return
        work = Work(self.schema, flaw, self.done)
        match flaw.part:
            case "besides":
                table = as_sent(quoted(self.schema, flaw.table))
                work.refuse(f"if nobody needs it, run: {flaw.undo.replace('{table}', table)}")
            case "table":
                _log_table(work, found)
            case "column":
                _mend_column(work, wanted["columns"][flaw.name], found["columns"][flaw.name])
            case "index":
                build_index(work, _named(wanted["indexes"], flaw.name), found)
            case "check":
                _add_check(work, _named(wanted["checks"], flaw.name), found)
            case "key":
                _add_key(work, _named(wanted["keys"], flaw.name), found)

    def _described(self) -> tuple[dict[str, Description], str]:
        return describe_tables(self.schema, sorted(self.structure.tables), self.structure.users.key_type)


def _in_order(structure: Structure) -> list[str]:
    """Return the tables, each after those that it refers to."""
    tables = structure.tables
    referred = {
        name: [key["table"] for key in table["keys"] if key["table"] in tables and key["table"] != name]
        for name, table in tables.items()
    }
    return list(TopologicalSorter(referred).static_order())


def _named(those: list[Description], name: str) -> Description:
    return next(one for one in those if one["name"] == name)


def _log_table(work: Work, found: Description) -> None:
    if found["kind"] != "r":
        work.refuse(f"restore schema {work.schema} from a backup")
    work.rewrite("SET LOGGED")
    work.tell(f"{work.flaw.table} is logged again")


# Columns


def _mend_column(work: Work, wanted: Description, found: Description) -> None:
    name, column = f"{work.flaw.table}.{work.flaw.name}", quoted(work.flaw.name)
    if found["generated"] != wanted["generated"] or (wanted["is_exact"] and not found["is_exact"]):
        work.refuse("change it by hand, while nothing is served")
    if not holds(wanted["type"], found["type"]):
        _widen(work, wanted["type"], found["type"])
    if found["not_null"] and not wanted["not_null"]:
        work.alter(f"ALTER COLUMN {column} DROP NOT NULL")
        work.tell(f"{name} may be null again")
    if wanted["not_null"] and not found["not_null"]:
        _forbid_nulls(work)
        work.tell(f"{name} can't be null again")
    if found["identity"] != wanted["identity"]:
        _identify(work, wanted, found)
    if wanted["default"] is not None and wanted["default"] != found["default"]:
        work.alter(f"ALTER COLUMN {column} SET DEFAULT {wanted['default'].replace('%', '%%')}")
        work.tell(f"{name} has its default again")


def _widen(work: Work, wanted: str, found: str) -> None:
    change = f"ALTER COLUMN {quoted(work.flaw.name)} TYPE {wanted}"
    if found.startswith("character varying(") and (wanted == "text" or wanted.startswith("character varying")):
        # Every value fits, and none is written anew; what it was before may have been cut off then, by others.
        work.alter(change)
    elif (found, wanted) in WIDER:
        work.rewrite(change)
    else:
        work.refuse("to change it could lose or falsify values; change it by hand")
    work.tell(f"{work.flaw.table}.{work.flaw.name} is of type {wanted} again")


def _forbid_nulls(work: Work) -> None:
    column, name = quoted(work.flaw.name), quoted(f"messaging_{work.flaw.name}_not_null")
    work.require_none(breach_of_nulls(work.schema, work.flaw.table, work.flaw.name))
    # Looked at without a lock that writers wait for; with it as its proof, SET NOT NULL needs no look.
    work.alter(f"DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID")
    work.alter(f"VALIDATE CONSTRAINT {name}")
    for unproven in _unproven(work):
        work.alter(f"VALIDATE CONSTRAINT {quoted(unproven)}")
    work.alter(f"ALTER COLUMN {column} SET NOT NULL, DROP CONSTRAINT {name}")


def _unproven(work: Work) -> list[str]:
    """Return the constraint, as PostgreSQL 18 has it, that forbids null in new rows only."""
    table = as_literal(quoted(work.schema, work.flaw.table))
    with patient() as cursor:
        cursor.execute(
            "SELECT k.conname FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid"
            f" AND k.conkey = ARRAY[a.attnum] WHERE k.conrelid = '{table}'::regclass AND k.contype = 'n'"
            " AND NOT k.convalidated AND a.attname = %s",
            [work.flaw.name],
        )
        return [name for (name,) in cursor.fetchall()]


def _identify(work: Work, wanted: Description, found: Description) -> None:
    column, table = quoted(work.flaw.name), quoted(work.schema, work.flaw.table)
    name = f"{work.flaw.table}.{work.flaw.name}"
    if not wanted["identity"]:
        work.alter(f"ALTER COLUMN {column} DROP IDENTITY")
        work.tell(f"{name} is no identity column any longer")
        return
    if found["identity"]:
        work.alter(f"ALTER COLUMN {column} SET GENERATED {IDENTITY[wanted['identity']]}")
        work.tell(f"{name} is generated {IDENTITY[wanted['identity']].lower()} again")
        return
    with patient() as cursor:
        cursor.execute(
            f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT,"
            f" ALTER COLUMN {column} ADD GENERATED {IDENTITY[wanted['identity']]} AS IDENTITY",
            [],
        )
        cursor.execute(
            f"SELECT setval(pg_get_serial_sequence('{as_literal(table)}', %s), max({column})) FROM {table}",
            [work.flaw.name],
        )
    work.tell(f"{name} is an identity column again, which goes on after the highest")


# Constraints


def _add_check(work: Work, wanted: Description, found: Description) -> None:
    work.require_none(breach_of_check(work.schema, work.flaw.table, wanted["definition"]))
    name = wanted["name"]
    same = alike(wanted, found["checks"])
    if same:
        name = same[0]["name"]
    else:
        # One of this name that says another thing isn't what the migrations made.
        work.alter(
            f"DROP CONSTRAINT IF EXISTS {quoted(name)},"
            f" ADD CONSTRAINT {quoted(name)} {wanted['definition'].replace('%', '%%')} NOT VALID"
        )
    work.alter(f"VALIDATE CONSTRAINT {quoted(name)}")
    work.tell(f"check constraint {name} {'was validated' if same else 'was added again'}")


def _add_key(work: Work, wanted: Description, found: Description) -> None:
    work.require_none(breach_of_key(work.schema, work.flaw.table, wanted))
    there = on_same_columns(wanted, found["keys"])
    parts = ("schema", "table", "target", "rule")
    if len(there) == 1 and there[0]["is_enabled"] and all(there[0][part] == wanted[part] for part in parts):
        work.alter(f"VALIDATE CONSTRAINT {quoted(there[0]['name'])}")
        work.tell(f"foreign key {there[0]['name']} was validated")
        return
    # What stood beside it, or did something else, goes. Only a superuser may enable a key's triggers, and they would
    # say nothing of the rows that came meanwhile: it is made anew.
    drops = "".join(f"DROP CONSTRAINT {quoted(one['name'])}, " for one in there)
    target = quoted(wanted["schema"] or work.schema, wanted["table"])
    work.alter(
        f"{drops}ADD CONSTRAINT {quoted(wanted['name'])} FOREIGN KEY ({_listed(wanted['columns'])})"
        f" REFERENCES {target} ({_listed(wanted['target'])}) {wanted['rule']} NOT VALID"
    )
    work.alter(f"VALIDATE CONSTRAINT {quoted(wanted['name'])}")
    work.tell(f"foreign key {wanted['name']} was {'made anew' if there else 'added again'}")


def _listed(columns: list[str]) -> str:
    return ", ".join(quoted(column) for column in columns)
