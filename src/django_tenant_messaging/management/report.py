"""How the state of schemas is shown: as a table with totals, or as JSON."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..types import Readiness, SchemaState, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ..tenancy.gate.repair import Repair

FEW = 20
"""Up to this many schemas, those that are ready are listed too."""
HEADINGS = ("SCHEMA", "STATE", "DETAILS")


def table(found: Collection[Readiness], *, with_ready: bool) -> Iterator[str]:
    """Yield the lines of an aligned table of schemas: with those that are plainly ready, and all that the others lack,
    only if wanted; where schemas are few, those that are ready are always there.
    """
    is_few = len(found) <= FEW
    shown = [one for one in found if with_ready or is_few or one.state != SchemaState.OK or one.tolerated]
    rows = [
        HEADINGS,
        *((one.schema_name, one.state.value, one.full_reason if with_ready else one.reason) for one in shown),
    ]
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in (0, 1)]
    for name, state, details in cells if shown else ():
        yield f"{name:<{widths[0]}}  {state:<{widths[1]}}  {details}"


def totals(found: Collection[Readiness]) -> str:
    """Say how many schemas there are of each state."""
    counts = Counter(readiness.state for readiness in found)
    parts = [f"{counts[state]} {state.value}" for state in SchemaState if counts[state]]
    what = "schema" if len(found) == 1 else "schemas"
    return f"{len(found)} {what}: {', '.join(parts)}" if parts else f"0 {what}"


def changes(repair: Repair) -> Iterator[str]:
    """Yield what became of a schema that wasn't ready, a line for each change."""
    parts = [*repair.done]
    if repair.failure:
        parts.append(f"FAILED: {repair.failure}")
    # Where nothing was done, somebody else was quicker.
    for part in parts or ["ready by now"]:
        yield printable(f"{repair.readiness.schema_name}: {part}")


def remedy(found: Collection[Readiness], *, is_all: bool) -> str:
    """Return the command for an administrator, empty when all are ready."""
    unready = [readiness for readiness in found if not readiness.is_ready]
    if len(unready) == 1:
        return printable(unready[0].remedy)
    names = "" if is_all else "".join(f" --schema={shlex.quote(readiness.schema_name)}" for readiness in unready)
    return printable(f"python manage.py verify_tenant_migrations --fix{names}") if unready else ""


def document(found: Collection[Readiness], repairs: Mapping[str, Repair], left: Sequence[str]) -> str:
    """Return all of it as JSON. ``left`` are the schemas that weren't come to."""
    counts = Counter(readiness.state for readiness in found)
    return json.dumps(
        {
            "ready": not left and all(readiness.is_ready for readiness in found),
            "totals": {"schemas": len(found), **{state.value: counts[state] for state in SchemaState}},
            "schemas": [_entry(readiness, repairs.get(readiness.schema_name)) for readiness in found],
            "left": list(left),
        },
        indent=2,
    )


def _entry(readiness: Readiness, repair: Repair | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "schema": readiness.schema_name,
        "state": readiness.state.value,
        "ready": readiness.is_ready,
        "shared": readiness.is_shared,
        "reason": readiness.reason,
        "missing_migrations": list(readiness.missing_migrations),
        "unknown_migrations": list(readiness.unknown_migrations),
        "missing_relations": list(readiness.missing_relations),
        "differences": list(readiness.differences),
        "tolerated": list(readiness.tolerated),
        "apps": list(readiness.apps),
        "remedy": readiness.remedy,
    }
    return entry if repair is None else entry | {"done": list(repair.done), "failure": repair.failure}
