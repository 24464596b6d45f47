"""Where the tenants' tables and the host's users are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django_tenants.utils import (
    get_public_schema_name,
    get_tenant_database_alias,
    get_tenant_types,
    has_multi_type_tenants,
)

if TYPE_CHECKING:
    from django.apps import AppConfig

SESSIONS = "django.contrib.sessions"
TENANT_DATABASE = get_tenant_database_alias()
"""Alias of the database that holds the tenants' schemas."""


def users_are_shared() -> bool:
    """Say whether the user model's table is in the shared schema rather than in each tenant's."""
    from django.contrib.auth import get_user_model

    return not _is_among(get_user_model()._meta.app_config, _tenant_apps())


def sessions_are_per_tenant() -> bool:
    """Say whether each tenant's sessions are rows in its own schema, and nowhere else."""
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.db" or not apps.is_installed(SESSIONS):
        return False
    return SESSIONS in _tenant_apps() - _shared_apps()


def app_is_tenants() -> bool:
    """Say whether tenants get this app's tables."""
    return _is_among(_this_app(), _tenant_apps())


def app_is_shared() -> bool:
    """Say whether the shared schema gets this app's tables."""
    return _is_among(_this_app(), _shared_apps())


def _tenant_apps() -> set[str]:
    """Return the entries of ``TENANT_APPS``, of all tenant types together."""
    if has_multi_type_tenants():
        types = get_tenant_types().items()
        return {app for name, kind in types if name != get_public_schema_name() for app in kind.get("APPS", ())}
    return set(getattr(settings, "TENANT_APPS", ()))


def _shared_apps() -> set[str]:
    if has_multi_type_tenants():
        return set(get_tenant_types().get(get_public_schema_name(), {}).get("APPS", ()))
    return set(getattr(settings, "SHARED_APPS", ()))


def _is_among(app: AppConfig, entries: set[str]) -> bool:
    """Say whether an app is named in a list of apps, by its package or by its configuration."""
    return not entries.isdisjoint({app.name, f"{type(app).__module__}.{type(app).__qualname__}"})


def _this_app() -> AppConfig:
    return apps.get_app_config("django_tenant_messaging")
