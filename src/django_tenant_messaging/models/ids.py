"""What may name a row: an action that the host's code calls is given values of any kind."""

from __future__ import annotations

from typing import Any

from ..exceptions import Invalid

MAX_ID = 2**63 - 1
"""The highest number of a row, and of a place in a timeline."""


def may_be_id(value: Any, field: str) -> bool:
    """Return whether a row may have this id. Raises ``Invalid`` for what is no whole number."""
    return 0 < whole_number(value, field) <= MAX_ID


def whole_number(value: Any, field: str) -> int:
    """Return the value. Raises ``Invalid`` when it isn't an ``int``, and for ``True`` and ``False``, which are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise of_wrong_kind(value, field, "a whole number")


def of_wrong_kind(value: Any, field: str, expected: str) -> Invalid:
    """Return the error about a field's value, which names its type alone: the value may be long, or secret."""
    return Invalid.field(field, f"must be {expected}, not of the type {type(value).__name__}")
