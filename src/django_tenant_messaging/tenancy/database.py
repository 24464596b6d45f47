"""Where the tenants' tables and the host's users are."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections
from django.dispatch import receiver
from django_tenants.utils import (
    get_public_schema_name,
    get_tenant_database_alias,
    get_tenant_types,
    has_multi_type_tenants,
)

from .identifiers import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.apps import AppConfig

SESSIONS = "django.contrib.sessions"
TENANT_DATABASE = get_tenant_database_alias()
"""Alias of the database that holds the tenants' schemas."""
DEFAULT_PORT = "5432"


def database_address() -> str:
    """Return where the settings say that the tenants' database is, as a name that no other database has."""
    place = connections.settings[TENANT_DATABASE]
    service = place["OPTIONS"].get("service")
    return f"{place['HOST']}:{place['PORT'] or DEFAULT_PORT}/{place['NAME']}/{service or ''}"


@lru_cache(maxsize=1)
def users_are_shared() -> bool:
    """Say whether tenants with messages, all or those of some type, have no table of users in their own schema."""
    # Kept, as it is asked of everybody who connects, and of everybody connected again and again.
    return any(serves_messages(kind) and not has_own_users(kind) for kind in tenant_kinds())


def has_own_users(kind: str) -> bool:
    """Say whether tenants of this kind keep their users in their own schemas."""
    from django.contrib.auth import get_user_model

    user = get_user_model()
    return is_among(user._meta.app_config, apps_of_kind(kind)) and not is_elsewhere(user)


@receiver(setting_changed)
def _forget_whose_users(**_kwargs: Any) -> None:
    users_are_shared.cache_clear()


def sessions_are_per_tenant() -> bool:
    """Say whether each tenant's sessions are rows in its own schema, and nowhere else."""
    if settings.SESSION_ENGINE != "django.contrib.sessions.backends.db" or not apps.is_installed(SESSIONS):
        return False
    return SESSIONS in _tenant_apps() - _shared_apps()


def sessions_are_shared() -> bool:
    """Say whether the only table of sessions is the shared schema's; a tenant's own is found before it."""
    return SESSIONS in _shared_apps() - _tenant_apps()


def admin_log_is_shared() -> bool:
    """Say whether the only table of what was done in the admin is the shared schema's."""
    admin = apps.app_configs.get("admin")
    return admin is not None and is_among(admin, _shared_apps()) and not is_among(admin, _tenant_apps())


def app_is_tenants() -> bool:
    """Say whether tenants get this app's tables."""
    return is_among(_this_app(), _tenant_apps())


def app_is_shared() -> bool:
    """Say whether the shared schema gets this app's tables."""
    return is_among(_this_app(), _shared_apps())


def apps_of_kind(kind: str) -> frozenset[str]:
    """Return the apps that a schema of this kind gets.

    The kind is a tenant type, the shared schema's name for itself, or anything where tenants have no types.
    """
    if has_multi_type_tenants():
        return frozenset(get_tenant_types().get(kind, {}).get("APPS", ()))
    is_shared = kind == get_public_schema_name()
    return frozenset(getattr(settings, "SHARED_APPS" if is_shared else "TENANT_APPS", ()))


def tenant_kinds() -> list[str]:
    """Return every kind of tenant; one without a name where tenants have no types."""
    if not has_multi_type_tenants():
        return [""]
    return [kind for kind in get_tenant_types() if kind != get_public_schema_name()]


def serves_messages(kind: str) -> bool:
    """Say whether tenants of this kind get this app's tables."""
    return is_among(_this_app(), apps_of_kind(kind))


def _tenant_apps() -> frozenset[str]:
    """Return the entries of ``TENANT_APPS``, of all tenant types together."""
    return frozenset().union(*(apps_of_kind(kind) for kind in tenant_kinds()))


def _shared_apps() -> frozenset[str]:
    return apps_of_kind(get_public_schema_name())


def is_among(app: AppConfig, entries: Collection[str]) -> bool:
    """Say whether an app is named in a list of apps, by its package or by its configuration."""
    return app.name in entries or f"{type(app).__module__}.{type(app).__qualname__}" in entries


def _this_app() -> AppConfig:
    return apps.get_app_config("django_tenant_messaging")
