"""Every company keeps its own users."""

from __future__ import annotations

from config.base import *  # noqa: F403

SHARED_APPS = ["django_tenants", "companies", "django.contrib.contenttypes", "django.contrib.staticfiles"]
TENANT_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
