"""The host of the tests, with sessions kept where `SESSION_STORE` says, reachable from several processes."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403

SESSION_ENGINE = f"django.contrib.sessions.backends.{os.environ['SESSION_STORE']}"
SESSION_FILE_PATH = os.environ["SESSION_FILE_PATH"]
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["REDIS_URL"],
        "KEY_FUNCTION": "django_tenants.cache.make_key",
    }
}
