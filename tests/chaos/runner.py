"""Real clients, real servers, real faults: `make chaos`, `make chaos-short`, `make chaos-mutants`, or single runs."""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from tests.chaos.machines import Machines, MachinesError
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemeses import NEMESES
from tests.chaos.report import Report, table
from tests.chaos.scenario import Plan, play, say
from tests.chaos.stage import LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path("build/chaos")
SHORT_FAULTS = ("worker-kill", "redis-kill-4", "postgres-restart")
CORE_FAULTS = ("redis-flush", "redis-kill-4", "clock-ahead", "rolling-restart")
SHARD_FAULTS = ("redis-flush", "redis-kill-4", "redis-pause", "redis-hang-up", "redis-kill-30")
MACHINE_FAULTS = ("machine-off-briefly", "machine-off", "worker-kill", "redis-kill-4", "rolling-restart")
WANTED_DELIVERIES = 1_000_000
ALONE_SECONDS = 40.0
MIXED_SECONDS = 180.0
LONG_RATE = 60.0
MOST_MIXED = 12
LONGEST_RUN = 900.0


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks; the exit status says whether every promise was kept."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.machines and (wrong := [name for name in options.fault if NEMESES[name].needs_machines]):
        parser.error(f"{wrong[0]} needs --machines.")
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.all:
        return long_run()
    if options.mutants:
        return mutants()
    if options.short:
        options.fault, options.seconds = list(SHORT_FAULTS), 0.0
    faults = _faults(on_machines=options.machines) if options.mixed else options.fault
    kind = "soak" if options.soak else "mixed" if options.mixed else "+".join(faults) or "none"
    name = options.name or kind
    plan = Plan(name, faults, options.seconds, options.rate)
    plan.together = 2 if options.mixed else 1
    plan.env = {"CHAOS_MUTANT": options.mutant} if options.mutant else {}
    plan.layer, plan.shards, plan.on_machines = options.layer, options.shards, options.machines
    plan.seed, plan.soak = options.seed, options.soak
    plan.edits = MUTANTS[options.mutant].edits if options.mutant else True
    try:
        report = asyncio.run(play(plan, RESULTS))
    except MachinesError as error:
        print(f"There can be no machines of their own here: {error}", file=sys.stderr)
        return 2
    _keep(report)
    print(table([report]), flush=True)
    for figure, value in report.notes.items():
        print(f"  {figure}: {value:,.2f}")
    _explain(report)
    return 1 if report.findings else 0


def long_run() -> int:
    """Every fault alone, some in other surroundings, then all two at a time until there were a million deliveries."""
    reports: list[Report] = []
    alone = _faults(on_machines=False)
    for number, name in enumerate(alone, 1):
        say(f"{number} of {len(alone)}: {NEMESES[name].title}")
        reports.append(_in_a_process(name, "--fault", name, "--seconds", str(ALONE_SECONDS)))
        print(table(reports[-1:]), flush=True)
    for title, name, options, faults in (
        ("The other channel layer of Redis", "core-layer", ("--layer", "core"), CORE_FAULTS),
        ("Two Redis servers", "two-shards", ("--shards", "2"), SHARD_FAULTS),
        ("Each worker on a machine of its own", "machines", ("--machines",), MACHINE_FAULTS),
    ):
        if name == "machines" and not _can_have_machines():
            continue
        say(title)
        chosen = [part for fault in faults for part in ("--fault", fault)]
        reports.append(_in_a_process(name, *options, *chosen, "--seconds", str(ALONE_SECONDS)))
        print(table(reports[-1:]), flush=True)
    mixed = 0
    while (sum(report.deliveries for report in reports) < WANTED_DELIVERIES and mixed < MOST_MIXED) or not mixed:
        mixed += 1
        say(f"Mixed, {mixed}: {sum(report.deliveries for report in reports):,} deliveries so far")
        arguments = ("--mixed", "--seed", str(mixed), "--seconds", str(MIXED_SECONDS), "--shards", str(1 + mixed % 2))
        reports.append(_in_a_process(f"mixed-{mixed}", *arguments))
        print(table(reports[-1:]), flush=True)
    total = sum(report.deliveries for report in reports)
    print(f"\n{table(reports)}\n\n{total:,} deliveries with faults", flush=True)
    for report in reports:
        _explain(report)
    is_enough = total >= WANTED_DELIVERIES
    if not is_enough:
        print(f"That is less than {WANTED_DELIVERIES:,}.")
    return 0 if is_enough and not any(report.findings for report in reports) else 1


