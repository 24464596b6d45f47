"""How fast messages are delivered, beside the limit and beside hand-written consumers; every delivery is checked.

    make bench                                     everything, about 15 minutes
    make bench BENCH="--quick"                     everything once, shortly: to see that it works
    make bench BENCH="--scenario A --contender ours --contender limit"
    python benchmarks/delivery.py --scenario A --contender ours --seconds 5
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "example_project")]

from benchmarks.rig.conductor import GaveUpError  # noqa: E402 - the path is set above
from benchmarks.rig.contenders import CONTENDERS, Services  # noqa: E402
from benchmarks.rig.scenarios import FULL, QUICK, SCENARIOS  # noqa: E402
from example.services import EmbeddedPostgres, ServiceError  # noqa: E402

RESULTS = ROOT / "benchmarks/results/delivery.json"
SERVER_OPTIONS = {"max_connections": "200", "max_locks_per_transaction": "1024"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenario", action="append")
    parser.add_argument("--contender", action="append")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    import dataclasses
    size = dataclasses.replace(QUICK if arguments.quick else FULL, load=arguments.seconds)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "data", options=SERVER_OPTIONS) as server:
        services = Services(server, Path(folder))
        for scenario in SCENARIOS:
            for contender in CONTENDERS:
                if arguments.scenario and scenario.name not in arguments.scenario:
                    continue
                if arguments.contender and contender.name not in arguments.contender:
                    continue
                if not scenario.wants(contender):
                    continue
                try:
                    figures = scenario.run(contender, services, size)
                except GaveUpError as error:
                    print(error)
                    print((Path(folder) / f"{contender.name}.log").read_text()[-3000:])
                    continue
                print(scenario.name, contender.name, json.dumps(figures))


if __name__ == "__main__":
    main()
