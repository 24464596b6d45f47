"""Running management commands within the test's process, as somebody would who reads what they print."""

from __future__ import annotations

import io
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        """It is a terminal."""
        return True


def run_command(
    name: str, *arguments: str, stderr: io.StringIO | None = None, **options: Any
) -> tuple[int, list[str], list[str]]:
    """The exit status of a command, and the lines of its outputs, the final error included."""
    stdout, stderr, status = io.StringIO(), stderr or io.StringIO(), 0
    try:
        call_command(name, *arguments, stdout=stdout, stderr=stderr, **options)
    except CommandError as error:
        status = error.returncode
        stderr.write(f"{error}\n")
    return status, stdout.getvalue().splitlines(), stderr.getvalue().splitlines()
