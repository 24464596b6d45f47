"""The TENANT_MESSAGING setting; what the system checks say of it is in test_checks.py."""

from __future__ import annotations

from django.test import override_settings

from django_tenant_messaging.conf import known_settings, messaging_settings


def test_settings_are_read_at_every_access() -> None:
    assert messaging_settings.MAX_CONTENT_LENGTH == 10_000
    with override_settings(TENANT_MESSAGING={"MAX_CONTENT_LENGTH": 5}):
        assert messaging_settings.MAX_CONTENT_LENGTH == 5
        assert messaging_settings.MAX_MENTIONS == 50
    assert messaging_settings.MAX_CONTENT_LENGTH == 10_000


def test_defaults_are_accepted_by_their_own_rules() -> None:
    assert len(list(known_settings())) > 15
    for setting in known_settings():
        assert setting.rule.accepts(setting.default), setting.name
        assert getattr(messaging_settings, setting.name) == setting.default
