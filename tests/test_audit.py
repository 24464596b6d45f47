"""The step that asks for known vulnerabilities claims no success where nobody answered."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

JUDGE = runpy.run_path(str(Path(__file__).resolve().parents[1] / "tools/audit.py"))["judge"]
CLEAN = {"name": "django", "version": "5.2", "vulns": []}
HOLED = {"name": "django", "version": "5.1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["5.2"]}]}
SKIPPED = {"name": "ours", "skip_reason": "not found"}


def judged(*packages: dict[str, Any]) -> tuple[int, str]:
    status, said = JUDGE(json.dumps({"dependencies": packages, "fixes": []}), "")
    return status, said


@pytest.mark.parametrize("output", ["", "[]", "{}", "no JSON", '{"dependencies": '])
def test_no_answer_neither_fails_nor_passes(output: str) -> None:
    status, said = JUDGE(output, "Traceback\nConnectionError: no route\n")
    assert status == 0
    assert said.startswith("NOT AUDITED: ")
    assert "ConnectionError: no route" in said


def test_what_was_found_fails() -> None:
    assert judged(CLEAN, HOLED) == (
        1,
        "django 5.1: PYSEC-1, mended in 5.2\n2 packages audited, 1 known vulnerabilities.",
    )


def test_nothing_found_passes_and_names_what_was_left_out() -> None:
    assert judged(CLEAN) == (0, "1 packages audited, 0 known vulnerabilities.")
    assert judged(CLEAN, SKIPPED) == (0, "1 packages audited, 0 known vulnerabilities. NOT AUDITED: ours.")
    assert judged(SKIPPED)[1].startswith("NOT AUDITED: none of 1 packages")
