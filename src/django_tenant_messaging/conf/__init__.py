"""The settings, one dict ``TENANT_MESSAGING`` in the host's settings module.

``messaging_settings.NAME`` reads the host's value at every access, so ``override_settings`` works and nothing is
cached at import. Unknown names and wrong values are reported by the system checks, and no server starts with them.
"""

from __future__ import annotations

from .faults import faults_of_settings, require_valid_settings
from .rules import RATE_LIMIT
from .settings import MessagingSettings, host_settings, known_settings, messaging_settings

__all__ = [
    "RATE_LIMIT",
    "MessagingSettings",
    "faults_of_settings",
    "host_settings",
    "known_settings",
    "messaging_settings",
    "require_valid_settings",
]
