"""What is to be reached, as ratios of figures from one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Results = Mapping[str, Mapping[str, Any]]

#: Messages/s and deliveries/s of ejabberd 23.01 with its archive, as measured once on two cores; not run here.
EJABBERD_MESSAGES, EJABBERD_DELIVERIES = 1_475, 13_500
PLAIN = "tutorial-daphne-core"
STAYS_RATIO = 1.2
THEIR = {"same": "the same tenant", "another": "another tenant"}
FLAT_PERCENT = 15
FAULTS = ("lost", "duplicated", "reordered", "foreign", "altered", "late")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was wanted and the one that was found."""

    what: str
    wanted: str
    found: str
    is_reached: bool


def targets(results: Results) -> list[Target]:
    """All targets for which there are figures: scenarios by letter, in them contenders by name."""
    found: list[Target] = []
    for judge in (_large_room, _small_rooms, _burst, _idle, _flat, _flood, _everyday, _flawless):
        found += judge({name: _measured(rows) for name, rows in results.items()})
    return found


def _measured(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figures for name, figures in rows.items() if "failed" not in figures}


def _at_least(what: str, figure: float, other: float, times: float) -> Target:
    ratio = figure / other if other else float("inf")
    return Target(what, f"at least {times:g} x", f"{ratio:.2f} x", ratio >= times)


def _at_most(what: str, figure: float, most: float, unit: str) -> Target:
    return Target(what, f"at most {most:g} {unit}", f"{figure:.1f} {unit}", figure <= most)


def _hand_written(rows: Mapping[str, Any], figure: Callable[[Any], float]) -> list[float]:
    return [figure(figures) for name, figures in rows.items() if name.startswith("tutorial")]


def _large_room(results: Results) -> Iterator[Target]:
    rows = results.get("A", {})
    ours = rows.get("ours")
    if ours is None:
        return

    def rate(figures: Any) -> float:
        return float(figures["top"]["deliveries_per_second"])

    if hand_written := _hand_written(rows, rate):
        yield _at_least("A: deliveries/s, to the best hand-written consumer", rate(ours), max(hand_written), 10)
    if PLAIN in rows:
        yield _at_least("A: deliveries/s, to the plain one (daphne, core layer)", rate(ours), rate(rows[PLAIN]), 20)
    yield _at_least("A: deliveries/s, to ejabberd's published figure", rate(ours), EJABBERD_DELIVERIES, 4)
    if "limit" in rows:
        costs = [row["top"]["cpu_us_per_delivery"]["server"] for row in (ours, rows["limit"])]
        yield _at_most("A: server CPU per delivery, to the limit", costs[0] / max(costs[1], 0.1), 2, "x")
    yield _at_most("A: p99 from send to delivery at half of the top rate", ours["half"]["latencies"]["p99"], 50, "ms")


def _small_rooms(results: Results) -> Iterator[Target]:
    rows = results.get("B", {})
    ours = rows.get("ours")
    if ours is None:
        return

    def rate(figures: Any) -> float:
        return float(figures["top"]["messages_per_second"])

    if hand_written := _hand_written(rows, rate):
        yield _at_least("B: messages/s, to the best hand-written consumer", rate(ours), max(hand_written), 10)
    if PLAIN in rows:
        yield _at_least("B: messages/s, to the plain one (daphne, core layer)", rate(ours), rate(rows[PLAIN]), 10)
    yield _at_least("B: messages/s, to ejabberd's published figure", rate(ours), EJABBERD_MESSAGES, 2.5)
    if "commit" in rows:
        yield _at_least("B: messages/s, to the bare server with a commit each", rate(ours), rate(rows["commit"]), 1)


