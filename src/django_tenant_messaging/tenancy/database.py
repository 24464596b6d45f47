"""Where the tenants' tables and the host's users are."""

from __future__ import annotations

from django.conf import settings
from django_tenants.utils import get_tenant_database_alias, get_tenant_types, has_multi_type_tenants

TENANT_DATABASE = get_tenant_database_alias()
"""Alias of the database that holds the tenants' schemas."""


def tenant_apps() -> set[str]:
    """Return the entries of ``TENANT_APPS``, of all tenant types together."""
    if has_multi_type_tenants():
        return {app for name, kind in get_tenant_types().items() if name != "public" for app in kind.get("APPS", ())}
    return set(getattr(settings, "TENANT_APPS", ()))


def users_are_shared() -> bool:
    """Say whether the user model's table is in the shared schema rather than in each tenant's."""
    from django.contrib.auth import get_user_model

    config = get_user_model()._meta.app_config
    names = {config.name, f"{type(config).__module__}.{type(config).__qualname__}"}
    return names.isdisjoint(tenant_apps())
