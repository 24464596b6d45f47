"""The places in which Django keeps sessions, as a host's settings name them."""

from __future__ import annotations

from typing import Any

ENGINE = "django.contrib.sessions.backends."
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
OF_ALL_TENANTS = {"default": {"BACKEND": LOCMEM}}
OF_EACH_TENANT = {"default": {"BACKEND": LOCMEM, "KEY_FUNCTION": "django_tenants.cache.make_key"}}

STORES: dict[str, dict[str, Any]] = {
    "db": {"SESSION_ENGINE": f"{ENGINE}db"},
    "cache": {"SESSION_ENGINE": f"{ENGINE}cache", "CACHES": OF_EACH_TENANT},
    "shared cache": {"SESSION_ENGINE": f"{ENGINE}cache", "CACHES": OF_ALL_TENANTS},
    "cached_db": {"SESSION_ENGINE": f"{ENGINE}cached_db", "CACHES": OF_EACH_TENANT},
    "cached_db in a shared cache": {"SESSION_ENGINE": f"{ENGINE}cached_db", "CACHES": OF_ALL_TENANTS},
    "file": {"SESSION_ENGINE": f"{ENGINE}file"},
    "signed_cookies": {"SESSION_ENGINE": f"{ENGINE}signed_cookies"},
}
