"""Keeping the hints of a batch together, so that they are handed out in one go with its answers."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hints import Hint

_gathered: ContextVar[list[Hint] | None] = ContextVar("gathered_hints", default=None)


@contextmanager
def gathered_hints() -> Iterator[list[Hint]]:
    """Gather what is published in the body, also by work that it has done in a thread, in the list that it gets."""
    hints: list[Hint] = []
    token = _gathered.set(hints)
    try:
        yield hints
    finally:
        _gathered.reset(token)


def gather(hints: list[Hint]) -> bool:
    """Add hints to those that are being gathered; say whether that is so."""
    gathered = _gathered.get()
    if gathered is None:
        return False
    gathered += hints
    return True
