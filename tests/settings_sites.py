"""The host of the tests, with a Site for each tenant."""

from __future__ import annotations

from tests.settings import *  # noqa: F403

SITE_ID = 1
TENANT_APPS = [*TENANT_APPS, "django.contrib.sites"]  # noqa: F405
INSTALLED_APPS = [*INSTALLED_APPS, "django.contrib.sites"]  # noqa: F405
