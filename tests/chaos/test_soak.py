from __future__ import annotations

import pytest

from tests.chaos.checker import Findings
from tests.chaos.resources import MEGABYTE
from tests.chaos.soak import HELD, HOUR, Sample, Soak, check_growth, percent_per_hour

MINUTES = 30


def growing(percent_per_hour: float) -> list[Sample]:
    """Half an hour of samples, steep in the first minutes."""
    rate = percent_per_hour / 100 / HOUR
    return [(at, int(100 * MEGABYTE * (1 + rate * at)) - max(0, 300 - at) * 10_000) for at in range(0, MINUTES * 60, 5)]


@pytest.mark.parametrize("percent", [0.0, 0.5, 3.0])
def test_the_slope_is_that_after_the_warm_up(percent: float) -> None:
    assert percent_per_hour(growing(percent)) == pytest.approx(percent, abs=0.05)


def workers(**percent: list[float]) -> Soak:
    """Two workers that grow by so many percent, of what is named; nothing else does."""
    samples: dict[tuple[int, str], list[Sample]] = {}
    for what in (*HELD, "memory"):
        for pid, each in enumerate(percent.get(what, [0.0, 0.0]), 7):
            samples[pid, what] = growing(each)
    return Soak(samples)


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize(
    ("percent", "found"),
    [
        ([-1.0, -1.0], {}),
        ([0.9, 0.9], {}),
        ([1.2, 1.2], {"memory_grows": 1}),
        ([0.0, 2.5], {"memory_grows": 1}),
        # Clients have moved from one to the other.
        ([-2.0, 3.0], {}),
    ],
)
def test_growth_past_one_percent_an_hour_of_all_is_found(
    percent: list[float], found: dict[str, int], what: str
) -> None:
    findings = Findings()
    check_growth(workers(**{what: percent, "memory": [10.0, 10.0]}), findings)
    assert findings.counts == found


def test_each_worker_is_told_of_too() -> None:
    notes = workers(allocated=[-2.0, 3.0]).notes()
    told = [notes[f"allocated of {who}, % per hour"] for who in ("all", 7, 8)]
    assert told == pytest.approx([0.5, -2.0, 3.0], abs=0.1)


def test_a_run_in_which_nothing_was_watched_has_no_growth() -> None:
    findings = Findings()
    check_growth(Soak(), findings)
    assert (findings.counts, Soak().notes()) == ({}, {})
