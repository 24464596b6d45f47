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


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize(("percent", "found"), [(-1.0, {}), (0.9, {}), (1.2, {"memory_grows": 1})])
def test_growth_past_one_percent_an_hour_is_found(percent: float, found: dict[str, int], what: str) -> None:
    findings = Findings()
    check_growth(Soak({(7, what): growing(percent), (7, "memory"): growing(10.0)}), findings)
    assert findings.counts == found