def mutants() -> int:
    """Servers that break one promise each: the checker has to find every one of them."""
    missed = []
    for name, mutant in MUTANTS.items():
        say(f"{name}: {mutant.title}")
        faults = [part for fault in mutant.faults for part in ("--fault", fault)]
        size = ("--seconds", str(mutant.seconds), "--rate", str(mutant.rate))
        report = _in_a_process(f"mutant-{name}", "--mutant", name, *faults, *size)
        caught = {kind: times for kind, times in report.findings.items() if kind in mutant.caught_as}
        print(f"  {'caught' if caught else 'MISSED'}: {report.findings}", flush=True)
        if not caught:
            missed.append(name)
    print(
        f"{len(MUTANTS) - len(missed)} of {len(MUTANTS)} mutants caught"
        + "".join(f"; missed: {missed}"[: 99 * len(missed)])
    )
    return 1 if missed else 0


def _faults(*, on_machines: bool) -> list[str]:
    return [name for name, nemesis in NEMESES.items() if on_machines or not nemesis.needs_machines]


def _can_have_machines() -> bool:
    machines = Machines(1)
    try:
        machines.start()
    except MachinesError as error:
        say(f"Left out are workers on machines of their own: {error}")
        return False
    finally:
        machines.stop()
    return True


def _in_a_process(name: str, *arguments: str) -> Report:
    """A run in a process of its own: Django reads its settings once."""
    command = [sys.executable, "-m", "tests.chaos", "--name", name, "--rate", str(LONG_RATE), *arguments]
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
    with (RESULTS / f"{name}.log").open("w") as log:
        try:
            subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=LONGEST_RUN, check=False)
        except subprocess.TimeoutExpired:
            log.write(f"Not done after {LONGEST_RUN} s.\n")
    try:
        values = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError:
        return Report(name, findings={"broken_run": 1}, examples={"broken_run": [f"see {RESULTS / name}.log"]})
    return Report(**{field.name: values[field.name] for field in fields(Report)})


def _keep(report: Report) -> None:
    (RESULTS / f"{report.name}.json").write_text(json.dumps(report.as_json(), indent=1, default=str))


def _explain(report: Report) -> None:
    if report.findings:
        print(json.dumps({report.name: report.findings, "examples": report.examples}, indent=1), flush=True)
    for line in report.complaints[:10]:
        print(f"  {report.name}: the servers' logs say: {line[:300]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--all", action="store_true", help="the long run, over a million deliveries")
    what.add_argument("--short", action="store_true", help=f"the short form: {', '.join(SHORT_FAULTS)}")
    what.add_argument("--mutants", action="store_true", help="show that the checker finds servers that are wrong")
    what.add_argument("--soak", action="store_true", help="no faults; the servers' memory mustn't grow")
    what.add_argument("--mixed", action="store_true", help="all faults, two at a time")
    what.add_argument("--fault", action="append", default=[], choices=sorted(NEMESES), help="may be repeated")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long faults are struck; each at least once")
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second, over both tenants")
    parser.add_argument("--layer", choices=sorted(LAYERS), default="pubsub", help="which of channels_redis")
    parser.add_argument("--shards", type=int, default=1, help="how many Redis servers share the channels")
    parser.add_argument(
        "--machines", action="store_true", help="each worker in a network namespace of its own; needs root and ip"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="serve by a server that is wrong")
    parser.add_argument("--seed", type=int, help="for the dice")
    parser.add_argument("--name", help="of the result in build/chaos")
    return parser
