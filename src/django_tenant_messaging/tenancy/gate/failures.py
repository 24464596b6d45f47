"""A creation of a tenant that failed: what was the cause, what became of its parts, and what is to be done."""

from __future__ import annotations

import logging
import shlex
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import InterfaceError, NotSupportedError, OperationalError
from django.db.migrations.executor import MigrationExecutor
from django.db.transaction import TransactionManagementError
from psycopg import errors

from ...exceptions import TenantNotReady
from ...types import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.db.migrations import Migration

    from ...types import Readiness

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Failure:
    """A failed creation. As a string it is one sentence each for the cause, the outcome and the required action.

    ``migration`` is the one that failed, if it was one; ``template`` the state of the schema that was cloned;
    ``is_receivers`` says that the migrations were done and a receiver of the host's failed after them.
    """

    schema_name: str
    cause: BaseException
    migration: Migration | None = None
    template: Readiness | None = None
    in_transaction: bool = False
    is_receivers: bool = False
    is_for_diagnosis: bool = False
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = "FAILURE OF A RECEIVER" if self.is_receivers else "MIGRATION FAILURE"
        return (
            f"CRITICAL {what} for tenant '{printable(self.schema_name)}': {self.reason}."
            f" Tenant creation ABORTED: {self.outcome}. Required action: {self.remedy}"
        )

    @property
    def reason(self) -> str:
        """The first cause, after the migration's name if it was one."""
        is_unready = isinstance(self.cause, TenantNotReady)
        text = self.cause.readiness.reason if isinstance(self.cause, TenantNotReady) else first_line(self.cause)
        name = type(self.cause).__name__
        text = text if is_unready or name in text else f"{name}: {text}"
        return f"{self.migration_name}: {text}".removeprefix(": ").removesuffix(".")

    @property
    def migration_name(self) -> str:
        """The failed migration as ``app.name``, or nothing."""
        return "" if self.migration is None else f"{self.migration.app_label}.{self.migration.name}"

    @property
    def outcome(self) -> str:
        """What was removed and what was kept."""
        if self.is_for_diagnosis:
            return "row and schema are kept for diagnosis (KEEP_FAILED_TENANTS), and nothing is served from them"
        parts = [f"removed: {', '.join(self.removed)}"] if self.removed else []
        parts += [f"kept: {', '.join(self.kept)}"] if self.kept else []
        return "; ".join(parts) or "nothing was made"

    @property
    def remedy(self) -> str:
        """What somebody has to do."""
        if self.kept and not self.is_receivers:
            return f"remove by hand what is left of it; {self._correction}"
        return self._correction

    @property
    def _correction(self) -> str:
        again = "create the tenant again"
        if self.is_for_diagnosis:
            return f"find the cause, then run python manage.py verify_tenant_migrations --fix --schema={self._quoted}"
        if self.is_receivers:
            return f"correct the receiver that raised and {again}"
        if self.template is not None and not self.template.is_ready:
            return f"repair the template schema first ({self.template.remedy}), then {again}"
        if self.in_transaction and self._needs_autocommit:
            return (
                f"{again} outside of a transaction (no transaction.atomic, ATOMIC_REQUESTS or add page of the admin):"
                " a migration can't run inside of one"
            )
        if self.migration is not None:
            return f"correct the migration {self.migration_name}, or what it needs, and {again}"
        return f"correct the cause and {again}"

    def remove(self, what: str, call: Callable[[], None]) -> None:
        """Remove a part, and note whether it could be."""
        try:
            call()
        except Exception as error:
            logger.exception("[%s] A tenant that can't be created leaves %s behind.", printable(self.schema_name), what)
            self.kept.append(f"{what}, as it can't be removed ({first_line(error)})")
        else:
            self.removed.append(what)

    def fields(self) -> dict[str, Any]:
        """Return what the log record carries as fields."""
        return {
            "schema_name": self.schema_name,
            "migration": self.migration_name,
            "error": first_line(self.cause),
            "error_type": type(self.cause).__name__,
            "outcome": self.outcome,
            "remedy": self.remedy,
        }

    @property
    def made_nothing(self) -> bool:
        """Whether it failed before the schema was made: one that is there now is somebody else's."""
        is_others = isinstance(self.cause.__cause__, errors.DuplicateSchema)
        return self.migration is None and (is_others or isinstance(self.cause, ValidationError))

    @property
    def _quoted(self) -> str:
        return shlex.quote(printable(self.schema_name))

    @property
    def _needs_autocommit(self) -> bool:
        if isinstance(self.cause.__cause__, errors.ActiveSqlTransaction | errors.ObjectInUse):
            return True
        # What Django's own operations say before they try.
        is_atomic = self.migration is None or self.migration.atomic
        return isinstance(self.cause, NotSupportedError) and not is_atomic


def cause_of(error: BaseException) -> BaseException:
    """Return the first error of a chain whose later ones only say that the transaction is aborted."""
    links = list(causes(error))
    masks = [
        place
        for place, link in enumerate(links)
        if isinstance(link, errors.InFailedSqlTransaction | TransactionManagementError)
    ]
    return links[masks[-1] + 1] if masks and masks[-1] + 1 < len(links) else error


def migration_of(error: BaseException) -> Migration | None:
    """Return the migration that was being applied when an error arose; Django doesn't tell it otherwise."""
    apply = MigrationExecutor.apply_migration.__code__
    for link in causes(error):
        for frame, _line in traceback.walk_tb(link.__traceback__):
            if frame.f_code is apply:
                migration: Migration = frame.f_locals["migration"]
                return migration
    return None


def first_line(error: BaseException) -> str:
    """Return an error's message without PostgreSQL's details and hints."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_away(error: BaseException) -> bool:
    """Say whether the database, or the connection to it, is gone, which says nothing of what was asked.

    The server ends a connection with class 57P or 08 of its codes; what the client alone noticed has no code. Whether
    the connection still works wouldn't tell: leaving a transaction, Django has made another one meanwhile.
    """
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    code: str | None = getattr(error.__cause__, "sqlstate", None)
    return code is None or code.startswith(("08", "57P"))


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it, the latest first."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
