"""Checks of where the app and the host's users are installed."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.checks import CheckMessage, Error

from ..conf import host_settings, messaging_settings
from ..tenancy import app_is_shared, app_is_tenants, unfindable_names, users_are_shared


def check_installation(**_kwargs: Any) -> list[CheckMessage]:
    """Report an app that isn't the tenants' (E004) or is shared as well (E005), and shared users without a rule of
    who belongs to which tenant (E006), and names of the user model that no query finds (E022).
    """
    found: list[CheckMessage] = []
    if not app_is_tenants():
        found.append(
            Error(
                "django_tenant_messaging is not in TENANT_APPS: no tenant would get its tables.",
                hint='Add "django_tenant_messaging" to TENANT_APPS and run migrate_schemas.',
                id="tenant_messaging.E004",
            )
        )
    if app_is_shared():
        found.append(
            Error(
                "django_tenant_messaging is in SHARED_APPS: a tenant whose own tables are missing would read and write"
                " the shared schema's tables of the same names, together with all such tenants and without any error.",
                hint='Remove "django_tenant_messaging" from SHARED_APPS and keep it in TENANT_APPS. If the shared'
                " schema got its tables and nothing in them is yours, run before:"
                " python manage.py migrate_schemas --shared django_tenant_messaging zero --skip-checks",
                id="tenant_messaging.E005",
            )
        )
    if _users_are_without_tenant():
        found.append(
            Error(
                "The user model is in the shared schema and TENANT_MEMBERSHIP isn't set: nobody could use messaging.",
                hint='Set TENANT_MESSAGING["TENANT_MEMBERSHIP"] to a callable (user, schema_name) -> bool or its path.',
                id="tenant_messaging.E006",
            )
        )
    if names := unfindable_names(get_user_model()):
        found.append(
            Error(
                f"Django's own queries can't find what the user model names {', '.join(map(repr, names))}.",
                hint='Rename the table or the column. Or write % as %% and " as "" in db_table and db_column, as Django'
                " puts them into SQL as they are; with %% it has to be a table that no migration makes.",
                id="tenant_messaging.E022",
            )
        )
    return found


def _users_are_without_tenant() -> bool:
    # What is set but wrong is the other check's subject.
    is_readable = isinstance(host_settings(), dict)
    return users_are_shared() and is_readable and messaging_settings.TENANT_MEMBERSHIP is None
