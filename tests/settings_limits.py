"""Settings of servers under which little is allowed, and hardly anything comes back while a test runs."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

TENANT_MESSAGING = {"RATE_LIMIT_USER": (0.001, 10), "RATE_LIMIT_CONNECT": (0.001, 3)}
