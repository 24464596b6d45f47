"""Telling whoever waits how far it is."""

from __future__ import annotations

import sys


def tell(text: str) -> None:
    """Say something beside the results."""
    print(text, file=sys.stderr, flush=True)
