"""The migration gate of HTTP: what isn't known to be ready isn't served."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.signals import got_request_exception

from .conf import require_valid_settings
from .tenancy import public_schema
from .tenancy.gate import check_is_bypassed, hindrance, hindrance_after, known_to_be_ready
from .web.health import is_migration_health, migration_health
from .web.not_ready import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .types import Readiness

logger = logging.getLogger(__name__)

MET = "_tenant_messaging_error"
"""The attribute of a request that holds an error that some other middleware, or Django, made into a 500."""


class TenantMigrationCheckMiddleware:
    """Answers 503, and why, to every request of a tenant whose schema isn't fully migrated.

    It belongs right after the tenant middleware, under WSGI and ASGI alike. It costs no query while the tenant is known
    to be ready, and one for each schema when that has to be found out. A request that meets a missing table is answered
    by the same 503 instead of a 500. The health view is served in any case. A request without a tenant is one of the
    shared schema. With a wrong value in ``TENANT_MESSAGING`` it raises ``ImproperlyConfigured`` when the server starts.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        require_valid_settings()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(keep_error, dispatch_uid="tenant_messaging_keep_error")

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve the request, or refuse it."""
        if self._is_async:
            return self._serve(request)
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        response: HttpResponseBase = self.get_response(request)
        return self._instead_of(request, response) if MET in request.__dict__ else response

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        # What is known is asked here, as a thread for it would cost more than all the rest.
        if not (check_is_bypassed() or known_to_be_ready(_schema_of(request))):
            refusal = await sync_to_async(self._refusal)(request)
            if refusal is not None:
                return refusal
        response: HttpResponseBase = await self.get_response(request)
        return await sync_to_async(self._instead_of)(request, response) if MET in request.__dict__ else response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Refuse a request whose view failed because the tenant isn't ready, as nobody knew yet."""
        found = hindrance_after(exception, _schema_of(request))
        return self._refusal_after(request, found, exception) if found is not None else None

    def _refusal(self, request: HttpRequest) -> HttpResponseBase | None:
        found = hindrance(_schema_of(request))
        return refuse(request, found) if found is not None and not is_migration_health(request) else None

    def _instead_of(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Answer a 503 instead of a 500 that comes from another middleware, or from rendering, if that is why."""
        error = request.__dict__.pop(MET)
        found = hindrance_after(error, _schema_of(request)) if response.status_code == 500 else None
        return self._refusal_after(request, found, error) if found is not None else response

    def _refusal_after(self, request: HttpRequest, found: Readiness, error: BaseException) -> HttpResponseBase:
        logger.warning("[%s] A request met a schema that isn't ready.", found.schema_name, exc_info=error)
        return refuse(request, found)


class MigrationHealthMiddleware:
    """Answers the health view's address before anything else does. Optional, and the first of all if used.

    The tenant middleware asks the database whose a host name is. A probe that knows no tenant's host name, or that
    comes while the database is down, gets its answer only here. The address is that of ``ROOT_URLCONF``.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        require_valid_settings()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer the health view's address, and leave all others to the rest."""
        if self._is_async:
            return self._serve(request)
        response: HttpResponseBase = migration_health(request) if _is_probe(request) else self.get_response(request)
        return response

    async def _serve(self, request: HttpRequest) -> HttpResponseBase:
        if _is_probe(request):
            return await sync_to_async(migration_health)(request)
        response: HttpResponseBase = await self.get_response(request)
        return response


def keep_error(request: HttpRequest | None = None, **_kwargs: Any) -> None:
    """Keep the error that Django is about to answer by a 500."""
    error = sys.exc_info()[1]
    if request is not None and error is not None:
        request.__dict__[MET] = error


def _is_probe(request: HttpRequest) -> bool:
    # Resolving costs more than looking at the end of the address, which hosts can't change.
    return request.path_info.endswith("/migrations/") and is_migration_health(request)


def _schema_of(request: HttpRequest) -> str:
    name: str | None = getattr(getattr(request, "tenant", None), "schema_name", None)
    return name or public_schema()
