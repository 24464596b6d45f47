"""The example project as it is measured: its own settings, with the limits lifted that a load generator would meet."""

from __future__ import annotations

from example.settings import *  # noqa: F403

DEBUG = False
TENANT_MESSAGING = {f"RATE_LIMIT_{name}": None for name in ("CONNECT", "SOCKET", "USER", "ROOM", "TENANT")}