def _burst(results: Results) -> Iterator[Target]:
    rows = results.get("C", {})
    ours = rows.get("ours")
    if ours is None:
        return
    # One that loses deliveries is done early; it's no measure, unless all do.
    whole = [name for name, figures in rows.items() if not figures["burst"]["faults"].get("lost")]
    seconds = _hand_written(
        {name: rows[name] for name in whole} if any(name.startswith("tutorial") for name in whole) else rows,
        lambda figures: float(figures["burst"]["seconds"]),
    )
    if seconds:
        yield _at_least(
            "C: done sooner than the quickest hand-written consumer", min(seconds), ours["burst"]["seconds"], 8
        )
    lost = ours["burst"]["expected"] - ours["burst"]["deliveries"]
    yield _at_most("C: lost deliveries", lost, 0, "deliveries")


def _idle(results: Results) -> Iterator[Target]:
    rows = results.get("D", {})
    ours = rows.get("ours")
    if ours is None:
        return
    yield _at_most("D: private memory of an idle socket", ours["kib_per_socket"], 40, "KiB")
    yield _at_most("D: CPU of the server while nothing happens", 100 * ours["idle_cpu"]["server"], 2, "% of a core")
    if hand_written := _hand_written(rows, lambda figures: float(figures["connects_per_second"])):
        what = "D: connections opened/s, to the best hand-written consumer"
        yield _at_least(what, ours["connects_per_second"], max(hand_written), 3)
    if many := ours.get("many"):
        yield Target("D: sockets held at once", "10000", str(many["sockets"]), many["sockets"] >= 10_000)


def _flat(results: Results) -> Iterator[Target]:
    ours = results.get("E", {}).get("ours")
    if ours is None:
        return
    yield _growth(ours["tenants"], "itself", "tenants, without what goes on anyway")
    yield _growth(ours["tenants"], "all", "tenants, with all that goes on")
    yield _growth(ours["stored"], "all", "stored messages")


def _growth(rows: Mapping[str, Any], cost: str, what: str) -> Target:
    costs = [figures["cpu_us_per_message"][cost] for figures in rows.values()]
    growth = 100 * (max(costs) / costs[0] - 1)
    names = list(rows)
    span = f"E: growth of a message's cost from {names[0]} to {names[-1]} {what}"
    return _at_most(span, growth, FLAT_PERCENT, "%")


def _flood(results: Results) -> Iterator[Target]:
    ours = results.get("F", {}).get("ours")
    if ours is None:
        return
    for whose, before in ours["before"].items():
        ratio = ours["meanwhile"][whose]["latencies"]["p50"] / before["latencies"]["p50"]
        what = f"F: median time to delivery in {THEIR[whose]} during a flood, to that before"
        yield _at_most(what, ratio, STAYS_RATIO, "x")


def _everyday(results: Results) -> Iterator[Target]:
    rows = results.get("G", {})
    ours = rows.get("ours")
    if ours is None:
        return
    for where, words in (("one", "in one tenant"), ("spread", "in as many tenants as rooms")):
        for what, figure in (("median time to delivery", _median), ("all CPU a message", _all_cpu)):
            if hand_written := _hand_written({name: found[where] for name, found in rows.items()}, figure):
                ratio = figure(ours[where]) / min(hand_written)
                yield _at_most(f"G: {what} {words}, to the best hand-written consumer", ratio, 1, "x")


def _median(figures: Any) -> float:
    return float(figures["latencies"]["p50"])


def _all_cpu(figures: Any) -> float:
    return float(sum(figures["cpu_us_per_message"].values()))


def _flawless(results: Results) -> Iterator[Target]:
    wrong = [fault for rows in results.values() for fault in _faults(rows.get("ours"))]
    if any("ours" in rows for rows in results.values()):
        what = "All: deliveries lost, duplicated, out of order, altered or to somebody else; commits missing"
        yield Target(what, "0", str(sum(wrong)), not any(wrong))


def _faults(figures: Any) -> Iterator[int]:
    """Every number, wherever it stands, that counts something that must not happen."""
    if isinstance(figures, dict):
        for name, value in figures.items():
            if name in {*FAULTS, "uncommitted"} and isinstance(value, int):
                yield value
            else:
                yield from _faults(value)
