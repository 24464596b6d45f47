"""The short form: three faults in one run with real servers. Not in the usual suite: `make chaos-short`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.runner import RESULTS, SHORT_FAULTS

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 230


@pytest.mark.chaos
def test_nothing_is_lost_repeated_or_shown_to_others_under_three_faults() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--short", "--name", "short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((ROOT / RESULTS / "short.json").read_text())
    assert set(report["faults"]) >= set(SHORT_FAULTS)
    assert report["findings"] == {}
    assert report["deliveries"] > 5_000
    assert report["writes"]["acknowledged"] > 300
    print(done.stdout)
