"""One account works for several companies."""

from __future__ import annotations

from config.base import *  # noqa: F403

SHARED_APPS = [
    "django_tenants",
    "companies",
    "employment",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
TENANT_APPS = ["django.contrib.contenttypes"]
INSTALLED_APPS = list(SHARED_APPS)
