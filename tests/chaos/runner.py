"""The command line: `python -m tests.chaos --fault NAME --seconds N`."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from tests.chaos.nemeses import NEMESES
from tests.chaos.report import table
from tests.chaos.scenario import Plan, play


def main(arguments: list[str]) -> int:
    """Do what the command line asks; the exit status says whether every promise was kept."""
    options = _parser().parse_args(arguments)
    plan = Plan("+".join(options.fault) or "none", options.fault, options.seconds, options.rate)
    report, _history = asyncio.run(play(plan))
    print(table([report]))
    if report.findings:
        print(json.dumps({"findings": report.findings, "examples": report.examples}, indent=1))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(), indent=1, default=str))
    return 1 if report.findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", default=[], choices=sorted(NEMESES))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--json", type=Path)
    return parser
