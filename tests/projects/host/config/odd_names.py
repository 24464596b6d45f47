"""Every company keeps its own users, in a table and columns whose names need their quotes."""

from __future__ import annotations

from config.base import *  # noqa: F403

SHARED_APPS = ["django_tenants", "companies", "django.contrib.contenttypes", "django.contrib.staticfiles"]
TENANT_APPS = [
    "oddities",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
]
INSTALLED_APPS = SHARED_APPS + [app for app in TENANT_APPS if app not in SHARED_APPS]
AUTH_USER_MODEL = "oddities.Person"
