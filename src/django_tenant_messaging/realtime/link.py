"""The process's one connection to the channel layer: a lossy bus for hints. Nothing depends on it for correctness."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from channels.layers import get_channel_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

logger = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT = 1.0
PUBLISH_TIMEOUT = 2.0
MAX_WAITING = 10_000
RETRY_DELAY = 0.5


class LayerLink:
    """Subscribes to groups, receives on one channel for all of them and publishes in order.

    A layer that is down is logged once; subscriptions are made up for by :meth:`repair`, lost hints by the hub's
    comparison with the database.
    """

    def __init__(self, alias: str, on_message: Callable[[Mapping[str, Any]], None]) -> None:
        self._layer: Any = get_channel_layer(alias)
        self._on_message = on_message
        self._wanted: set[str] = set()
        self._joined: set[str] = set()
        self._channel: str | None = None
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self._something_waits = asyncio.Event()
        self._subscribing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_down = False

    @property
    def is_whole(self) -> bool:
        """Whether all wanted subscriptions were made and the last use of the layer succeeded."""
        return self._layer is None or (not self._is_down and self._wanted == self._joined)

    def start(self) -> None:
        """Begin to receive and publish."""
        if self._layer is not None:
            self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._publish())]

    async def stop(self) -> None:
        """End both."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._wanted.clear()
        await self.repair()

    async def subscribe(self, groups: Iterable[str]) -> None:
        """Join groups; returns after a second at the latest, whether the layer answered or not."""
        self._wanted.update(groups)
        await self.repair()

    def unsubscribe(self, group: str) -> None:
        """Leave a group, with the next repair."""
        self._wanted.discard(group)

    async def repair(self) -> None:
        """Bring the subscriptions in line with those that are wanted."""
        if self._layer is None or self._wanted == self._joined:
            return
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT), self._subscribing:
                channel = await self._ensure_channel()
                for group in self._wanted - self._joined:
                    await self._layer.group_add(group, channel)
                    self._joined.add(group)
                for group in self._joined - self._wanted:
                    self._joined.discard(group)
                    await self._layer.group_discard(group, channel)
        except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
            self._report_down(error)

    def publish(self, group: str, message: dict[str, Any]) -> None:
        """Queue a message for a group; the oldest is dropped when too many wait."""
        if self._layer is not None:
            self._waiting.append((group, message))
            self._something_waits.set()

    async def _ensure_channel(self) -> str:
        if self._channel is None:
            self._channel = await self._layer.new_channel()
            self._joined.clear()
        return self._channel

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(await self._ensure_channel())
            except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
                self._report_down(error)
                self._channel = None
                self._joined.clear()
                await asyncio.sleep(RETRY_DELAY)
                continue
            try:
                self._on_message(message)
            except Exception:
                logger.exception("A message of the channel layer couldn't be handled.")

    async def _publish(self) -> None:
        while True:
            await self._something_waits.wait()
            while self._waiting:
                group, message = self._waiting.popleft()
                try:
                    async with asyncio.timeout(PUBLISH_TIMEOUT):
                        await self._layer.group_send(group, message)
                except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
                    self._report_down(error)
                else:
                    self._is_down = False
            self._something_waits.clear()

    def _report_down(self, error: Exception) -> None:
        if not self._is_down:
            logger.warning("The channel layer failed (%s); other processes learn from the database.", error)
        self._is_down = True
