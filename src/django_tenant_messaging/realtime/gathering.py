"""Keeping the hints of a batch together, so that they are handed out in one go with its answers."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hints import Hint

_gathered: ContextVar[Gathering | None] = ContextVar("gathered_hints", default=None)


class Gathering:
    """What is gathered, as long as it is."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self.is_open = True


@contextmanager
def gathered_hints() -> Iterator[list[Hint]]:
    """Gather what is published in the body, also by work that it has done in a thread, in the list that it gets."""
    gathering = Gathering()
    token = _gathered.set(gathering)
    try:
        yield gathering.hints
    finally:
        # Work that somebody started in there, and that goes on, remembers it.
        gathering.is_open = False
        _gathered.reset(token)


def gather(hints: list[Hint]) -> bool:
    """Add hints to those that are being gathered; say whether that is so."""
    gathering = _gathered.get()
    if gathering is None or not gathering.is_open:
        return False
    gathering.hints += hints
    return True
