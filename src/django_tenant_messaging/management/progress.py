"""Showing in a terminal how far a command has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")
CLEAR = "\r\x1b[K"


class Stream(Protocol):
    """Where it is shown."""

    def write(self, text: str, /, *, ending: str) -> object:
        """Write a text as it is, with this ending."""

    def flush(self) -> None:
        """Show what was written."""

    def isatty(self) -> bool:
        """Say whether somebody watches."""


class Progress:
    """A line that is rewritten as things are done, on a terminal only."""

    def __init__(self, stream: Stream, verb: str, total: int) -> None:
        self._stream = stream
        self._verb = verb
        self._total = total
        self._is_shown = stream.isatty()

    def over(self, items: Iterable[T]) -> Generator[T]:
        """Yield the items, counting them; the line is gone while the caller works with one, and in the end."""
        self._show(0)
        try:
            for done, item in enumerate(items, 1):
                self._write(CLEAR)
                yield item
                self._show(done)
        finally:
            self._write(CLEAR)

    def _show(self, done: int) -> None:
        self._write(f"{CLEAR}{self._verb}: {done} of {self._total}")

    def _write(self, text: str) -> None:
        if self._is_shown:
            self._stream.write(text, ending="")
            self._stream.flush()
