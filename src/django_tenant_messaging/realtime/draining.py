"""Sending clients away one after the other, before the server stops and would drop them all at once."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
from typing import TYPE_CHECKING

from ..conf import messaging_settings
from .close_codes import CloseCode

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from .hub import Hub
    from .socket import Socket

logger = logging.getLogger(__name__)

QUICKEST = 500
"""Sockets that are closed in a second at most: that many come back to the other processes."""
PATIENCE = 2.0
"""Seconds that a socket's sends are given to be answered."""


async def drain(hub: Hub) -> None:
    """Let no socket in any more, and close those that are there in a random order over ``SHUTDOWN_SECONDS``, each once
    its sends are answered.
    """
    hub.is_draining = True
    sockets = [socket for schema_name in hub.schemas() for socket in hub.sockets_of(schema_name)]
    if not sockets:
        return
    random.shuffle(sockets)
    seconds = min(messaging_settings.SHUTDOWN_SECONDS, len(sockets) / QUICKEST)
    logger.info("%s sockets are sent to other processes within %.1f s.", len(sockets), seconds)
    async with asyncio.TaskGroup() as group:
        for number, socket in enumerate(sockets):
            group.create_task(_send_away(socket, seconds * number / len(sockets)))


async def _send_away(socket: Socket, delay: float) -> None:
    await asyncio.sleep(delay)
    try:
        async with asyncio.timeout(PATIENCE):
            await socket.unanswered.at_most(0)
    except TimeoutError:
        pass
    socket.close(CloseCode.RESTART)


class TerminationGuard:
    """Holds SIGTERM back until the sockets are drained, then lets the server have it.

    The server would close all sockets in one moment, and all clients would come back in the next. A second SIGTERM
    isn't held back. Where the server doesn't take signals by Python's own handlers nothing is held back.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._servers_handler: Any = None

    def install(self) -> None:
        """Take the server's place as the handler of SIGTERM, if this is the main thread."""
        if threading.current_thread() is threading.main_thread() and messaging_settings.SHUTDOWN_SECONDS > 0:
            self._servers_handler = signal.getsignal(signal.SIGTERM)
            if callable(self._servers_handler):
                signal.signal(signal.SIGTERM, self._on_signal)

    def uninstall(self) -> None:
        """Give the server its place back."""
        if callable(self._servers_handler) and signal.getsignal(signal.SIGTERM) == self._on_signal:
            signal.signal(signal.SIGTERM, self._servers_handler)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.uninstall()
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        from .hub import running_hub

        hub = running_hub()
        try:
            if hub is not None:
                await drain(hub)
        except Exception:
            logger.exception("The sockets couldn't be drained.")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
