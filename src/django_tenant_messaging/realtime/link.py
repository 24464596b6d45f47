"""The process's one connection to the channel layer: a lossy bus for hints. Nothing depends on it for correctness."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from channels.layers import InMemoryChannelLayer, get_channel_layer

from ..conf import messaging_settings
from ..tenancy import group_name
from .hints import Hint, rows_of
from .sealing import Message, Sealer, Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..limits import Share

logger = logging.getLogger(__name__)

SUBSCRIBE_TIMEOUT = 3.0
PUBLISH_TIMEOUT = 2.0
MAX_WAITING = 10_000
MAX_HINTS = 200
"""Most hints of one channel-layer message."""
RETRY_DELAY = 0.5
HINTS = "messaging.hints"
"""The kind of message that carries hints of a tenant."""
LIMITS = "messaging.limits"
"""The kind of message by which processes tell each other of heavy users."""
PROBE = "messaging.probe"
"""The kind of message that a process sends to itself."""
EVERYONE = "messaging.everyone"
"""The channel-layer group of all processes, for what concerns every tenant."""


def group_of(schema_name: str) -> str:
    """Return the channel-layer group of the processes that serve sockets of a tenant; of all of them without one."""
    return group_name(schema_name, "tenant", "hints") if schema_name else EVERYONE


class LayerLink:
    """Subscribes to tenants, receives on one channel for all of them and publishes in order.

    A process subscribes once for a tenant, not for each room: then what was committed together travels together, and
    connecting needs no subscription. A layer that is down is logged once; subscriptions are made up for by
    :meth:`repair`, lost hints by the hub's comparison with the database.
    """

    def __init__(self, alias: str, origin: str, on_message: Callable[[Message], None]) -> None:
        self._layer: Any = get_channel_layer(alias)
        self._sealer = Sealer()
        self._strange = Seldom()
        self._failed = Seldom()
        self._origin = origin
        self._on_message = on_message
        self._wanted: set[str] = set()
        self._joined: dict[str, float] = {}
        self._channel: str | None = None
        self._waiting: dict[str, list[Hint]] = {}
        self._number_waiting = 0
        self._shares: list[Share] = []
        self._something_waits = asyncio.Event()
        self._subscribing = asyncio.Lock()
        self._making_channel = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_down = False
        self._has_missed = False
        self._probe_group = f"messaging.process.{origin}"
        self._probes_sent = 0
        self._probe_heard = 0

    @property
    def is_local(self) -> bool:
        """Whether the layer reaches nobody outside of this process."""
        return self._layer is None or isinstance(self._layer, InMemoryChannelLayer)

    @property
    def is_whole(self) -> bool:
        """Whether all wanted subscriptions were made, and what is sent arrives as far as is known."""
        return self._layer is None or (not self._is_down and self._wanted <= self._joined.keys())

    def may_have_missed(self) -> bool:
        """Say whether other processes may have gone unheard since this was last asked.

        A layer that reaches nobody outside doesn't say whether there is nobody: commands, or workers that serve pages,
        may be there without having a socket.
        """
        is_deaf = self.is_local or not self.is_whole
        # Once more when it is over: the last thing that went unheard may be later than the answer.
        may_have, self._has_missed = self._has_missed or is_deaf, is_deaf
        return may_have

    def start(self) -> None:
        """Begin to receive and publish, and to look after the subscriptions."""
        if self._layer is not None:
            self._wanted.update((self._probe_group, EVERYONE))
            work = (self._receive(), self._publish(), self._look_after())
            self._tasks = [asyncio.create_task(part) for part in work]

    async def stop(self) -> None:
        """End it, and leave nothing in the layer: some keep for a day what a process doesn't take back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._wanted.clear()
        if not self._is_down:
            await self.repair()

    async def subscribe(self, schema_name: str) -> None:
        """Subscribe to a tenant; returns within ``SUBSCRIBE_TIMEOUT``, whether the layer answered or not.

        A layer that is known to be down is left to the next repair.
        """
        group = group_of(schema_name)
        self._wanted.add(group)
        if group not in self._joined and not self._is_down:
            await self.repair()

    def listens_since(self, schema_name: str) -> float:
        """Return since when (monotonic) what is said of a tenant is heard; infinity if it isn't."""
        return -math.inf if self._layer is None else self._joined.get(group_of(schema_name), math.inf)

    def unsubscribe(self, schema_name: str) -> None:
        """Leave a tenant, with the next repair."""
        self._wanted.discard(group_of(schema_name))

    async def repair(self) -> None:
        """Bring the subscriptions in line with those that are wanted."""
        if self._layer is None or self._wanted == self._joined.keys():
            return
        try:
            async with asyncio.timeout(SUBSCRIBE_TIMEOUT), self._subscribing:
                channel = await self._ensure_channel()
                for group in self._wanted - self._joined.keys():
                    await self._layer.group_add(group, channel)
                    self._joined[group] = time.monotonic()
                for group in self._joined.keys() - self._wanted:
                    # Somebody may have come back to it while others were being left.
                    if group not in self._wanted:
                        del self._joined[group]
                        await self._layer.group_discard(group, channel)
        except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
            self._report_down(error)

    async def probe(self) -> None:
        """Send a message to itself, having looked whether the last one came back.

        It is the only way to notice that a layer forgot the subscriptions, as Redis does when it is flushed, is gone
        while nobody says anything, or is back: that it takes messages says nothing of whether they arrive.
        """
        if self.is_local:
            return
        if self._probe_heard != self._probes_sent:
            self._report_down("what was sent doesn't arrive")
            self._joined.clear()
            await self.repair()
        elif self._probes_sent and self._is_down:
            self._is_down = False
            # Nor may others have heard what was said here.
            self.publish("", [Hint("", "access", "", "")])
        self._probes_sent += 1
        self._probe_heard = 0
        message = Message(PROBE, self._origin, self._probes_sent)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._layer.group_send(self._probe_group, self._sealer.sealed(message))
        except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
            self._report_down(error)

    def publish(self, schema_name: str, hints: list[Hint]) -> None:
        """Queue hints of a tenant; when too many wait, none of them is worth sending any more."""
        if self._layer is None:
            return
        if self._number_waiting > MAX_WAITING:
            self._forget_waiting()
        self._waiting.setdefault(schema_name, []).extend(hints)
        self._number_waiting += len(hints)
        self._something_waits.set()

    def publish_shares(self, shares: list[Share]) -> None:
        """Queue a report for all other processes; one that still waits is given up."""
        if self._layer is not None:
            self._shares = shares
            self._something_waits.set()

    async def _ensure_channel(self) -> str:
        # Whoever receives must do so on the channel that subscribes.
        async with self._making_channel:
            if self._channel is None:
                self._channel = await self._layer.new_channel()
        return self._channel

    async def _look_after(self) -> None:
        """Notice what the layer lost, and make up for it; by itself, for it takes time with a layer that hangs."""
        while True:
            interval = messaging_settings.RECONCILE_INTERVAL
            await asyncio.sleep(interval if self.is_whole else interval / 8)
            await self.repair()
            await self.probe()

    async def _receive(self) -> None:
        while True:
            try:
                message = await self._layer.receive(await self._ensure_channel())
            except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
                self._report_down(error)
                self._joined.clear()
                await asyncio.sleep(RETRY_DELAY)
                continue
            try:
                self._take(message)
            except Exception:
                if number := self._failed.count():
                    logger.exception("%s messages of the channel layer couldn't be handled, the last:", number)

    def _take(self, given: Any) -> None:
        """Act on what came, unless it is one's own, which was delivered already, or no process of this site sent it, or
        somebody sends it again.
        """
        if isinstance(given, dict) and given.get("origin") == self._origin:
            return
        message = self._sealer.opened(given)
        if message is None:
            if number := self._strange.count():
                logger.warning(
                    "%s messages of the channel layer aren't used: no process of this site sent them just now.",
                    number,
                )
        elif message.kind != PROBE:
            self._on_message(message)
        elif message.about == self._origin:
            self._probe_heard = message.content

    async def _publish(self) -> None:
        while True:
            await self._something_waits.wait()
            while self._waiting or self._shares:
                if self._shares:
                    message = Message(LIMITS, "", self._shares)
                    self._shares = []
                    await self._send([(EVERYONE, message)])
                if self._waiting:
                    schema_name = next(iter(self._waiting))
                    hints = self._waiting.pop(schema_name)
                    self._number_waiting -= len(hints)
                    await self._send(self._messages(schema_name, hints))
            self._something_waits.clear()

    def _messages(self, schema_name: str, hints: list[Hint]) -> Iterator[tuple[str, Message]]:
        for start in range(0, len(hints), MAX_HINTS):
            rows = rows_of(hints[start : start + MAX_HINTS])
            yield group_of(schema_name), Message(HINTS, schema_name, rows)

    async def _send(self, messages: Iterable[tuple[str, Message]]) -> None:
        try:
            for group, message in messages:
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    await self._layer.group_send(group, self._sealer.sealed(message, origin=self._origin))
        except Exception as error:  # noqa: BLE001 - layers raise their clients' own classes
            self._report_down(error)
            # Older than the next comparison with the database by the time the layer is back.
            self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._number_waiting = 0

    def _report_down(self, error: object) -> None:
        if not self._is_down:
            logger.warning("The channel layer failed (%s); other processes learn from the database.", error)
        self._is_down = self._has_missed = True


async def send_from_outside(layer: Any, hints: Iterable[Hint]) -> None:
    """Send hints from a process that serves no sockets."""
    of_tenant: dict[str, list[Hint]] = {}
    for hint in hints:
        of_tenant.setdefault(hint.schema_name, []).append(hint)
    sealer = Sealer()
    async with asyncio.timeout(PUBLISH_TIMEOUT):
        for schema_name, found in of_tenant.items():
            message = Message(HINTS, schema_name, rows_of(found))
            await layer.group_send(group_of(schema_name), sealer.sealed(message))
