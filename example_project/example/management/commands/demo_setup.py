from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from example.seed import USERNAMES, seed
from example.services import ServiceError


class Command(BaseCommand):
    """Make the demo's customers in the configured database; harmless when repeated."""

    help = "Migrate the database and make the customers acme and globex with users and conversations."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Do it, and say who can log in."""
        try:
            seed()
        except ServiceError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Log in as {', '.join(USERNAMES)} with the password of DEMO_PASSWORD")
