"""Settings for tests that ask for more than a person would."""

from __future__ import annotations

UNLIMITED = {f"RATE_LIMIT_{name}": None for name in ("CONNECT", "SOCKET", "USER", "ROOM", "TENANT")}
