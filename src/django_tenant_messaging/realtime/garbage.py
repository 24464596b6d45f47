"""Keeping Python's search for garbage from taking much of a server's time, and from stopping it for long."""

from __future__ import annotations

import gc
import time
from typing import Any

from ..conf import messaging_settings

YOUNG = 10_000
"""New objects after which the youngest are looked through, where Python looks after fewer: 700, or 2,000 since 3.13."""
FEWEST_ENDED = 1_000
"""Connections that have to end before what was put aside is taken back."""
LONGEST_ASIDE = 3_600.0
"""Seconds after which it is in any case."""


class GarbageKeeper:
    """Lets Python look less often, and puts aside what lives long, so that not all of it is looked through each time.

    A batch of a hundred messages is some ten thousand objects, which are freed without any search as soon as it was
    handed out. Looked at after each 700 new ones, most are met while they are in use: that took a tenth of the time of
    a busy server, and made them seem old, which called for full collections.

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
        self._thresholds: tuple[int, int, int] | None = None
        """Those that were found, if they were changed."""

    def start(self) -> None:
        """Begin to watch the collections, and make them rarer."""
        gc.callbacks.append(self._observe)
        thresholds = gc.get_threshold()
        # None at all, if the host has turned them off.
        if messaging_settings.COLLECTION_PAUSE is not None and 0 < thresholds[0] < YOUNG:
            self._thresholds = thresholds
            gc.set_threshold(YOUNG, *thresholds[1:])

    def stop(self) -> None:
        """Leave them alone, with nothing put aside. A second time does nothing."""
        if self._observe in gc.callbacks:
            gc.callbacks.remove(self._observe)
        if self._thresholds is not None:
            gc.set_threshold(*self._thresholds)
            self._thresholds = None
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
