"""Whether a schema may be served, as this process knows it."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError, connections
from psycopg import errors

from ...conf import messaging_settings
from ...exceptions import TenantNotReady, Unavailable
from ...types import Readiness, SchemaState, printable
from ..context import public_schema
from ..database import TENANT_DATABASE
from .failures import causes, first_line
from .inspection import inspect_schema, inspect_schemas
from .schemas import kind_of, schema_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

logger = logging.getLogger(__name__)

BYPASS_VARIABLE = "DISABLE_MIGRATION_CHECK"
BYPASS_REMINDER = 60.0
"""Seconds between two warnings that the block is bypassed."""
REFUSAL_REMINDER = 60.0
"""Seconds between two critical records about a schema that stays unready."""
CHECK_PATIENCE = 5.0
"""Seconds that a request waits for the check that another one has begun."""


@dataclass(slots=True)
class _Verdict:
    readiness: Readiness
    valid_until: float


class Verdicts:
    """What this process believes of each schema. Times are those of ``time.monotonic``."""

    def __init__(self) -> None:
        self._verdicts: dict[str, _Verdict] = {}
        self._checks: dict[str, threading.Lock] = {}
        self._forgotten: dict[str, int] = {}
        self._reminded: dict[str, float] = {}
        self._lock = threading.Lock()
        self._looking_at_all = threading.Lock()

    def fresh(self, schema_name: str) -> Readiness | None:
        """Return what is known and still valid, without a query."""
        verdict = self._verdicts.get(schema_name)
        return verdict.readiness if verdict is not None and time.monotonic() < verdict.valid_until else None

    def of(self, schema_name: str, kind: str | None = None) -> Readiness:
        """Return what is known and valid, or look: once, however many ask at the same time.

        Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer, or another
        one's look takes longer than ``CHECK_PATIENCE``: that says nothing of the schema.
        """
        known = self.fresh(schema_name)
        if known is not None:
            return known
        with self._lock:
            check = self._checks.setdefault(schema_name, threading.Lock())
        stale = self._verdicts.get(schema_name)
        # Who is refused anyway needn't wait for the next look.
        refused = stale.readiness if stale is not None and not stale.readiness.is_ready else None
        if not check.acquire(timeout=0 if refused else CHECK_PATIENCE):
            if refused is not None:
                return refused
            raise Unavailable(reason=f"The schema {printable(schema_name)} is still being looked at.")
        try:
            return self.fresh(schema_name) or self._look(schema_name, kind)
        finally:
            check.release()

    def of_all(self) -> dict[str, Readiness]:
        """Return what all schemas are, looking together at those of which nothing valid is known.

        One query lists the tenants; while all is known that is all, and of those who ask at the same time one looks.
        """
        kinds = _listed()
        known = self._fresh_of(kinds)
        if len(known) < len(kinds):
            if not self._looking_at_all.acquire(timeout=CHECK_PATIENCE):
                raise Unavailable(reason="The schemas are still being looked at.")
            try:
                # Who waited finds here what was found meanwhile.
                known |= self._fresh_of(kinds)
                known |= self._look_at_all({name: kind for name, kind in kinds.items() if name not in known})
            finally:
                self._looking_at_all.release()
        return {name: known[name] for name in kinds}

    def renew(self, names: Collection[str]) -> None:
        """Look together at schemas of which nothing valid will be known when this is called the next time, and at
        those among the others of which soon nothing will be, so that they are looked at together the next time too.

        It is called once in ``RECONCILE_INTERVAL``: whoever needs one of them meanwhile finds it known, and needn't
        look at it alone.
        """
        now = time.monotonic()
        soon = now + messaging_settings.MIGRATION_CHECK_TTL / 2
        next_time = min(now + 2 * messaging_settings.RECONCILE_INTERVAL, soon)
        until = {name: verdict.valid_until for name in names if (verdict := self._verdicts.get(name)) is not None}
        if len(until) == len(names) and min(until.values(), default=next_time) >= next_time:
            return
        self._look_at_all(_listed([name for name in names if until.get(name, now) < soon]))

    def _fresh_of(self, names: Iterable[str]) -> dict[str, Readiness]:
        return {name: found for name in names if (found := self.fresh(name)) is not None}

    def _look_at_all(self, kinds: Mapping[str, str]) -> dict[str, Readiness]:
        marks = {name: self._forgotten.get(name, 0) for name in kinds}
        looked = {found.schema_name: found for found in _inspected(kinds)}
        for name, found in looked.items():
            self._keep(found, marks[name])
        return looked

    def forget(self, schema_name: str) -> None:
        """Believe nothing of a schema any longer, nor what a look finds that has begun already."""
        with self._lock:
            self._forgotten[schema_name] = self._forgotten.get(schema_name, 0) + 1
            self._verdicts.pop(schema_name, None)

    def forget_all(self) -> None:
        """Believe nothing of any schema any longer, and remember of none that it was reported."""
        for schema_name in list(self._verdicts):
            self.forget(schema_name)
        self._reminded.clear()

    def _look(self, schema_name: str, kind: str | None) -> Readiness:
        mark = self._forgotten.get(schema_name, 0)
        try:
            kind = kind_of(schema_name) if kind is None else kind
            if kind is None:
                found = Readiness(schema_name, SchemaState.ERROR, error="no tenant has this schema")
            else:
                found = inspect_schema(schema_name, kind)
        except Unavailable:
            raise
        except (OperationalError, InterfaceError) as error:
            raise Unavailable(reason=f"The database did not answer: {first_line(error)}") from error
        except Exception as error:  # noqa: BLE001 - whatever keeps us from knowing, a broken migration module included
            found = Readiness(schema_name, SchemaState.ERROR, error=f"it can't be inspected: {error}")
        self._keep(found, mark)
        return found

    def _keep(self, found: Readiness, mark: int) -> None:
        if connections[TENANT_DATABASE].in_atomic_block:
            # Seen by this transaction alone, which may be rolled back.
            return
        lasts = (
            messaging_settings.MIGRATION_CHECK_TTL if found.is_ready else messaging_settings.MIGRATION_RECHECK_INTERVAL
        )
        with self._lock:
            if self._forgotten.get(found.schema_name, 0) != mark:
                return
            self._verdicts[found.schema_name] = _Verdict(found, time.monotonic() + lasts)
        self._tell(found)

    def _tell(self, found: Readiness) -> None:
        """Log a schema that isn't ready when it is found so, and once a minute while it stays so."""
        name, now = found.schema_name, time.monotonic()
        if found.is_ready:
            if self._reminded.pop(name, None) is not None:
                logger.warning("[%s] The schema is ready again.", name, extra=facts(found))
        elif now - self._reminded.get(name, float("-inf")) >= REFUSAL_REMINDER:
            self._reminded[name] = now
            logger.critical(
                "[%s] NOT READY, nothing is served from this schema: %s. Required action: %s",
                printable(name),
                found.reason,
                printable(found.remedy),
                extra=facts(found),
            )


