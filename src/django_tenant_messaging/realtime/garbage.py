"""Keeping Python's search for garbage from stopping a server that holds many connections."""

from __future__ import annotations

import gc
import time
from typing import Any

from ..conf import messaging_settings

FEWEST_ENDED = 1_000
"""Connections that have to end before what was put aside is taken back."""
LONGEST_ASIDE = 3_600.0
"""Seconds after which it is in any case."""


class GarbageKeeper:
    """Puts aside what lives long, so that a full collection doesn't look through all of it again and again.

    A full collection takes some 0.7 microseconds for each object, and everybody waits for it. A connection is about a
    hundred objects, most of them the server's: ten thousand connections stop a process for a second each time. So what
    is left of a collection that took longer than ``COLLECTION_PAUSE`` is frozen. At that moment none of it is garbage,
    and most is freed later as soon as nothing refers to it. What holds itself in a circle isn't; so all is taken back,
    to be looked through at the next collection, when as many connections have ended as there are, or after an hour.
    """

    def __init__(self) -> None:
        self._began = 0.0
        self._ended = 0
        self._frozen_at: float | None = None

    def start(self) -> None:
        """Begin to watch the collections."""
        gc.callbacks.append(self._observe)

    def stop(self) -> None:
        """Leave them alone, with nothing put aside. A second time does nothing."""
        if self._observe in gc.callbacks:
            gc.callbacks.remove(self._observe)
        self._take_back()

    def connection_ended(self) -> None:
        """A connection may have left a circle behind."""
        self._ended += 1

    def tidy(self, connections: int) -> None:
        """Take back what was put aside if it is time to, with so many connections open."""
        if self._frozen_at is None:
            self._ended = 0
        elif (
            self._ended >= max(FEWEST_ENDED, connections)
            or time.monotonic() - self._frozen_at >= LONGEST_ASIDE
            or messaging_settings.COLLECTION_PAUSE is None
        ):
            self._take_back()

    def _observe(self, phase: str, info: dict[str, Any]) -> None:
        """Called by the collector, in the thread that happened to start it."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._began = time.perf_counter()
            return
        allowed = messaging_settings.COLLECTION_PAUSE
        if allowed is not None and time.perf_counter() - self._began > allowed:
            gc.freeze()
            if self._frozen_at is None:
                self._frozen_at = time.monotonic()

    def _take_back(self) -> None:
        if self._frozen_at is not None:
            # In this order: another thread's collection may come between.
            self._frozen_at, self._ended = None, 0
            gc.unfreeze()
