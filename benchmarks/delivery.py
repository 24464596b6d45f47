"""How fast messages are delivered, beside the limit and beside hand-written consumers; every delivery is checked.

    make bench                                            all of it, about 45 minutes
    make bench BENCH="--quick"                            each part in small, to see that it works
    make bench BENCH="--scenario A --contender ours --contender limit --seconds 10"
    python benchmarks/delivery.py --scenario A --contender ours --seconds 5

Everybody is measured on a PostgreSQL and a Redis that this brings along, one after the other, by one load generator in
a process of its own. A whole run writes `benchmarks/results/delivery.json`, its tables beside that as `delivery.txt`,
and the picture of the documentation; any other writes to the terminal, and JSON where `--output` says.

The exit status is 0 when everything could be measured, whatever the figures, 1 when something couldn't, 2 for a bad
call.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "example_project")]

from benchmarks.rig.conductor import GaveUpError  # noqa: E402 - the path is set above
from benchmarks.rig.contenders import CONTENDERS, Contender, Services  # noqa: E402
from benchmarks.rig.plot import plot  # noqa: E402
from benchmarks.rig.progress import tell  # noqa: E402
from benchmarks.rig.scenarios import FULL, QUICK, SCENARIOS, Scenario, Size  # noqa: E402
from benchmarks.rig.tables import scenario_tables, target_table  # noqa: E402
from benchmarks.rig.targets import Target, targets  # noqa: E402
from example.services import EmbeddedPostgres, ServiceError, temporary_folder  # noqa: E402
from replay.conductor import raise_file_limit  # noqa: E402

RESULTS = ROOT / "benchmarks/results/delivery.json"
TABLES = RESULTS.with_suffix(".txt")
PICTURE = ROOT / "docs/_static/speed.svg"
# Commits wait for the disk, as they do in earnest. A tenant's schema has some 25 tables, each a lock while it is made.
SERVER_OPTIONS = {
    "max_connections": "200",
    "max_locks_per_transaction": "1024",
    "shared_buffers": "1GB",
    "max_files_per_process": "10000",
}
PACKAGES = (
    "Django",
    "django-tenants",
    "channels",
    "channels_redis",
    "daphne",
    "uvicorn",
    "websockets",
    "psycopg",
    "redis",
    "uvloop",
    "httptools",
)
QUICK_CONTENDERS = ["limit", "commit", "tutorial-daphne-core", "tutorial-uvicorn-pubsub", "ours"]
BAD_CALL = 2
INTERRUPTED = 130
SPARE_FILES = 500

Results = dict[str, dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Measure what is asked for, and return the exit status."""
    options = parse(arguments)
    if options.size.many_sockets > raise_file_limit() - SPARE_FILES:
        options.size = dataclasses.replace(options.size, many_sockets=0)
        tell("The limit of open files is too low to hold many sockets: that part is left out.")
    began = time.monotonic()
    folder = temporary_folder("messaging_bench_")
    try:
        results = measure(options.scenarios, options.contenders, options.size, folder)
    finally:
        shutil.rmtree(folder)
    judged = targets(results)
    print(target_table(judged))
    tell(f"Measured in {time.monotonic() - began:.0f} s.")
    report = {
        **circumstances(),
        "size": dataclasses.asdict(options.size),
        "scenarios": results,
        "targets": [dataclasses.asdict(target) for target in judged],
    }
    if options.is_whole:
        TABLES.write_text(text_of_all(report, results, judged, options.size))
        PICTURE.write_text(plot(results))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    return int(any("failed" in figures for rows in results.values() for figures in rows.values()))


def measure(scenarios: list[Scenario], contenders: list[Contender], size: Size, folder: Path) -> Results:
    """Run the scenarios, each against all contenders in turn, and print each one's table when it is done."""
    results: Results = {}
    with EmbeddedPostgres(folder / "postgres", options=SERVER_OPTIONS) as postgres:
        services = Services(postgres, folder)
        for scenario in scenarios:
            rows = results[scenario.name] = {}
            for contender in contenders:
                if scenario.wants(contender):
                    rows[contender.name] = attempt(scenario, contender, services, size)
            if rows:
                print(text_of_one(scenario, rows, size), flush=True)
    return results


