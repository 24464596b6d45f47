"""Closing the connections of those who lost the right to have one."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady
from ..tenancy import forget_readiness, handshake_request, run_in_tenant, session_hash
from .close_codes import CloseCode
from .handshake import find_tenants, live_sessions, standing_lost
from .together import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .handshake import Standing
    from .hub import Hub
    from .socket import Socket

logger = logging.getLogger(__name__)

PARTS = 12
"""Parts into which the regular looks of an interval are spread."""
FEW_SOCKETS = 50
"""Most sockets of a tenant that are looked at together."""


class AccessKeeper:
    """Looks whether those who are connected still may be: when something says that they may not, and regularly."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._changed_at = -math.inf
        self._large: set[str] = set()

    def let_in(self, socket: Socket, asked_at: float) -> None:
        """Look at a fresh socket again if its user may have lost the right to it since it asked (monotonic)."""
        heard_since = self._hub.link.listens_since(socket.schema_name)
        if max(self._changed_at, heard_since) >= asked_at:
            self._hub.spawn(self._recheck(socket.schema_name, [socket]))

    def user_changed(self, schema_name: str, user_id: str) -> None:
        """Look at the sockets of a user; in every tenant if none is named, at all of a tenant's if no user is."""
        self._changed_at = time.monotonic()
        by_tenant: defaultdict[str, list[Socket]] = defaultdict(list)
        for (schema, user), sockets in self._hub.sockets.items():
            if schema_name in {"", schema} and user_id in {"", user}:
                by_tenant[schema].extend(sockets)
        for schema, found in by_tenant.items():
            self._hub.spawn(self._recheck(schema, found))

    def tenant_changed(self, schema_name: str) -> None:
        """Look at a tenant itself, and at all its sockets."""
        forget_readiness(schema_name)
        self.user_changed(schema_name, "")

    def session_ended(self, schema_name: str, hashed: str) -> None:
        """Close the sockets that were opened with a session."""
        self._changed_at = time.monotonic()
        for socket in self._hub.sockets_of(schema_name):
            if session_hash(socket.standing.session_key) == hashed:
                socket.close(CloseCode.UNAUTHENTICATED)

    def recheck_all(self) -> None:
        """Look at every socket, because what is said elsewhere isn't heard."""
        self.user_changed("", "")

    async def run_forever(self) -> None:
        """Look at each tenant's sockets once in ``ACCESS_RECHECK_INTERVAL``.

        A connection that doesn't answer keeps up nobody for more than ``PATIENCE`` seconds.
        """
        part = 0
        while True:
            await asyncio.sleep(messaging_settings.ACCESS_RECHECK_INTERVAL / PARTS)
            part = (part + 1) % PARTS
            for schema_name, due in self._due(part).items():
                await self._hub.begun(self._recheck(schema_name, due), PATIENCE)

    def _due(self, part: int) -> dict[str, list[Socket]]:
        """Return by tenant the sockets to look at now: those of a small tenant together, as one costs what few do.

        A tenant that has become large or small is looked at as a whole, so that no socket waits longer for it.
        """
        by_tenant: defaultdict[str, list[Socket]] = defaultdict(list)
        for (schema_name, _user_id), sockets in self._hub.sockets.items():
            by_tenant[schema_name] += sockets
        large = {schema_name for schema_name, sockets in by_tenant.items() if len(sockets) > FEW_SOCKETS}
        changed, self._large = self._large ^ large, large
        due: dict[str, list[Socket]] = {}
        for schema_name, of_tenant in by_tenant.items():
            if schema_name in large - changed:
                due[schema_name] = [socket for socket in of_tenant if hash(socket) % PARTS == part]
            elif schema_name in changed or hash(schema_name) % PARTS == part:
                due[schema_name] = of_tenant
        return {schema_name: found for schema_name, found in due.items() if found}

    async def _recheck(self, schema_name: str, sockets: Collection[Socket]) -> None:
        try:
            # All of a tenant's domains, whichever was used by whom.
            scopes = {_host(socket.scope): socket.scope for socket in sockets}
            standings = [socket.standing for socket in sockets]
            served, lost = await run_in_tenant(schema_name, _lost_rights, scopes, standings, schema_name)
        except TenantNotReady as error:
            self._hub.close_tenant(schema_name, error.readiness)
            return
        except MessagingError as error:
            logger.warning("[%s] Who may stay connected couldn't be found out: %s", schema_name, error)
            return
        except Exception:
            logger.exception("[%s] Who may stay connected couldn't be found out.", schema_name)
            return
        for socket, code in zip(sockets, lost, strict=True):
            reason = code if _host(socket.scope) in served else CloseCode.UNKNOWN_TENANT
            if reason is not None:
                logger.info("[%s] A socket of user %s is closed: %s", schema_name, socket.user_id, reason.name)
                socket.close(reason)


def _host(scope: Mapping[str, Any]) -> bytes:
    return b",".join(value for name, value in scope["headers"] if name == b"host")


def _lost_rights(
    scopes: Mapping[bytes, Mapping[str, Any]], standings: Collection[Standing], schema_name: str
) -> tuple[set[bytes], list[CloseCode | None]]:
    return _served_hosts(scopes, schema_name), _lost_standings(standings, schema_name)


def _served_hosts(scopes: Mapping[bytes, Mapping[str, Any]], schema_name: str) -> set[bytes]:
    found = find_tenants(schema_name, [handshake_request(scope) for scope in scopes.values()])
    return {
        host
        for host, tenant in zip(scopes, found, strict=True)
        if not isinstance(tenant, CloseCode) and tenant.schema_name == schema_name
    }


def _lost_standings(standings: Collection[Standing], schema_name: str) -> list[CloseCode | None]:
    """Return for each why they may not stay; two queries where sessions are rows."""
    keys = {standing.user.pk for standing in standings}
    users: dict[Any, Any] = get_user_model()._default_manager.in_bulk(keys)
    sessions = live_sessions({standing.session_key for standing in standings if standing.session_key})
    return [
        CloseCode.UNAUTHENTICATED
        if standing.session_key and standing.session_key not in sessions
        else standing_lost(standing, users.get(standing.user.pk), schema_name)
        for standing in standings
    ]
