"""The settings of the tests, with the library's own records on the server's output."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django_tenant_messaging": {"handlers": ["console"], "level": "INFO"}},
}
