"""Settings for tests that ask for more than a person would."""

from __future__ import annotations

from django_tenant_messaging.conf import RATE_LIMIT, known_settings

UNLIMITED = {setting.name: None for setting in known_settings() if setting.rule is RATE_LIMIT}
