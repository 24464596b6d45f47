"""Building an index, and the constraint that relies on it, while its table is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..identifiers import quoted
from .breaches import breach_of_unique
from .structure import alike, deferrable
from .work import patient

if TYPE_CHECKING:
    from .structure import Description
    from .work import Work

CONSTRAINTS = {"PRIMARY KEY": "PRIMARY KEY", "UNIQUE CONSTRAINT": "UNIQUE"}
"""Kinds of indexes that belong to a constraint, and what that is called in SQL."""


def build_index(work: Work, wanted: Description, found: Description) -> None:
    """Build an index of a table that lacks it, or whose building was broken off."""
    if wanted["kind"] != "INDEX":
        work.require_none(breach_of_unique(work.schema, work.flaw.table, wanted))
    if wanted["kind"] in CONSTRAINTS:
        _constrain(work, wanted, found)
    else:
        for invalid in alike(wanted, found["indexes"]):
            _drop(work, invalid["name"])
        make_room(work, wanted["name"])
        _build(work, wanted, wanted["name"])
    work.tell(f"{wanted['kind'].lower()} {wanted['name']} was built again")


def _constrain(work: Work, wanted: Description, found: Description) -> None:
    there = alike(wanted, found["indexes"])
    if there:
        # Being invalid it can't be dropped without its constraint, but be built anew.
        work.concurrently(f"REINDEX INDEX CONCURRENTLY {quoted(work.schema, there[0]['name'])}")
        return
    bare = alike({**wanted, "kind": "UNIQUE INDEX"}, found["indexes"])
    for invalid in (one for one in bare if not one["is_valid"]):
        _drop(work, invalid["name"])
    name = next((one["name"] for one in bare if one["is_valid"]), "")
    if not name:
        name = f"{wanted['name'][:55]}_new"
        make_room(work, name)
        _build(work, wanted, name)
    replaced = [one["name"] for one in deferrable(wanted, found["indexes"])]
    if wanted["name"] not in (*replaced, name):
        make_room(work, wanted["name"])
    drops = "".join(f"DROP CONSTRAINT {quoted(other)}, " for other in replaced)
    constraint = CONSTRAINTS[wanted["kind"]]
    work.alter(f"{drops}ADD CONSTRAINT {quoted(wanted['name'])} {constraint} USING INDEX {quoted(name)}")


def _build(work: Work, wanted: Description, name: str) -> None:
    unique = "" if wanted["kind"] == "INDEX" else "UNIQUE "
    work.concurrently(
        f"CREATE {unique}INDEX CONCURRENTLY {quoted(name)} ON {quoted(work.schema, work.flaw.table)}"
        f" USING {wanted['definition'].replace('%', '%%')}"
    )


def _drop(work: Work, name: str) -> None:
    work.concurrently(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted(work.schema, name)}")
    work.tell(f"index {name}, which wasn't valid, was dropped")


def make_room(work: Work, name: str) -> None:
    """Rename an index that has the name of another one, or drop it if its building was broken off."""
    with patient() as cursor:
        cursor.execute(
            "SELECT x.relkind, i.indisvalid FROM pg_class x"
            " JOIN pg_namespace n ON n.oid = x.relnamespace AND n.nspname = %s"
            " LEFT JOIN pg_index i ON i.indexrelid = x.oid WHERE x.relname = %s",
            [work.schema, name],
        )
        kind, is_valid = cursor.fetchone() or (None, None)
    if kind is None:
        return
    if kind != "i":
        work.refuse(f"schema {work.schema} has something else that is called {name}; rename it")
    if not is_valid:
        _drop(work, name)
        return
    spare = f"{name[:55]}_was"
    with patient() as cursor:
        cursor.execute(f"ALTER INDEX {quoted(work.schema, name)} RENAME TO {quoted(spare)}", [])
    work.tell(f"index {name}, which is another one, was renamed to {spare}")
