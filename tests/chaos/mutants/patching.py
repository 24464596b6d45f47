"""Changing code on purpose, and failing when there is nothing to change: a mutant must not outlive what it mutates."""

from __future__ import annotations

import re
from typing import Any


def replace(owner: Any, name: str, value: Any) -> Any:
    """Put another value in the place of an attribute that is there; return what it was."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    return before


def rewritten(text: str, *changes: tuple[str, str]) -> str:
    """A text with each pattern, which has to be in it exactly once, replaced."""
    for pattern, by in changes:
        text, times = re.subn(pattern, by.replace("\\", r"\\"), text, flags=re.DOTALL)
        if times != 1:
            raise LookupError(f"{pattern!r} is there {times} times: the mutant has nothing to mutate.")
    return text
