"""Repairing one schema: what is behind is migrated, what is missing created, what has drifted filled up."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from django.db import connections
from django_tenants.models import TenantMixin
from django_tenants.signals import post_schema_sync
from django_tenants.utils import get_tenant_model

from ...conf import messaging_settings
from ...exceptions import Unavailable
from ...types import Readiness, SchemaState
from ..context import activated, public_schema
from ..database import TENANT_DATABASE
from .drift import RepairRefusedError, fill_gaps
from .failures import Failure, cause_of, first_line, migration_of
from .inspection import inspect_schema
from .mending import mend
from .migrating import migration_lock, no_transaction_left, run_migrations
from .sites import name_site
from .verdicts import facts, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

MOST_STEPS = 4
"""A clone may be created, then migrated, then filled up, then mended."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of one schema.

    ``done`` says in words what was changed, ``failure`` why it ended before the schema was ready.
    """

    readiness: Readiness
    done: tuple[str, ...] = ()
    failure: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the schema is ready and everything that belongs to it was done."""
        return self.readiness.is_ready and not self.failure


def repair_schema(schema_name: str, kind: str) -> Repair:
    """Make a schema ready if that loses nothing, and return what was done.

    One process at a time repairs a schema; who waited looks again. Call it from one thread of a process only, and
    outside of a transaction: Django's cache of content types belongs to the process, so schemas that are migrated in
    threads at the same time would get each other's ids. What goes wrong with the schema is in the result. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    with ExitStack() as stack:
        stack.callback(verdicts.forget, schema_name)
        try:
            stack.enter_context(migration_lock(schema_name))
        except psycopg.Error as error:
            raise Unavailable(reason=f"The database did not answer: {first_line(error)}") from error
        stack.enter_context(activated(public_schema()))
        return _repair(schema_name, kind)


def _repair(schema_name: str, kind: str) -> Repair:
    found, done = inspect_schema(schema_name, kind), list[str]()
    for _ in range(MOST_STEPS):
        step = STEPS.get(found.state)
        if step is None:
            break
        before, failure = found, ""
        try:
            with no_transaction_left():
                step(before, kind, done)
        except Exception as error:  # noqa: BLE001 - whatever a host's migration or receiver raises
            failure = _told(before, error)
        found = inspect_schema(schema_name, kind)
        done += _applied(before, found)
        if failure:
            return Repair(found, tuple(done), failure)
        if found == before:
            return Repair(found, tuple(done), f"it is as before: {found.reason}")
    if done and found.is_ready and not found.is_shared:
        name_site(_tenant(schema_name))
    return Repair(found, tuple(done), "" if found.is_ready else found.reason)


def _create(found: Readiness, _kind: str, done: list[str]) -> None:
    name = found.schema_name
    tenant = _tenant(name)
    logger.info("Running migrations for tenant: %s", name, extra={"schema_name": name})
    if tenant.create_schema(check_if_exists=True, verbosity=0) is False:
        return
    logger.info("Migrations completed successfully for tenant: %s", name, extra={"schema_name": name})
    done.append("created and migrated")
    # As django-tenants does after a tenant's creation, which was ended before it came to that.
    post_schema_sync.send(sender=TenantMixin, tenant=tenant.serializable_fields())


def _migrate(found: Readiness, _kind: str, _done: list[str]) -> None:
    name = found.schema_name
    logger.info("Running migrations for tenant: %s", name, extra={"schema_name": name})
    _run_migrations(found)
    logger.info("Migrations completed successfully for tenant: %s", name, extra={"schema_name": name})


def _run_migrations(found: Readiness) -> None:
    """Apply what is pending, of the apps that a tenant is refused for: another one's failure mustn't keep it closed."""
    if messaging_settings.REQUIRED_APPS is None:
        run_migrations(found.schema_name)
        return
    for label in found.apps:
        run_migrations(found.schema_name, label)


def _repair_drift(found: Readiness, kind: str, done: list[str]) -> None:
    before = len(done)
    try:
        if found.missing_relations:
            done += fill_gaps(found, kind)
            # Nothing is left to apply, but Django fills its own tables after each migration.
            _run_migrations(found)
        else:
            mend(found, kind, done)
    finally:
        for change in done[before:]:
            logger.warning("[%s] Repaired: %s.", found.schema_name, change, extra=facts(found))


STEPS: dict[SchemaState, Callable[[Readiness, str, list[str]], None]] = {
    SchemaState.MISSING: _create,
    SchemaState.BEHIND: _migrate,
    SchemaState.DRIFTED: _repair_drift,
}


def _tenant(schema_name: str) -> TenantMixin:
    tenant = get_tenant_model().objects.using(TENANT_DATABASE).filter(schema_name=schema_name).first()
    if tenant is None:
        raise RepairRefusedError("no tenant has this schema any longer")
    return tenant


def _applied(before: Readiness, after: Readiness) -> list[str]:
    missing = set(after.missing_migrations)
    # Of what is in error nothing is known.
    done = [] if after.state is SchemaState.ERROR else [m for m in before.missing_migrations if m not in missing]
    return [f"applied {', '.join(done)}"] if done else []


def _told(before: Readiness, error: Exception) -> str:
    """Log a failed step and say in one line why it failed; a connection that broke is left."""
    if isinstance(error, RepairRefusedError):
        reason = str(error)
    else:
        failure = Failure(before.schema_name, cause=cause_of(error), migration=migration_of(error))
        reason = failure.reason
        innermost = _innermost(error)
        if innermost is not None and first_line(innermost).removesuffix(".") not in reason:
            reason += f", because of {type(innermost).__name__}: {first_line(innermost)}"
    logger.error(
        "[%s] The schema can't be repaired: %s", before.schema_name, reason, exc_info=error, extra=facts(before)
    )
    connection = connections[TENANT_DATABASE]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()
    return reason


def _innermost(error: BaseException) -> psycopg.Error | None:
    """Return the database's own error at the origin of a chain, if there is one."""
    link: BaseException | None = error
    found = None
    while link is not None:
        found = link if isinstance(link, psycopg.Error) else found
        link = link.__cause__ or link.__context__
    return found
