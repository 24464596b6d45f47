from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from ..verification import Options, verify

MOST_PROCESSES = 64


class Command(BaseCommand):
    """Tells which schemas are fully migrated, and repairs those that aren't."""

    help = (
        "Look at the shared schema and at every tenant's: are all migrations applied, are all tables and columns "
        "there, and are this app's tables as its migrations make them (types, constraints, indexes)? With --fix, "
        "migrate, create or repair what isn't ready; with -v 2, list all that is missing. Exit status: 0 when all are "
        "ready, 1 when one isn't, 2 when it can't be found out."
    )
    # It has to tell in a second or two what is wrong, also where the checks find something else; those for the database
    # ask this very question.
    requires_system_checks: list[str] = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as a program, whose one connection needs no pool: that waits long for a database that is down."""
        for database in connections.settings.values():
            database.get("OPTIONS", {}).pop("pool", None)
        super().run_from_argv(argv)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--fix", action="store_true", help="repair what isn't ready, unless that could lose data")
        parser.add_argument(
            "--schema",
            action="append",
            metavar="SCHEMA",
            dest="schemas",
            help="only this schema; give it again for several",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        parser.add_argument(
            "--parallel",
            type=_processes,
            default=1,
            metavar="N",
            help=f"repair with this many processes at once (1 to {MOST_PROCESSES}; default: 1)",
        )
        parser.add_argument(
            "--fail-fast", action="store_true", help="stop at the first schema that isn't ready, or can't be repaired"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Do it; see the exit status in :attr:`help`."""
        chosen = Options(
            schemas=options["schemas"],
            fix=options["fix"],
            as_json=options["json"],
            processes=options["parallel"],
            fail_fast=options["fail_fast"],
            verbosity=options["verbosity"],
        )
        verify(chosen, self.stdout, self.stderr)


def _processes(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MOST_PROCESSES:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_PROCESSES}")
    return number