def _listed(names: Collection[str] | None = None) -> dict[str, str]:
    try:
        return schema_kinds(names)
    except DatabaseError as error:
        raise Unavailable(reason=f"The tenants can't be listed: {first_line(error)}") from error


def _inspected(kinds: Mapping[str, str]) -> list[Readiness]:
    """Inspect schemas; those of a kind whose requirements can't be read, such as by a broken migration, are errors."""
    try:
        return list(inspect_schemas(kinds))
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - a migration module may raise anything
        apart = set(kinds.values())
        if len(apart) > 1:
            parts = ({name: kind for name, kind in kinds.items() if kind == one} for one in apart)
            return [found for part in parts for found in _inspected(part)]
        return [Readiness(name, SchemaState.ERROR, error=f"it can't be inspected: {error}") for name in kinds]


verdicts = Verdicts()
_bypass_warned = float("-inf")


def facts(readiness: Readiness) -> dict[str, Any]:
    """Return what a log record about a schema carries as fields, for whoever searches or alerts."""
    return {
        "schema_name": readiness.schema_name,
        "schema_state": readiness.state.value,
        "missing_migrations": list(readiness.missing_migrations),
        "missing_relations": list(readiness.missing_relations),
        "differences": list(readiness.differences),
        "apps": list(readiness.apps),
        "remedy": readiness.remedy,
    }


