"""The dice of a run, and how to wait for what they bring."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

chance = random.Random()  # noqa: S311 - no secret


async def until(is_true: Callable[[], bool], patience: float) -> bool:
    """Wait until something is true, at most `patience` seconds; say whether it is."""
    deadline = monotonic() + patience
    while not is_true():
        if monotonic() > deadline:
            return False
        # What changes is changed in many places, none of which should have to know who waits.
        await asyncio.sleep(0.05)
    return True


async def sleep_until(moment: float) -> None:
    """Sleep until a time of the monotonic clock."""
    await asyncio.sleep(max(0.0, moment - monotonic()))
