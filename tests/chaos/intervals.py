"""The intervals under which the stage's host runs, in seconds: short, so that a run sees many of them."""

from __future__ import annotations

RECONCILE_INTERVAL = 2.0
"""The default."""
HEARTBEAT_INTERVAL = 5.0
SOCKET_STUCK_TIMEOUT = 5.0
PRESENCE_TTL = 10.0
MIGRATION_CHECK_TTL = 5.0
