"""Keeping the online status of this process's users in step with their sockets."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..actions import connection_closed, connection_opened, expire_connections, renew_connections
from ..conf import messaging_settings
from ..exceptions import MessagingError
from ..tenancy import run_in_tenant

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from .hub import Hub

logger = logging.getLogger(__name__)

Key = tuple[str, str]


class PresenceKeeper:
    """Counts a user once however many sockets there are.

    For each user one task compares what is stored with what is true, until they agree: connecting and disconnecting
    in quick succession can't be stored in the wrong order.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._online: dict[Key, AbstractBaseUser] = {}
        self._settling: set[Key] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def online_count(self) -> int:
        """How many users the database counts as online because of this process."""
        return len(self._online)

    def sockets_changed(self, schema_name: str, user: AbstractBaseUser) -> None:
        """A socket of the user came or went."""
        key = schema_name, str(user.pk)
        if key not in self._settling:
            self._settling.add(key)
            task = asyncio.create_task(self._settle(key, user))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def settled(self, patience: float) -> None:
        """Wait, at most so many seconds, until what is stored is true."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)

    async def _settle(self, key: Key, user: AbstractBaseUser) -> None:
        try:
            while (key in self._hub.sockets) != (key in self._online):
                if key in self._hub.sockets:
                    await run_in_tenant(key[0], connection_opened, user, process=self._hub.process)
                    self._online[key] = user
                else:
                    # First: what can't be stored isn't renewed either, so that it runs out by itself.
                    self._online.pop(key, None)
                    await run_in_tenant(key[0], connection_closed, user, process=self._hub.process)
        except MessagingError as error:
            logger.warning("[%s] The status of user %s couldn't be stored: %s", key[0], key[1], error)
        finally:
            self._settling.discard(key)

    async def renew_forever(self) -> None:
        """Keep the connected online, one statement for each tenant, and take those offline whose process died."""
        while True:
            await asyncio.sleep(messaging_settings.PRESENCE_TTL * 0.4)
            for (schema_name, user_id), sockets in self._hub.sockets.items():
                if (schema_name, user_id) not in self._online:
                    # It couldn't be stored when they came.
                    self.sockets_changed(schema_name, next(iter(sockets)).user)
            users: defaultdict[str, list[Any]] = defaultdict(list)
            for (schema_name, _user_id), user in self._online.items():
                users[schema_name].append(user.pk)
            for schema_name, keys in users.items():
                try:
                    await run_in_tenant(schema_name, renew_connections, keys, process=self._hub.process)
                    await run_in_tenant(schema_name, expire_connections)
                except MessagingError as error:
                    logger.warning("[%s] Online statuses couldn't be renewed: %s", schema_name, error)
