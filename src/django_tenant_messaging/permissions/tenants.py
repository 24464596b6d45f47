from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.utils.module_loading import import_string

from ..conf import messaging_settings
from ..tenancy import current_schema, has_messages, login_belongs_here, login_of, users_are_shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest

    from ..tenancy import Login


class Refusal(Enum):
    """Why somebody isn't let in."""

    NO_MESSAGES = auto()
    """The shared schema has none, nor have tenants of a type without the app."""
    NOT_SIGNED_IN = auto()
    """Nobody is."""
    OTHER_TENANT = auto()
    """The login happened in another tenant, or there is no session that says where it did."""
    NOT_ADMITTED = auto()
    """The user isn't active, or not one of the tenant's."""


def why_refused(user: AbstractBaseUser | AnonymousUser, login: Login | None, schema_name: str) -> Refusal | None:
    """Return why a user with this login isn't let in to a tenant: the one rule, which every face asks."""
    refusal = _why_unknown(user, login, schema_name)
    return refusal or (None if may_use_tenant(user, schema_name) else Refusal.NOT_ADMITTED)


def _why_unknown(user: AbstractBaseUser | AnonymousUser, login: Login | None, schema_name: str) -> Refusal | None:
    if not user.is_authenticated:
        return Refusal.NOT_SIGNED_IN
    return None if login is not None and login_belongs_here(login, schema_name) else Refusal.OTHER_TENANT


def why_request_refused(request: HttpRequest) -> Refusal | None:
    """Return why a request isn't let in to the current tenant, by :func:`why_refused`."""
    schema_name = current_schema()
    # Where there are no messages there may be no users and sessions either, so they aren't read.
    return why_refused(*_user_of(request), schema_name) if has_messages(schema_name) else Refusal.NO_MESSAGES


def user_let_in(request: HttpRequest) -> AbstractBaseUser | AnonymousUser:
    """Return a request's user, or nobody if the tenant doesn't let them in.

    Where there are no messages, as in the shared schema, the login has to be one of there.
    """
    refusal = why_request_refused(request)
    user, login = _user_of(request)
    if refusal is Refusal.NO_MESSAGES:
        refusal = _why_unknown(user, login, current_schema())
    return user if refusal is None else AnonymousUser()


def _user_of(request: HttpRequest) -> tuple[AbstractBaseUser | AnonymousUser, Login | None]:
    """Return a request's user and login; a host's middleware may have given it neither."""
    user = getattr(request, "user", None) or AnonymousUser()
    session: Any = getattr(request, "session", None)
    is_known = user.is_authenticated and session is not None
    return user, login_of(session, session.session_key) if is_known else None


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
