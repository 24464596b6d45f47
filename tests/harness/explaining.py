"""What the database says about statements: their plans, and how much those read."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from psycopg import ClientCursor, adapters
from psycopg.adapt import PyFormat, Transformer

from django_tenant_messaging.tenancy import activated
from django_tenant_messaging.tenancy.thread_connections import RANDOM_PAGE_COST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LABEL = "django_tenant_messaging"
AS_WORKER = f"SET LOCAL random_page_cost = {RANDOM_PAGE_COST}; "
PREPARED = "SET LOCAL plan_cache_mode = force_generic_plan; "
WAYS = {
    "host": "",
    "worker": AS_WORKER,
    "host, prepared": PREPARED,
    "worker, prepared": PREPARED + AS_WORKER,
}
"""How the host's own connections plan, and those of the worker threads; of what is prepared, without its values."""
NOT_EXPLAINED = ("SET ", "SAVEPOINT ", "RELEASE ", "ROLLBACK ", "PREPARE ", "DEALLOCATE ")
"""What PostgreSQL has no plan for. What is prepared is executed next, and explained then."""
PARAMETER = re.compile(r"%(?:\((\w+)\))?s|%%")
REMOVED = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")


@dataclass(frozen=True)
class Explained:
    """A statement and its plan, as it was run."""

    text: str
    way: str
    plan: dict[str, Any]

    @property
    def buffers(self) -> int:
        """How many the statement touched."""
        return buffers_of(self.plan)

    @property
    def rows(self) -> int:
        """How many the part of the plan looked at that looked at most, those it left out included."""
        return max(rows_of(node) for _, node in nodes(self.plan))

    @property
    def read_whole(self) -> set[str]:
        """The large tables of which it read all rows."""
        found = {
            node["Relation Name"] for _, node in nodes(self.plan) if node["Node Type"] == "Seq Scan" and is_run(node)
        }
        return found & set(tables())

    def __str__(self) -> str:
        return "\n".join([f"{self.way}: {' '.join(self.text.split())[:300]}", *self._lines()])

    def _lines(self) -> Iterator[str]:
        for depth, node in nodes(self.plan):
            if is_run(node):
                where = " ".join(node[key] for key in ("Node Type", "Relation Name", "Index Name") if key in node)
                rows = f"{rows_of(node):g} rows, {node['Actual Loops']} times"
                yield f"{'  ' * depth}{where}: {buffers_of(node)} buffers, {rows}"


def nodes(plan: dict[str, Any], depth: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a plan's nodes, each with its depth."""
    yield depth, plan
    for part in plan.get("Plans", ()):
        yield from nodes(part, depth + 1)


def buffers_of(node: dict[str, Any]) -> int:
    """How many buffers a node and those below it touched."""
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


def rows_of(node: dict[str, Any]) -> int:
    """How many rows a node looked at."""
    return int((node["Actual Rows"] + sum(node.get(name, 0) for name in REMOVED)) * node["Actual Loops"])


def is_run(node: dict[str, Any]) -> bool:
    """Say whether a node had anything to do."""
    return bool(node["Actual Loops"])


def tables() -> list[str]:
    """The tables that grow with what a tenant's users do."""
    return [model._meta.db_table for model in [*apps.get_app_config(LABEL).get_models(), get_user_model()]]


@contextmanager
def undone() -> Iterator[None]:
    """Undo what the body writes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def explained(
    schema_name: str, ask: Callable[[], Any], ways: Sequence[str] = tuple(WAYS)
) -> dict[str, list[Explained]]:
    """Do what is asked in a tenant, and explain each statement in the state that it finds, in each of some ways."""
    found: dict[str, list[Explained]] = {way: [] for way in ways}

    def explain(execute: Any, text: str, values: Any, many: bool, context: Any) -> Any:
        if not text.lstrip().startswith(NOT_EXPLAINED):
            for way, of_way in found.items():
                of_way.extend(_explain(text, given, way) for given in (values if many else [values]))
        return execute(text, values, many, context)

    with activated(schema_name), undone(), connection.execute_wrapper(explain):
        ask()
    return found


def _explain(text: str, values: Any, way: str) -> Explained:
    raw: Any = connection.connection
    explain = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)"
    with ClientCursor(raw) as cursor:
        prepare, drop = "", ""
        if way.endswith("prepared") and not text.startswith("EXECUTE "):
            prepare, text_run = _prepared(cursor, text, values)
            drop = "DEALLOCATE explained;"
        else:
            text_run = cursor.mogrify(text, values) if values else text
        cursor.execute(
            f"SAVEPOINT explained; {WAYS[way]} {prepare} {explain} {text_run}\n;"
            f"ROLLBACK TO SAVEPOINT explained; RELEASE SAVEPOINT explained; {drop}".encode()
        )
        while cursor.description is None and cursor.nextset():
            pass
        ((told,),) = cursor.fetchall()
    return Explained(text, way, told[0]["Plan"])


def _prepared(cursor: Any, text: str, values: Any) -> tuple[str, str]:
    """Return what prepares a statement, and what executes it then, as drivers do that leave values to the server."""
    if not values:
        return f"PREPARE explained AS {text}\n;", "EXECUTE explained"
    names: list[Any] = []

    def numbered(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        name = match[1] or len(names)
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = PARAMETER.sub(numbered, text)
    given = [values[name] for name in names]
    kinds = Transformer(cursor)
    kinds.dump_sequence(given, [PyFormat.TEXT] * len(given))
    types = ", ".join(_type_name(oid) for oid in kinds.types or ())
    marks = ", ".join(["%s"] * len(given))
    return f"PREPARE explained ({types}) AS {text}\n;", cursor.mogrify(f"EXECUTE explained ({marks})", given)


def _type_name(oid: int) -> str:
    if not oid:
        return "unknown"
    kind = adapters.types[oid]
    return f"{kind.regtype}[]" if oid == kind.array_oid else kind.regtype
