"""The host under faults: the tests' one with shorter intervals."""

from __future__ import annotations

import os

from tests.chaos import intervals
from tests.harness.unlimited import UNLIMITED
from tests.settings import *  # noqa: F403

TENANT_MESSAGING = UNLIMITED | {name: value for name, value in vars(intervals).items() if name.isupper()}
# A storm of connections has to reach what lies behind the limit.
TENANT_MESSAGING["RATE_LIMIT_CONNECT"] = None
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": os.environ["CHAOS_LAYER"],
        "CONFIG": {
            "hosts": [{"address": url, "socket_timeout": None} for url in os.environ["CHAOS_REDIS_URLS"].split()]
        },
    }
}
# A pool that gives back what it doesn't use within a run.
DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 10, "timeout": 5, "max_idle": 2}  # noqa: F405
ALLOWED_HOSTS = [".localhost"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": os.environ.get("CHAOS_LOG_LEVEL", "INFO")},
}
