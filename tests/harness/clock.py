"""A clock that stands until a test moves it."""

from __future__ import annotations


class Clock:
    """What the gate's verdicts ask for the time, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """The time, as `time.monotonic`."""
        return self.now
