from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string

from ..conf import messaging_settings
from ..tenancy import session_belongs_here, users_are_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


def may_use_tenant(user: AbstractBaseUser | AnonymousUser, schema_name: str) -> bool:
    """Say whether a user is active and belongs to the tenant."""
    return user.is_authenticated and user.is_active and belongs_to_tenant(user, schema_name)


def belongs_to_tenant(user: AbstractBaseUser, schema_name: str) -> bool:
    """Say whether a user, active or not, is one of the tenant's.

    Users of a tenant's own schema are. Shared users need the ``TENANT_MEMBERSHIP`` hook; without it nobody is.
    """
    hook = messaging_settings.TENANT_MEMBERSHIP
    if hook is None:
        return not users_are_shared()
    is_member: Callable[[Any, str], bool] = import_string(hook) if isinstance(hook, str) else hook
    return bool(is_member(user, schema_name))


def signed_in_here(user: AbstractBaseUser | AnonymousUser, session: Mapping[str, Any], schema_name: str) -> bool:
    """Say whether the user's session was opened in this tenant, by someone who may use it."""
    return user.is_authenticated and session_belongs_here(session, schema_name) and may_use_tenant(user, schema_name)
