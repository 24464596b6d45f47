"""Letting in who connects: what is read for it is read for all who come at the same time."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..exceptions import RateLimited, TenantNotReady, Unavailable
from ..signals import tenant_refused
from ..tenancy import handshake_request, public_schema, run_in_tenant
from .batching import Batches
from .callers import is_too_large
from .close_codes import CloseCode
from .handshake import find_tenants, find_together, identify, identify_together, may_identify_together

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from django.http import HttpRequest

    from ..tenancy import Tenant
    from .callers import Callers
    from .handshake import Standing

logger = logging.getLogger(__name__)

MAX_GUESSES = 10_000
"""Most Host headers of which is kept where they led."""


class Arrivals:
    """The handshakes of a process."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], object], callers: Callers) -> None:
        self._callers = callers
        self._tenants: Batches[HttpRequest, Tenant | CloseCode] = Batches(spawn, find_tenants)
        self._standings: Batches[HttpRequest, Standing | None] = Batches(spawn, identify_together)
        self._found: Batches[HttpRequest, tuple[Tenant | CloseCode, Standing | None]] = Batches(spawn, find_together)
        self._guesses: dict[str, str] = {}
        """The schema that each Host header last led to: where to ask, never the answer."""

    async def admit(self, scope: Mapping[str, Any]) -> tuple[str, Standing] | CloseCode:
        """Return the tenant's schema and who connects, or why they may not.

        Raises :class:`~django_tenant_messaging.exceptions.RateLimited` before anything is read for it.
        """
        if is_too_large(scope):
            return CloseCode.FRAME_TOO_LARGE
        try:
            # The one reading of headers and cookies: what is charged is what is looked up.
            request = handshake_request(scope)
            self._callers.charge(scope, request)
            admitted = await self._find(request)
        except RateLimited:
            raise
        except TenantNotReady as error:
            tenant_refused.send_robust(None, readiness=error.readiness, face="websocket")
            return CloseCode.UNAVAILABLE
        except Unavailable:
            return CloseCode.UNAVAILABLE
        except Exception:
            logger.exception("A handshake failed.")
            return CloseCode.UNAVAILABLE
        if isinstance(admitted, CloseCode):
            self._callers.refused(scope, request)
        else:
            self._callers.let_in(request)
        return admitted

    async def _find(self, request: HttpRequest) -> tuple[str, Standing] | CloseCode:
        host = request.META.get("HTTP_HOST", "")
        guess = self._guesses.get(host)
        tenant, standing = await self._find_at(guess, request)
        if isinstance(tenant, CloseCode):
            return tenant
        if len(self._guesses) >= MAX_GUESSES:
            self._guesses.clear()
        self._guesses[host] = tenant.schema_name
        if standing is None and tenant.schema_name != guess and may_identify_together():
            standing = await self._standings.ask(tenant.schema_name, request)
        found: Standing | CloseCode | None = standing
        if found is None:
            found = await run_in_tenant(tenant.schema_name, identify, tenant.schema_name, request)
        return found if isinstance(found, CloseCode) else (tenant.schema_name, found)

    async def _find_at(self, guess: str | None, request: HttpRequest) -> tuple[Tenant | CloseCode, Standing | None]:
        """Read which tenant is asked for, and in the same call who asks, if it is the tenant that is guessed."""
        if guess is not None and may_identify_together():
            with suppress(TenantNotReady):
                return await self._found.ask(guess, request)
        return await self._tenants.ask(public_schema(), request), None
