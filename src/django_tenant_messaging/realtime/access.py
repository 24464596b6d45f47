"""Closing the connections of those who lost the right to have one."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady
from ..tenancy import forget_readiness, public_schema, run_in_tenant
from .close_codes import CloseCode
from .rights import Connected, lost_rights, may_look_together, plainly_stay
from .together import MAX_TENANTS, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .hub import Hub
    from .socket import Socket

logger = logging.getLogger(__name__)

PARTS = 12
"""Parts into which the regular looks of an interval are spread."""
HANDSHAKE = 60.0
"""Seconds that a handshake takes at most."""
FEW_SOCKETS = 50
"""Most sockets of a tenant that are looked at together."""


class AccessKeeper:
    """Looks whether those who are connected still may be: when something says that they may not, and regularly."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._changed_at = -math.inf
        self._large: set[str] = set()
        self._ended: dict[str, float] = {}
        """When logins ended (monotonic) with which a handshake may be under way: not every session tells it."""
        self._all_are_due = asyncio.Event()
        self._looked_at_alone: set[str] = set()

    def let_in(self, socket: Socket, asked_at: float) -> None:
        """Look at a fresh socket again if its user may have lost the right to it since it asked (monotonic)."""
        if socket.standing.login.mark in self._ended:
            socket.close(CloseCode.UNAUTHENTICATED)
            return
        heard_since = self._hub.link.listens_since(socket.schema_name)
        if max(self._changed_at, heard_since) >= asked_at:
            self._hub.spawn(self._recheck(socket.schema_name, [socket]))

    def user_changed(self, schema_name: str, user_id: str) -> None:
        """Look at the sockets of a user, in every tenant if none is named; at all of a tenant's if no user is."""
        self._changed_at = time.monotonic()
        by_tenant: defaultdict[str, list[Socket]] = defaultdict(list)
        for (schema, user), sockets in self._hub.sockets.items():
            if schema_name in {"", schema} and user_id in {"", user}:
                by_tenant[schema].extend(sockets)
        if schema_name:
            for schema, found in by_tenant.items():
                self._hub.spawn(self._recheck(schema, found))
        else:
            for due in _divided(by_tenant):
                self._hub.spawn(self._look_at_once(due))

    def tenant_changed(self, schema_name: str) -> None:
        """Look at a tenant itself, and at all its sockets."""
        forget_readiness(schema_name)
        self.user_changed(schema_name, "")

    def login_ended(self, schema_name: str, mark: str) -> None:
        """Close the sockets that were opened with a login; it is one of any tenant if none is named."""
        self._changed_at = now = time.monotonic()
        self._remember_ended(mark, now)
        for schema in [schema_name] if schema_name else self._hub.schemas():
            for socket in self._hub.sockets_of(schema):
                if socket.standing.login.mark == mark:
                    socket.close(CloseCode.UNAUTHENTICATED)

    def _remember_ended(self, mark: str, now: float) -> None:
        self._ended.pop(mark, None)
        self._ended[mark] = now
        while self._ended[oldest := next(iter(self._ended))] < now - HANDSHAKE:
            del self._ended[oldest]

    def recheck_all(self) -> None:
        """Look at every socket soon, because what was said elsewhere may not have been heard."""
        self._changed_at = time.monotonic()
        self._all_are_due.set()

    async def make_up_forever(self) -> None:
        """Look at every socket once in ``RECONCILE_INTERVAL``, as long as other processes may go unheard.

        Where that takes longer than half of the interval it pauses for as long as it took.
        """
        took = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(took, messaging_settings.RECONCILE_INTERVAL - took)):
                    await self._all_are_due.wait()
            began = time.monotonic()
            # Asked each time: it is also what makes the link forget what it missed before.
            if self._hub.link.may_have_missed() or self._all_are_due.is_set():
                self._all_are_due.clear()
                await self._look_at_all()
            took = time.monotonic() - began

    async def _look_at_all(self) -> None:
        by_tenant: defaultdict[str, list[Socket]] = defaultdict(list)
        for (schema_name, _user_id), sockets in self._hub.sockets.items():
            # A tenant that doesn't answer keeps nobody waiting but itself, and isn't asked again and again.
            if schema_name not in self._looked_at_alone:
                by_tenant[schema_name].extend(sockets)
        for due in _divided(by_tenant):
            unclear = await self._unclear(due)
            await self._hub.begun(self._look_at_each(unclear), PATIENCE)

    async def _look_at_each(self, unclear: dict[str, list[Socket]]) -> None:
        self._looked_at_alone.update(unclear)
        await asyncio.gather(*(self._look_at_alone(schema, sockets) for schema, sockets in unclear.items()))

    async def _look_at_alone(self, schema_name: str, sockets: list[Socket]) -> None:
        try:
            await self._recheck(schema_name, sockets)
        finally:
            self._looked_at_alone.discard(schema_name)

    async def run_forever(self) -> None:
        """Look at each tenant's sockets once in ``ACCESS_RECHECK_INTERVAL``.

        A connection that doesn't answer keeps up nobody for more than ``PATIENCE`` seconds.
        """
        part = 0
        while True:
            await asyncio.sleep(messaging_settings.ACCESS_RECHECK_INTERVAL / PARTS)
            part = (part + 1) % PARTS
            for due in _divided(self._due(part)):
                for schema_name, sockets in (await self._unclear(due)).items():
                    await self._hub.begun(self._recheck(schema_name, sockets), PATIENCE)

    async def _look_at_once(self, due: dict[str, list[Socket]]) -> None:
        """Look at some tenants, at the unclear ones at the same time: it mustn't take long."""
        for schema_name, sockets in (await self._unclear(due)).items():
            self._hub.spawn(self._recheck(schema_name, sockets))

    async def _unclear(self, due: dict[str, list[Socket]]) -> dict[str, list[Socket]]:
        """Look at some tenants together, and return the sockets that have to be looked at in their tenant by itself."""
        unclear = dict(due)
        if may_look_together():
            await self._hub.begun(self._take_out(unclear), PATIENCE)
        return dict(unclear)

    async def _take_out(self, due: dict[str, list[Socket]]) -> None:
        """Take out of those who are due whoever plainly may stay; nobody if that can't be told together."""
        connected = {schema_name: _connected(sockets) for schema_name, sockets in due.items()}
        try:
            staying = await run_in_tenant(public_schema(), plainly_stay, connected)
        except Exception as error:  # noqa: BLE001 - each is told its own when it is looked at by itself
            logger.debug("Looking at %s tenants together failed: %r", len(due), error)
            return
        for schema_name, stays in staying.items():
            unclear = [socket for socket, is_clear in zip(due.pop(schema_name), stays, strict=True) if not is_clear]
            if unclear:
                due[schema_name] = unclear

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

    async def _recheck(self, schema_name: str, sockets: Sequence[Socket]) -> None:
        try:
            lost = await run_in_tenant(schema_name, lost_rights, schema_name, _connected(sockets))
        except TenantNotReady as error:
            self._hub.close_tenant(schema_name, error.readiness)
            return
        except MessagingError as error:
            logger.warning("[%s] Who may stay connected couldn't be found out: %s", schema_name, error)
            return
        except Exception:
            logger.exception("[%s] Who may stay connected couldn't be found out.", schema_name)
            return
        for socket, reason in zip(sockets, lost, strict=True):
            if reason is not None:
                logger.info("[%s] A socket of user %r is closed: %s", schema_name, socket.user_id, reason.name)
                socket.close(reason)


def _connected(sockets: Sequence[Socket]) -> list[Connected]:
    return [Connected(socket.scope, socket.standing) for socket in sockets]


def _divided(due: dict[str, list[Socket]]) -> Iterator[dict[str, list[Socket]]]:
    tenants = iter(due.items())
    while some := dict(islice(tenants, MAX_TENANTS)):
        yield some
