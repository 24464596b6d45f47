"""Watching the tenants' migrations from outside."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.http import Http404, JsonResponse
from django.urls import resolve
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..conf import messaging_settings
from ..tenancy import readiness_of_all
from ..tenancy.gate import check_is_bypassed
from ..types import SchemaState
from .details import may_see
from .protection import protect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest

    from ..types import Readiness

logger = logging.getLogger(__name__)


# In a transaction nothing that is found may be kept, and each poll would look at every schema.
@transaction.non_atomic_requests
@never_cache
@require_safe
def migration_health(request: HttpRequest) -> JsonResponse:
    """Answer as JSON whether every tenant is ready: 200 and the ``status`` ``ok``, else 503 and ``not_ready``.

    Those whom ``SHOW_HEALTH_DETAILS`` lets are told more. ``status`` is ``unavailable``, and ``error`` says why, when
    it couldn't be found out, such as while the database is down. ``totals`` counts the schemas of each state, the
    shared one included, ``tenants`` says which aren't ready and why, and ``check_disabled`` whether
    ``DISABLE_MIGRATION_CHECK`` lets unready tenants be served. One small query while all is known. Never raises.
    """
    try:
        details = _details(readiness_of_all())
    except Exception as error:  # noqa: BLE001 - whatever keeps us from knowing
        logger.warning("The migrations' health can't be told: %s", error)
        details = {"status": "unavailable", "error": str(error)}
    is_well = details["status"] == "ok"
    if may_see(request, messaging_settings.SHOW_HEALTH_DETAILS):
        answer = {**details, "check_disabled": check_is_bypassed()}
    else:
        answer = {"status": "ok" if is_well else "not_ready"}
    response = JsonResponse(answer, status=200 if is_well else 503)
    protect(response)
    return response


def is_migration_health(request: HttpRequest) -> bool:
    """Say whether a request's address is that of :func:`migration_health`, which a host may have decorated."""
    try:
        match = resolve(request.path_info, urlconf=getattr(request, "urlconf", None))
    except Http404:
        return False
    except Exception:
        logger.exception("The host's addresses can't be resolved.")
        return False
    return inspect.unwrap(match.func) is inspect.unwrap(migration_health)


def _details(found: Mapping[str, Readiness]) -> dict[str, Any]:
    totals = Counter(readiness.state for readiness in found.values())
    unready = [readiness for readiness in found.values() if not readiness.is_ready]
    return {
        "status": "not_ready" if unready else "ok",
        "totals": {state.value: totals[state] for state in SchemaState},
        "tenants": [_shown(readiness) for readiness in unready],
    }


def _shown(readiness: Readiness) -> dict[str, Any]:
    return {
        "schema": readiness.schema_name,
        "state": readiness.state.value,
        "reason": readiness.reason,
        "missing_migrations": readiness.missing_migrations,
        "missing_relations": readiness.missing_relations,
        "differences": readiness.differences,
        "apps": readiness.apps,
        "remedy": readiness.remedy,
    }
