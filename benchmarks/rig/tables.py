"""The results as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchmarks.rig.targets import Target

Cells = tuple[str, ...]

BUSY_GENERATOR = 0.9
DISTURBED = 0.2


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their contents: figures to the right, the first column and remarks to the left."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 or title in REMARKS else cell.rjust(width)
            for column, (title, cell, width) in enumerate(zip(head, line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def scenario_tables(name: str, rows: Mapping[str, Any]) -> str:
    """The tables of a scenario: contenders by name with their figures."""
    found = {contender: figures for contender, figures in rows.items() if "failed" not in figures}
    texts = [make(found) for make in TABLES[name]] if found else []
    texts += [f"{contender}: {figures['failed']}" for contender, figures in rows.items() if "failed" in figures]
    return "\n\n".join(texts)


def _large_room(rows: Mapping[str, Any]) -> str:
    head = (
        "",
        "deliveries/s",
        "CPU us/delivery: server",
        "PostgreSQL",
        "Redis",
        "at half: p50 ms",
        "p95",
        "p99",
        "max",
    )
    return table((*head, *REMARKS), [_large_room_row(name, figures) for name, figures in rows.items()])


def _large_room_row(name: str, figures: Any) -> Cells:
    top, half = figures["top"], figures["half"]
    latencies = [f"{half['latencies'].get(which, 0):.1f}" for which in ("p50", "p95", "p99", "max")]
    return (
        name,
        f"{top['deliveries_per_second']:,.0f}",
        *_cpu(top["cpu_us_per_delivery"]),
        *latencies,
        *_remarks(top, half),
    )


def _small_rooms(rows: Mapping[str, Any]) -> str:
    head = ("", "messages/s", "CPU us/message: server", "PostgreSQL", "Redis", "p50 ms", "p99")
    return table(
        (*head, *REMARKS),
        [
            (
                name,
                f"{figures['top']['messages_per_second']:,.0f}",
                *_cpu(figures["top"]["cpu_us_per_message"]),
                *(f"{figures['top']['latencies'].get(which, 0):.0f}" for which in ("p50", "p99")),
                *_remarks(figures["top"]),
            )
            for name, figures in rows.items()
        ],
    )


def _burst(rows: Mapping[str, Any]) -> str:
    return table(
        ("", "messages", "seconds", "deliveries", *REMARKS),
        [
            (
                name,
                f"{figures['messages']:,}",
                f"{figures['burst']['seconds']:.2f}",
                f"{figures['burst']['deliveries']:,} of {figures['burst']['expected']:,}",
                *_remarks(figures["burst"]),
            )
            for name, figures in rows.items()
        ],
    )


def _idle(rows: Mapping[str, Any]) -> str:
    head = ("", "sockets", "KiB/socket", "connects/s", "CPU % idle: server", "PostgreSQL", "Redis")
    lines = [
        (name if place == 0 else "", *_idle_row(held))
        for name, figures in rows.items()
        for place, held in enumerate([figures, *([figures["many"]] if "many" in figures else [])])
    ]
    return table(head, lines)


def _idle_row(held: Any) -> Cells:
    idle = [f"{100 * held['idle_cpu'][group]:.1f}" for group in GROUPS]
    return (f"{held['sockets']:,}", f"{held['kib_per_socket']:.1f}", f"{held['connects_per_second']:,.0f}", *idle)


def _tenants(rows: Mapping[str, Any]) -> str:
    return _costs("tenants in use", rows, "tenants")


def _stored(rows: Mapping[str, Any]) -> str:
    return _costs("messages stored", rows, "stored")


def _costs(what: str, rows: Mapping[str, Any], part: str) -> str:
    head = (what, "CPU us/message: all", "server", "PostgreSQL", "Redis", "itself", "p99 ms", "CPU % idle: all")
    lines = []
    for name, figures in rows.items():
        for number, cost in figures[part].items():
            each = cost["cpu_us_per_message"]
            idle = f"{100 * sum(cost['idle_cpu'].values()):.1f}" if "idle_cpu" in cost else ""
            itself = f"{each['itself']:,.0f}" if "itself" in each else ""
            latency = f"{cost['latencies']['p99']:.1f}"
            lines.append((f"{name} {int(number):,}", f"{each['all']:,.0f}", *_cpu(each), itself, latency, idle))
    return table(head, lines)


def _flood(rows: Mapping[str, Any]) -> str:
    head = ("for members of", "p50 ms", "p95", "p99", "max", "CPU % server")
    lines = [
        (
            f"{name} {whose} tenant, {when}",
            *(f"{figures[when][whose]['latencies'].get(which, 0):.1f}" for which in ("p50", "p95", "p99", "max")),
            f"{100 * figures[when][whose]['server_load']:.0f}",
            *_remarks(figures[when][whose]),
        )
        for name, figures in rows.items()
        for when in ("before", "meanwhile")
        for whose in figures[when]
    ]
    counts = [
        f"{name}: of what the one sent, "
        + ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in figures["flood"].items())
        for name, figures in rows.items()
    ]
    return "\n".join([table((*head, *REMARKS), lines), *counts])


def _everyday(rows: Mapping[str, Any]) -> str:
    head = ("", "in", "p50 ms", "p95", "p99", "CPU us/message: all", "server", "PostgreSQL", "Redis")
    lines = [
        (
            name if where == "one" else "",
            {"one": "one tenant", "spread": "as many as rooms"}[where],
            *(f"{figures[where]['latencies'].get(which, 0):.1f}" for which in ("p50", "p95", "p99")),
            f"{sum(figures[where]['cpu_us_per_message'].values()):,.0f}",
            *(f"{figures[where]['cpu_us_per_message'][group]:,.0f}" for group in GROUPS),
            *_remarks(figures[where]),
        )
        for name, figures in rows.items()
        for where in ("one", "spread")
    ]
    return table((*head, *REMARKS), lines)


GROUPS = ("server", "postgresql", "redis")
REMARKS = ("remarks",)
TABLES: dict[str, tuple[Callable[[Mapping[str, Any]], str], ...]] = {
    "A": (_large_room,),
    "B": (_small_rooms,),
    "C": (_burst,),
    "D": (_idle,),
    "E": (_tenants, _stored),
    "F": (_flood,),
    "G": (_everyday,),
}


def _cpu(costs: Mapping[str, float]) -> Cells:
    return tuple(f"{costs[group]:,.1f}" for group in GROUPS)


def _remarks(*loads: Any) -> Cells:
    """What must be known to read a row: faults, and who disturbed."""
    remarks: list[str] = []
    for load in loads:
        counts = {**load["faults"], **load["refused"], "uncommitted": load["uncommitted"]}
        remarks += [f"{count:,} {what}" for what, count in counts.items() if count]
        if load["generator_load"] > BUSY_GENERATOR:
            remarks.append("the generator is at its limit")
        if load["others_load"] > DISTURBED:
            remarks.append(f"others took {load['others_load']:.1f} cores")
    return ("; ".join(dict.fromkeys(remarks)),)


def target_table(found: Iterable[Target]) -> str:
    """The targets, each with whether it is reached."""
    rows = [
        (target.what, target.wanted, target.found, "reached" if target.is_reached else "NOT REACHED")
        for target in found
    ]
    return table(("target", "wanted", "found", ""), rows)
