"""Keeping the online status of this process's users in step with their sockets."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ..actions import expire_connections, renew_connections, renew_connections_of, store_connections
from ..conf import messaging_settings
from ..exceptions import MessagingError, Unavailable
from ..tenancy import public_schema, run_in_tenant
from .together import MAX_TENANTS, PATIENCE, ask_together

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser

    from .hub import Hub

logger = logging.getLogger(__name__)

Key = tuple[str, str]

MAX_BATCH = 500
SPACING = 0.2
"""Seconds between two times that a tenant's changes are stored: who comes meanwhile is stored, and told, together."""


class PresenceKeeper:
    """Counts a user once however many sockets there are.

    For each tenant one task compares what is stored with what is true, for all users of whom that may have changed at
    once, until they agree: connecting and disconnecting in quick succession can't be stored in the wrong order. It
    lasts until nothing has changed for ``SPACING``: a crowd that comes costs each client a few frames.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._online: dict[Key, AbstractBaseUser] = {}
        self._unsettled: defaultdict[str, dict[str, AbstractBaseUser]] = defaultdict(dict)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._hurry = asyncio.Event()

    @property
    def online_count(self) -> int:
        """How many users the database counts as online because of this process."""
        return len(self._online)

    def sockets_changed(self, schema_name: str, user: AbstractBaseUser) -> None:
        """A socket of the user came or went."""
        self._unsettled[schema_name][str(user.pk)] = user
        if schema_name not in self._tasks:
            self._tasks[schema_name] = asyncio.create_task(self._settle(schema_name))

    async def settled(self, patience: float) -> None:
        """Wait, at most so many seconds, until what is stored is true."""
        self._hurry.set()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=patience)
        self._hurry.clear()

    async def _settle(self, schema_name: str) -> None:
        unsettled = self._unsettled[schema_name]
        try:
            while unsettled:
                users = {user_id: unsettled.pop(user_id) for user_id in list(unsettled)[:MAX_BATCH]}
                if await self._store(schema_name, users) and len(unsettled) < MAX_BATCH:
                    await self._pause()
        except MessagingError as error:
            logger.warning("[%s] Who is online couldn't be stored: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Who is online couldn't be stored.", schema_name)
        finally:
            del self._tasks[schema_name], self._unsettled[schema_name]

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SPACING):
                await self._hurry.wait()

    async def _store(self, schema_name: str, users: dict[str, AbstractBaseUser]) -> bool:
        """Store what is true of users; say whether anything was to be stored."""
        opened: dict[Key, AbstractBaseUser] = {}
        closed: dict[Key, AbstractBaseUser] = {}
        for user_id, user in users.items():
            key = schema_name, user_id
            if key in self._hub.sockets:
                if key not in self._online:
                    opened[key] = user
            elif self._online.pop(key, None) is not None:
                # Taken out first: what can't be stored isn't renewed either, so that it runs out by itself.
                closed[key] = user
        if not opened and not closed:
            return False
        store = partial(store_connections, opened=opened.values(), closed=closed.values(), process=self._hub.process)
        await run_in_tenant(schema_name, store)
        self._online.update(opened)
        return True

    async def renew_forever(self) -> None:
        """Keep the connected online, one statement for many tenants, and take those offline whose process died.

        A connection that doesn't answer keeps up nobody for more than ``PATIENCE`` seconds.
        """
        while True:
            await asyncio.sleep(messaging_settings.PRESENCE_TTL * 0.4)
            for (schema_name, user_id), sockets in self._hub.sockets.items():
                if (schema_name, user_id) not in self._online:
                    # It couldn't be stored when they came.
                    self.sockets_changed(schema_name, next(iter(sockets)).user)
            users: defaultdict[str, list[Any]] = defaultdict(list)
            for (schema_name, _user_id), user in self._online.items():
                users[schema_name].append(user.pk)
            names = sorted(users)
            for start in range(0, len(names), MAX_TENANTS):
                some = {name: users[name] for name in names[start : start + MAX_TENANTS]}
                await self._hub.begun(self._renew(some), PATIENCE)

    async def _renew(self, users: dict[str, list[Any]]) -> None:
        """Renew tenants in one statement, and by themselves those in which that doesn't do."""
        renew = partial(renew_connections_of, process=self._hub.process)
        try:
            alone = await run_in_tenant(public_schema(), ask_together, renew, users)
        except Unavailable as error:
            logger.warning("Who is online in %s tenants couldn't be renewed: %s", len(users), error)
            return
        except Exception as error:  # noqa: BLE001 - each is told its own below
            logger.debug("Renewing who is online in %s tenants together failed: %r", len(users), error)
            alone = set(users)
        for schema_name in alone:
            await self._hub.begun(self._renew_alone(schema_name, users[schema_name]), PATIENCE)

    async def _renew_alone(self, schema_name: str, keys: list[Any]) -> None:
        try:
            await run_in_tenant(schema_name, _renew_and_expire, keys, self._hub.process)
        except MessagingError as error:
            logger.warning("[%s] Online statuses couldn't be renewed: %s", schema_name, error)
        except Exception:
            logger.exception("[%s] Online statuses couldn't be renewed.", schema_name)


def _renew_and_expire(user_keys: Collection[Any], process: str) -> None:
    renew_connections(user_keys, process=process)
    expire_connections()