def attempt(scenario: Scenario, contender: Contender, services: Services, size: Size) -> dict[str, Any]:
    """Run a scenario against a contender; one that fails doesn't end the run."""
    began = time.monotonic()
    try:
        figures = scenario.run(contender, services, size)
    except (GaveUpError, ServiceError) as error:
        said = services.said(contender)
        tell("\n".join([f"{scenario.name}  {contender.name:24} failed: {error}", *said]))
        return {"failed": str(error)}
    tell(f"{scenario.name}  {contender.name:24} measured in {time.monotonic() - began:.0f} s")
    return figures


def text_of_one(scenario: Scenario, rows: dict[str, Any], size: Size) -> str:
    """A scenario's tables under its title."""
    return f"{scenario.name}: {scenario.title(size)}\n\n{scenario_tables(scenario.name, rows)}\n"


def text_of_all(report: dict[str, Any], results: Results, judged: list[Target], size: Size) -> str:
    """Everything that was printed, with where and when."""
    machine = report["machine"]
    where = f"{report['date'][:10]}, {machine['cores']} cores of {machine['processor']}, {machine['system']}"
    long = f"Each load lasts {size.load:g} s."
    what = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    tables = [text_of_one(one, results[one.name], size) for one in SCENARIOS if results.get(one.name)]
    return "\n".join([where, what, long, "", *tables, target_table(judged), ""])


def circumstances() -> dict[str, Any]:
    """When and where, and with which versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": processor(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "Python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := have(name))},
        },
    }


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def have(package: str) -> str | None:
    """The version of a package, if it is installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; a bad one ends with a sentence and the status 2."""
    parser = argparse.ArgumentParser(
        prog="delivery.py",
        description="Measure delivery beside the limit and beside hand-written consumers.",
        epilog="\n".join(
            [
                "scenarios:",
                *(f"  {scenario.name}  {scenario.title(FULL)}" for scenario in SCENARIOS),
                "",
                "contenders (a beginning of the name is enough for several):",
                *(f"  {contender.name:24} {contender.title()}" for contender in CONTENDERS),
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", action="append", metavar="LETTER", help="only this one; may be repeated")
    parser.add_argument("--contender", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="in small, to see that it works")
    parser.add_argument("--seconds", type=duration, metavar="N", help="how long each measurement takes, 0.2 to 600")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("Only Linux tells what this measures: CPU time and private memory of other processes, by /proc.")
    options.is_whole = not (options.scenario or options.contender or options.quick or options.seconds)
    known = {scenario.name: scenario for scenario in SCENARIOS}
    unknown = [name for name in options.scenario or () if name not in known]
    if unknown:
        parser.error(f"There is no scenario {unknown[0]!r}; there are {', '.join(known)}.")
    options.scenarios = [known[name] for name in known if not options.scenario or name in options.scenario]
    options.contenders = chosen(options.contender or (QUICK_CONTENDERS if options.quick else None), parser)
    if options.output is not None and options.output.is_dir():
        parser.error(f"{options.output} is a folder, not a file.")
    options.output = options.output or (RESULTS if options.is_whole else None)
    options.size = QUICK if options.quick else FULL
    if options.seconds:
        options.size = dataclasses.replace(options.size, load=options.seconds)
    return options


def chosen(names: list[str] | None, parser: argparse.ArgumentParser) -> list[Contender]:
    """The contenders that are named, each in full or by how its name begins."""
    if not names:
        return list(CONTENDERS)
    known = [contender.name for contender in CONTENDERS]
    found: set[str] = set()
    for name in names:
        fitting = [name] if name in known else [other for other in known if other.startswith(f"{name}-")]
        if not fitting:
            parser.error(f"There is no contender {name!r}; there are {', '.join(known)}.")
        found.update(fitting)
    return [contender for contender in CONTENDERS if contender.name in found]


def duration(text: str) -> float:
    """A number of seconds from the command line."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number of seconds from 0.2 to 600")
    return seconds


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ServiceError as error:
        tell(str(error))
        sys.exit(BAD_CALL)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
