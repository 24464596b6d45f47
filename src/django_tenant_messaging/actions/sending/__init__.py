"""Writing messages, and all that belongs to them, by one statement."""

from __future__ import annotations

from .rows import PASS_OVER_LOCKED, WAIT_FOR_LOCKED, LockedRows, Outcome, Row
from .writing import PREPARED_FROM, write_messages

__all__ = ["PASS_OVER_LOCKED", "PREPARED_FROM", "WAIT_FOR_LOCKED", "LockedRows", "Outcome", "Row", "write_messages"]
