"""The TENANT_MESSAGING setting; what the system checks say of it is in test_checks.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_tenant_messaging.conf import known_settings, messaging_settings
from django_tenant_messaging.middleware import TenantMigrationCheckMiddleware
from django_tenant_messaging.realtime import messaging_asgi
from django_tenant_messaging.realtime.asgi import MessagingWebSocket

if TYPE_CHECKING:
    from collections.abc import Callable


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


def application(*_args: Any) -> Any:
    """Stand in for what comes after."""


STARTS: list[Callable[[], object]] = [
    MessagingWebSocket,
    lambda: messaging_asgi(application),
    lambda: TenantMigrationCheckMiddleware(application),
]


@pytest.mark.parametrize("start", STARTS, ids=["socket", "asgi", "middleware"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ALLOWED_ORIGINS": "https://a.com"}, r"write \['https://a.com'\]"),
        ({"RATE_LIMIT_USER": (0, 10), "EDIT_WINDOW": "1"}, "(?s)RATE_LIMIT_USER.*EDIT_WINDOW"),
        ({"ALLOWED_ORIGIN": []}, "Did you mean 'ALLOWED_ORIGINS'"),
        ([], "not a dict"),
    ],
    ids=["a text for a list", "two wrong values", "an unknown name", "no dict"],
)
def test_no_server_starts_with_wrong_settings(start: Callable[[], object], given: Any, expected: str) -> None:
    """An origin that is looked for in a text is allowed if it is any part of it."""
    with override_settings(TENANT_MESSAGING=given), pytest.raises(ImproperlyConfigured, match=expected):
        start()
    start()
