from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from ...actions.status_backfill import create_user_statuses, tenants_with_statuses
from ...exceptions import MessagingError, NotFound, TenantNotReady, Unavailable
from ..progress import CLEAR, Progress

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

    from ...actions.status_backfill import StatusCount

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Makes the statuses that users lack."""

    # What they find otherwise is no reason to leave a user without a status.
    requires_system_checks: list[str] = []
    help = (
        "Give every user of every tenant who has none an online status. May run beside live traffic, and be repeated. "
        "Exit status: 0 when all have one, 1 when a tenant could not be done, 2 when the command could not run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Say which tenants."""
        parser.add_argument(
            "--schema", action="append", default=[], help="a tenant's schema; may be repeated; without it all tenants"
        )

    def handle(self, *_args: Any, schema: list[str], verbosity: int, **_options: Any) -> None:
        """Do one tenant after the other; one that can't be done costs the others nothing."""
        try:
            names = tenants_with_statuses(schema)
            counts = self._do_all(names, verbosity)
        except (NotFound, Unavailable) as error:
            raise CommandError(f"{error} Nothing more was done.", returncode=2) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted. What was done stays; run it again for the rest.", returncode=130) from None
        created, existing = sum(count.created for count in counts), sum(count.existing for count in counts)
        if verbosity:
            self.stdout.write(
                f"In all: {created} created, {existing} existed, in {len(counts)} of {len(names)} tenants."
            )
        if len(counts) < len(names):
            raise CommandError(f"{len(names) - len(counts)} of {len(names)} tenants could not be done.", returncode=1)

    def _do_all(self, names: list[str], verbosity: int) -> list[StatusCount]:
        counts = []
        progress = Progress(self.stderr, "Creating user statuses, tenants done", len(names))
        for name, found in progress.over((name, self._do(name)) for name in names):
            if isinstance(found, str):
                self.stderr.write(f"{name}: {found}")
                continue
            counts.append(found)
            if verbosity:
                self.stdout.write(f"{name}: {found.created} created, {found.existing} existed.")
        return counts

    def _do(self, name: str) -> StatusCount | str:
        """Return what was done in a tenant, or why it wasn't."""

        def show(users: int) -> None:
            if self.stderr.isatty():
                self.stderr.write(f"{CLEAR}{name}: {users} users", ending="")
                self.stderr.flush()

        try:
            return create_user_statuses(name, on_batch=show)
        except Unavailable:
            raise
        except TenantNotReady as error:
            return f"NOT READY: {error.readiness.reason}. Required action: {error.readiness.remedy}"
        except (MessagingError, ImproperlyConfigured) as error:
            return f"NOT DONE: {error}"
        except Exception as error:
            # Whatever it is, the host's own hook included.
            logger.exception("[%s] The user statuses couldn't be created.", name)
            return f"NOT DONE: {type(error).__name__}: {error}"
