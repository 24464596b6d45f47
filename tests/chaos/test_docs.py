"""The page about these tests names every fault and every mutant, as they are."""

from __future__ import annotations

import re
from pathlib import Path

from tests.chaos.mutants import MUTANTS
from tests.chaos.nemeses import NEMESES

PAGE = (Path(__file__).resolve().parents[2] / "docs/reliability-testing.md").read_text()


def rows(heading: str) -> dict[str, str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([\w.-]+)` \| ([^|]+?) \|", section, re.MULTILINE))


def test_every_fault_is_described() -> None:
    assert rows("What is broken") == {name: nemesis.title for name, nemesis in NEMESES.items()}


def test_every_mutant_is_described() -> None:
    assert rows("Servers that are wrong") == {name: mutant.title for name, mutant in MUTANTS.items()}
