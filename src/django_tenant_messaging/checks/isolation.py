"""Checks of what tenants would share without knowing: cached values and logins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.backends.file import SessionStore as FileSessions
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSessions
from django.core.checks import CheckMessage, Warning  # noqa: A004 - the name of Django's documentation

from ..tenancy import admin_log_is_shared, sessions_are_shared, users_are_shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.sessions.backends.base import SessionBase

DUMMY = "django.core.cache.backends.dummy.DummyCache"
CACHE_SESSIONS = {"django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"}


def check_isolation(**_kwargs: Any) -> list[CheckMessage]:
    """Report caches in which tenants meet (W011), a session cookie that browsers send to all of them (W016), sessions
    that the server can't end (W020), one place for the sessions of all tenants' own users (W021), and one for what was
    done in the admin (W028).
    """
    return [
        *_shared_caches(),
        *_shared_cookie(),
        *_endless_sessions(),
        *_shared_sessions(),
        *_shared_admin_log(),
    ]


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


def _endless_sessions() -> Iterator[CheckMessage]:
    if _sessions_are(CookieSessions):
        yield Warning(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}: the server can't end a session. A copy of the cookie is"
            " good after the logout until it expires.",
            hint='Use "django.contrib.sessions.backends.db" or "cached_db", with "django.contrib.sessions" in'
            " TENANT_APPS.",
            id="tenant_messaging.W020",
        )


def _shared_sessions() -> Iterator[CheckMessage]:
    place = (
        "in the browsers"
        if _sessions_are(CookieSessions)
        else "in one folder"
        if _sessions_are(FileSessions)
        else "in a table of the shared schema"
        if _sessions_are(DatabaseSessions) and sessions_are_shared()
        else None
    )
    if place is not None and not users_are_shared():
        yield Warning(
            f"Each tenant has its own users, but the sessions of all tenants are {place}: your own pages take one"
            " tenant's session for the user of the same id in another, if their password hashes are equal.",
            hint='Use "django.contrib.sessions.backends.db" or "cached_db", with "django.contrib.sessions" in'
            " TENANT_APPS.",
            id="tenant_messaging.W021",
        )


def _shared_admin_log() -> Iterator[CheckMessage]:
    if admin_log_is_shared():
        yield Warning(
            "What is done in the admin of any tenant is in one table of the shared schema, with the names of rooms that"
            " were deleted. Rows of several tenants have the same id, so that one tenant's are shown in the other.",
            hint='Put "django.contrib.admin" into TENANT_APPS. Until then, messaging shows no history of its rows.',
            id="tenant_messaging.W028",
        )


def _sessions_are(kind: type[SessionBase]) -> bool:
    try:
        store = import_module(settings.SESSION_ENGINE).SessionStore
    except Exception:  # noqa: BLE001 - importing a host's module may raise anything; Django will say so
        return False
    return issubclass(store, kind)