def check_is_bypassed() -> bool:
    """Say whether ``DISABLE_MIGRATION_CHECK=true`` is in the environment; warn once a minute while it is."""
    global _bypass_warned  # noqa: PLW0603 - one reminder for the whole process
    if os.environ.get(BYPASS_VARIABLE, "").strip().lower() != "true":
        return False
    if time.monotonic() - _bypass_warned >= BYPASS_REMINDER:
        _bypass_warned = time.monotonic()
        logger.warning("%s=true: tenants are served without knowing whether they are migrated.", BYPASS_VARIABLE)
    return True


def readiness_of(schema_name: str) -> Readiness:
    """Return whether a schema is ready, as this process knows it; one query at most.

    A positive answer is at most ``MIGRATION_CHECK_TTL`` seconds old, a negative one ``MIGRATION_RECHECK_INTERVAL``.
    Never raises: what can't be found out is :attr:`~django_tenant_messaging.types.SchemaState.ERROR`.
    """
    try:
        return verdicts.of(schema_name)
    except Unavailable as error:
        return Readiness(schema_name, SchemaState.ERROR, error=f"it can't be inspected: {error}")


def readiness_of_all() -> Mapping[str, Readiness]:
    """Return whether each schema is ready, the shared one first; one query while all is known.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    return verdicts.of_all()


def forget_readiness(schema_name: str) -> None:
    """Look at a schema again before anything else is served from it."""
    verdicts.forget(schema_name)


def hindrance(schema_name: str) -> Readiness | None:
    """Return what forbids to serve a tenant, if anything does: its own schema, or the shared one that it relies on.

    Never raises: what can't be found out forbids it too.
    """
    return _hindrance(schema_name, readiness_of)


def known_to_be_ready(schema_name: str) -> bool:
    """Say whether :func:`hindrance` would find nothing without a query: for callers that must not block."""
    return all(
        (readiness := verdicts.fresh(name)) is not None and readiness.is_ready
        for name in (schema_name, public_schema())
    )


def require_ready(schema_name: str) -> None:
    """Raise :class:`~django_tenant_messaging.exceptions.TenantNotReady` unless a tenant may be served.

    Every face asks this, and background work of the host's own may. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    found = _hindrance(schema_name, verdicts.of)
    if found is not None:
        raise TenantNotReady(found)


def _hindrance(schema_name: str, look: Callable[[str], Readiness]) -> Readiness | None:
    if check_is_bypassed():
        return None
    for name in (schema_name, public_schema()):
        readiness = verdicts.fresh(name) or look(name)
        if not readiness.is_ready:
            return readiness
    return None


def require_all_ready(schema_names: Collection[str]) -> None:
    """Raise ``TenantNotReady`` unless all of some tenants may be served; they are looked at together.

    Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    if not check_is_bypassed():
        verdicts.renew(schema_names)
    for schema_name in schema_names:
        require_ready(schema_name)


def hindrance_after(error: BaseException, schema_name: str) -> Readiness | None:
    """Return what is wrong with a tenant's schema if an error, or one that led to it, comes from that.

    A missing table or column makes what was believed forgotten at once. ``None`` when the schema is fine after all, so
    that the error is another's. One query for each schema at most.
    """
    for link in causes(error):
        if isinstance(link, TenantNotReady):
            return link.readiness
        if is_undefined(link):
            for name in (schema_name, public_schema()):
                verdicts.forget(name)
            return hindrance(schema_name)
    return None


def is_undefined(error: BaseException) -> bool:
    """Say whether the database missed a table, a column or a schema."""
    return isinstance(error, ProgrammingError) and isinstance(
        error.__cause__, errors.UndefinedTable | errors.UndefinedColumn | errors.InvalidSchemaName
    )
