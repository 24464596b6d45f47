"""Counting what a client asked and wasn't answered yet."""

from __future__ import annotations

import asyncio


class Unanswered:
    """How many sends of a client are on their way."""

    __slots__ = ("_fewer", "number")

    def __init__(self) -> None:
        self.number = 0
        self._fewer: asyncio.Event | None = None

    def began(self) -> None:
        """A send is on its way."""
        self.number += 1

    def ended(self) -> None:
        """A send was answered."""
        self.number -= 1
        if self._fewer is not None:
            self._fewer.set()
            self._fewer = None

    async def at_most(self, number: int) -> None:
        """Wait until no more than so many are on their way."""
        while self.number > number:
            if self._fewer is None:
                self._fewer = asyncio.Event()
            await self._fewer.wait()
