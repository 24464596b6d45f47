"""The example project as it is measured: its own settings, with rate limits that a load generator doesn't meet.

They aren't taken away: what it costs to look at them is part of what is measured.
"""

from __future__ import annotations

from django_tenant_messaging.conf import RATE_LIMIT, known_settings
from example.settings import *  # noqa: F403

SECRET_KEY = "the benchmark's key, good for nothing else"  # noqa: S105 - nothing is kept by it
NEVER_REACHED = (1_000_000, 1_000_000)
TENANT_MESSAGING = {setting.name: NEVER_REACHED for setting in known_settings() if setting.rule is RATE_LIMIT}
