"""Texts as long as people's: the lengths are the deciles of 113,837 lines of public IRC channels."""

from __future__ import annotations

LENGTHS = (5, 13, 21, 29, 37, 47, 58, 75, 100, 185)
WORDS = "so the build is green again and I would rather ship it before lunch than wait for the other team to say yes "
_FILLERS = [(WORDS * 2)[:length] for length in LENGTHS]


def text_of(number: int, sent_at: int) -> str:
    """A text that carries the number of its message and the time (nanoseconds) at which it was to be sent."""
    # 7 shares no factor with 10: neighbours differ, and every length comes equally often.
    return f"#{number} {sent_at} {_FILLERS[number * 7 % 10]}"


def number_and_time(text: str) -> tuple[int, int]:
    """What `text_of` put into a text. Raises ValueError when it isn't one."""
    number, sent_at, _ = text.split(" ", 2)
    if number[:1] != "#":
        raise ValueError(text)
    return int(number[1:]), int(sent_at)
