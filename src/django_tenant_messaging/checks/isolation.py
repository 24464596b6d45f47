"""Checks of what tenants would share without knowing: cached values and logins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation

if TYPE_CHECKING:
    from collections.abc import Iterator

DUMMY = "django.core.cache.backends.dummy.DummyCache"
CACHE_SESSIONS = {"django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"}


def check_isolation(**_kwargs: Any) -> list[CheckMessage]:
    """Report caches in which tenants meet (W011), and a session cookie that browsers send to all of them (W016)."""
    return [*_shared_caches(), *_shared_cookie()]


def _shared_caches() -> Iterator[CheckMessage]:
    for alias in _aliases_in_use():
        cache = settings.CACHES.get(alias, {})
        # A key function that was chosen is the host's decision, and so is Django's own when it is named.
        if cache.get("BACKEND") == DUMMY or cache.get("KEY_FUNCTION"):
            continue
        yield Warning(
            f"CACHES[{alias!r}] has no KEY_FUNCTION: what one tenant stores under a key, every other one finds there.",
            hint=f'Add to CACHES[{alias!r}]: "KEY_FUNCTION": "django_tenants.cache.make_key",'
            ' "REVERSE_KEY_FUNCTION": "django_tenants.cache.reverse_key".',
            id="tenant_messaging.W011",
        )


def _aliases_in_use() -> list[str]:
    """Return the caches that the host configured, and the one of its sessions.

    Django's own default, a dictionary in memory, is there in every project; this app doesn't use it.
    """
    is_configured = settings.is_overridden("CACHES")  # type: ignore[misc] # not in the stubs
    aliases = dict.fromkeys(settings.CACHES if is_configured else ())
    if settings.SESSION_ENGINE in CACHE_SESSIONS:
        aliases[settings.SESSION_CACHE_ALIAS] = None
    return list(aliases)


def _shared_cookie() -> Iterator[CheckMessage]:
    domain = settings.SESSION_COOKIE_DOMAIN
    if domain:
        yield Warning(
            f"SESSION_COOKIE_DOMAIN is {domain!r}: a browser sends one tenant's session to every tenant below that"
            " domain.",
            hint="Remove SESSION_COOKIE_DOMAIN, so that each tenant's host name has a cookie of its own.",
            id="tenant_messaging.W016",
        )
