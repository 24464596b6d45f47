"""Waiting for rooms that somebody has locked, so that it keeps no other room waiting."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ..conf import messaging_settings
from ..exceptions import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Turns:
    """Who may take a thread in which to wait for a room's lock.

    Such a wait takes one of the few threads that a tenant may have, for up to ``LOCK_TIMEOUT``. So one room takes one,
    and all rooms of a tenant no more than a quarter of the process's: the tenant's other threads read, and send to
    where nothing is locked.
    """

    def __init__(self) -> None:
        self._rooms: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of_room(self, schema_name: str, room_id: int) -> AsyncIterator[None]:
        """Enter with a statement that waits for a room if that is locked; who asked first comes first.

        Raises :class:`~django_tenant_messaging.exceptions.Unavailable` after ``LOCK_TIMEOUT`` seconds without a turn.
        """
        room = self._rooms.setdefault((schema_name, room_id), asyncio.Lock())
        threads = asyncio.Semaphore(max(1, messaging_settings.DATABASE_THREADS // 4))
        threads = self._tenants.setdefault(schema_name, threads)
        async with AsyncExitStack() as taken:
            try:
                async with asyncio.timeout(messaging_settings.LOCK_TIMEOUT):
                    await taken.enter_async_context(room)
                    await taken.enter_async_context(threads)
            except TimeoutError:
                raise Unavailable("The room is locked by others; try again.") from None
            yield
