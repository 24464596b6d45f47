"""Asking many tenants in one statement, so that none of them keeps the others waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from django.db import OperationalError, connections, transaction

from ..tenancy import TENANT_DATABASE, require_all_ready

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_TENANTS = 50
"""Most tenants of one statement. Each costs more in one of hundreds, and all are planned again when one comes."""
PATIENCE = 2.0
"""Seconds after which what isn't answered is left to itself, and the next is asked on another connection: a backend
that hangs, or a connection whose other end is gone, must not keep everybody waiting."""
PLANNING = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "max_parallel_workers_per_gather": "0"}
"""What keeps the statements cheap: one plan, good for tables of any size, without starting processes to share it."""
LOCK_TIMEOUT = "250ms"
"""How long the statement for several tenants waits for the tables of one, before each is asked by itself."""
LOCKED_OR_SLOW = {"55P03", "57014"}
"""What PostgreSQL says of a statement that was ended for its timeout: it may be one tenant's fault."""


class OneKeepsWaiting(Exception):
    """A tenant of several can't be asked in time."""


def ask_together(ask: Callable[[dict[str, Any]], T], asked: dict[str, Any]) -> T:
    """Call ``ask``, which makes one statement for the tenants whose schemas are the keys of ``asked``.

    Raises :class:`~django_tenant_messaging.exceptions.TenantNotReady` when one of them isn't, and
    :class:`OneKeepsWaiting` when one of them may be why it takes too long: then each has to be asked by itself.
    """
    require_all_ready(asked)
    try:
        return ask_planned(ask, asked, lock_timeout=LOCK_TIMEOUT)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) in LOCKED_OR_SLOW:
            raise OneKeepsWaiting from error
        raise


def ask_planned(ask: Callable[[dict[str, Any]], T], asked: dict[str, Any], **limits: str) -> T:
    """Call ``ask`` in a transaction of its own whose statements are planned as those for many tenants."""
    settings = {**PLANNING, **limits}
    with transaction.atomic(using=TENANT_DATABASE):
        with connections[TENANT_DATABASE].cursor() as cursor:
            calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
            cursor.execute(f"SELECT {calls}")
        return ask(asked)
