"""Judges a run by its history and the rows it left. Pure; it knows the promises and nothing of how they are kept."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from tests.chaos.checker.findings import Findings
from tests.chaos.checker.passing import Habits, check_passing
from tests.chaos.checker.receivers import check_receivers
from tests.chaos.checker.timeline import Timeline, Told
from tests.chaos.checker.times import Times, check_times
from tests.chaos.checker.writes import check_writes
from tests.chaos.history import Got

if TYPE_CHECKING:
    from tests.chaos.checker.truth import Truth
    from tests.chaos.history import History

__all__ = ["Findings", "Habits", "Judgement", "check"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and how long deliveries took."""

    findings: Findings
    times: Times


def check(
    history: History,
    truth: Truth,
    *,
    latest: float = inf,
    soon: float = inf,
    habits: dict[str, Habits] | None = None,
) -> Judgement:
    """Find every broken promise of a run.

    `latest` is how many seconds after its commit an entry must have reached whoever was connected, `soon` how many
    after a fault's end what waited for it.
    """
    findings = Findings()
    told = _renamings(history)
    timelines = {place: Timeline(place, room, history, told, findings) for place, room in truth.items()}
    check_writes(history, truth, timelines, findings)
    check_receivers(history, timelines, findings)
    check_passing(history, timelines, habits or {}, findings)
    return Judgement(findings, check_times(history, timelines, findings, latest=latest, soon=soon))


def _renamings(history: History) -> Told:
    told: Told = defaultdict(set)
    for receiver in history.receivers:
        for event in receiver.events:
            if isinstance(event, Got) and event.entry.name is not None:
                told[receiver.tenant, event.entry.room].add((event.entry.seq, event.entry.name))
    return told
