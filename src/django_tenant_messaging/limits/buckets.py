"""A token bucket: how much may be asked for at once, and how soon again."""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_DEBT = 60.0
"""Seconds, besides those of its burst, for which a bucket can be emptied by what other processes report."""
QUIET_SHARE = 1 / 8
"""The part of its rate that a process grants without telling the others."""
QUIET_BURST = 1 / 2
"""The part of its burst that a process grants, beyond that, before it tells the others."""
ROUNDING = 1e-6
"""Seconds that count as none."""


class Limit(NamedTuple):
    """How much is granted: ``rate`` tokens a second, and ``burst`` at once after a pause."""

    rate: float
    burst: float


class TokenBucket:
    """Holds ``burst`` tokens at most, and gets ``rate`` of them back in each second.

    It is kept as the time at which it will be full again, so that it fills without being touched. All times are seconds
    of one monotonic clock. Who asks for more than the burst is asked for the burst: else it could never be granted.
    """

    __slots__ = ("_quiet_at", "full_at", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.full_at = -math.inf
        self._quiet_at = -math.inf

    def wait(self, tokens: float, now: float) -> float:
        """Return the seconds until so many tokens are there; 0 when they are."""
        rate, burst = self.limit
        if self.full_at <= now:
            return 0.0
        seconds = self.full_at - now - max(burst - tokens, 0) / rate
        return seconds if seconds > ROUNDING else 0.0

    def take(self, tokens: float, now: float) -> bool:
        """Take tokens that are there: see :meth:`wait`. Say whether so much was taken that others should hear of it."""
        rate, burst = self.limit
        seconds = min(tokens, burst) / rate
        self.full_at = max(self.full_at, now) + seconds
        self._quiet_at = max(self._quiet_at, now) + seconds / QUIET_SHARE
        return (self._quiet_at - now) * rate * QUIET_SHARE > burst * QUIET_BURST

    def overdraw(self, tokens: float, now: float) -> bool:
        """Take tokens, whether they are there or not; say the same as :meth:`take`."""
        is_loud = self.take(tokens, now)
        self.full_at = min(self.full_at, self._emptiest(now))
        return is_loud

    def take_away(self, tokens: float, now: float) -> None:
        """Take tokens that were granted elsewhere, whether they are there or not."""
        self.full_at = min(max(self.full_at, now) + tokens / self.limit.rate, self._emptiest(now))

    def _emptiest(self, now: float) -> float:
        return now + self.limit.burst / self.limit.rate + MAX_DEBT

    def unreported(self, now: float) -> float:
        """Return how many tokens were taken that others haven't heard of, beyond a steady ``QUIET_SHARE``."""
        return max(0.0, self._quiet_at - now) * self.limit.rate * QUIET_SHARE

    def reported(self) -> None:
        """Note that the others were told."""
        self._quiet_at = -math.inf
