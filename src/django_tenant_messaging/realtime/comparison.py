"""Comparing what a process follows with the database, so that nothing stays lost that the channel layer lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.db import OperationalError, connections, transaction

from ..conf import messaging_settings
from ..exceptions import MessagingError, TenantNotReady, Unavailable
from ..selectors import Asked, Heads, read_heads
from ..tenancy import TENANT_DATABASE, public_schema, require_ready, run_in_tenant

if TYPE_CHECKING:
    from .hub import Hub

logger = logging.getLogger(__name__)

MAX_TENANTS = 100
"""Most tenants of one statement."""
LOCK_TIMEOUT = "250ms"
"""How long the statement for several tenants waits for the tables of one, before each is asked by itself."""
LOCKED_OR_SLOW = {"55P03", "57014"}
"""What PostgreSQL says of a statement that was ended for its timeout: it may be one tenant's fault."""


class Comparison:
    """Reads the heads of all rooms that are followed, for many tenants in one statement, every ``RECONCILE_INTERVAL``.

    While the channel layer is down it does so up to eight times as often, but never more than a fifth of the time.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._alone: set[str] = set()

    async def run_forever(self) -> None:
        """Compare, and look after the sockets."""
        took = rechecked = 0.0
        while True:
            interval = messaging_settings.RECONCILE_INTERVAL
            if not self._hub.link.is_whole:
                interval = min(interval, max(interval / 8, 4 * took))
            await asyncio.sleep(interval)
            began = time.monotonic()
            try:
                self._hub.tidy()
                if not self._hub.link.is_whole and began - rechecked >= messaging_settings.RECONCILE_INTERVAL:
                    # What another process says of somebody's rights isn't heard.
                    rechecked = began
                    self._hub.access.recheck_all()
                await self._compare()
            except Exception:
                logger.exception("Looking after the sockets failed.")
            took = time.monotonic() - began

    async def _compare(self) -> None:
        # A tenant that is being asked by itself keeps nobody waiting but itself.
        asked = {schema_name: of for schema_name, of in self._asked().items() if schema_name not in self._alone}
        names = list(asked)
        for start in range(0, len(names), MAX_TENANTS):
            some = {schema_name: asked[schema_name] for schema_name in names[start : start + MAX_TENANTS]}
            try:
                heads = await run_in_tenant(public_schema(), _read_together, some)
            except Unavailable as error:
                logger.warning("Comparing %s tenants with the database failed: %s", len(some), error)
            except Exception as error:  # noqa: BLE001 - each is told its own below
                logger.debug("Comparing %s tenants together failed: %r", len(some), error)
                for schema_name, of_tenant in some.items():
                    self._alone.add(schema_name)
                    self._hub.spawn(self._compare_alone(schema_name, of_tenant))
            else:
                for schema_name, found in heads.items():
                    self._hub.follow(schema_name, found)

    def _asked(self) -> dict[str, Asked]:
        rooms: defaultdict[str, list[int]] = defaultdict(list)
        users: defaultdict[str, list[Any]] = defaultdict(list)
        for schema_name, room_id in self._hub.feeds:
            rooms[schema_name].append(room_id)
        for (schema_name, _user_id), sockets in self._hub.sockets.items():
            users[schema_name].append(next(iter(sockets)).user.pk)
        return {schema_name: Asked(rooms[schema_name], keys) for schema_name, keys in users.items()}

    async def _compare_alone(self, schema_name: str, asked: Asked) -> None:
        try:
            heads = await run_in_tenant(schema_name, read_heads, {schema_name: asked})
        except TenantNotReady as error:
            self._hub.close_tenant(schema_name, error.readiness)
        except MessagingError as error:
            logger.warning("[%s] Comparing with the database failed: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Comparing with the database failed.", schema_name)
        else:
            self._hub.follow(schema_name, heads[schema_name])
        finally:
            self._alone.discard(schema_name)


def _read_together(asked: dict[str, Asked]) -> dict[str, Heads]:
    for schema_name in asked:
        require_ready(schema_name)
    try:
        with transaction.atomic(using=TENANT_DATABASE):
            with connections[TENANT_DATABASE].cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            return read_heads(asked)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) in LOCKED_OR_SLOW:
            raise _OneKeepsWaiting from error
        raise


class _OneKeepsWaiting(Exception):
    """A tenant of several can't be asked in time."""
