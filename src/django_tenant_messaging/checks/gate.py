"""Checks of what the migration gate says, and whether it is listened to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation
from django.db import transaction

from ..tenancy import TENANT_DATABASE, current_schema, is_public_schema
from ..tenancy.gate import BYPASS_VARIABLE, check_is_bypassed, inspect_schemas, schema_kinds
from ..tenancy.gate.verdicts import is_undefined
from ..types import printable

if TYPE_CHECKING:
    from collections.abc import Collection

SHOWN = 10
"""Schemas that the message names; the command names all."""
OFF = {"", "0", "false", "no", "off"}


def check_bypass(**_kwargs: Any) -> list[CheckMessage]:
    """Report that tenants are served unseen (W017), and an attempt at it that has no effect (W018)."""
    given = os.environ.get(BYPASS_VARIABLE, "")
    if check_is_bypassed():
        return [
            Warning(
                f"{BYPASS_VARIABLE}={given} is in the environment: tenants are served that may not be migrated.",
                hint="Repair them with python manage.py verify_tenant_migrations --fix, remove the variable from the"
                " environment and restart the servers.",
                id="tenant_messaging.W017",
            )
        ]
    if given.strip().lower() not in OFF:
        return [
            Warning(
                f"{BYPASS_VARIABLE}={given} has no effect: tenants that aren't ready are refused.",
                hint=f"Remove it from the environment, or in an emergency write {BYPASS_VARIABLE}=true.",
                id="tenant_messaging.W018",
            )
        ]
    return []


def check_tenants(databases: Collection[str] | None = None, **_kwargs: Any) -> list[CheckMessage]:
    """Report the schemas that aren't ready (W019), where database checks are asked for.

    Never an error: Django's ``migrate`` runs these checks first, and an error would forbid the very repair. As
    ``migrate_schemas`` runs that command once for each schema, nothing is looked at inside a tenant's schema: a
    thousand tenants are looked at once, not a thousand times.
    """
    if TENANT_DATABASE not in (databases or ()) or not is_public_schema(current_schema()):
        return []
    try:
        # A new project has no table of tenants yet; a transaction that may be open survives that.
        with transaction.atomic(TENANT_DATABASE):
            kinds = schema_kinds()
        # Not what this process believes, and without its critical log records: about to migrate is no alarm.
        looked_at = inspect_schemas(kinds)
        unready = [printable(f"{found.schema_name} ({found.state})") for found in looked_at if not found.is_ready]
    except Exception as error:  # noqa: BLE001 - whatever it is, the command that asked has to go on
        return [] if is_undefined(error) else [_unready(f"It can't be found out which tenants are ready: {error}")]
    if not unready:
        return []
    rest = len(unready) - SHOWN
    names = ", ".join(unready[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    return [
        _unready(f"{len(unready)} of {len(kinds)} schemas are not ready, and nothing is served from them: {names}.")
    ]


def _unready(message: str) -> CheckMessage:
    return Warning(message, hint="Run python manage.py verify_tenant_migrations --fix.", id="tenant_messaging.W019")
