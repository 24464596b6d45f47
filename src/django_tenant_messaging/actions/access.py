"""Telling the servers that somebody may have lost the right to be connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore as CookieSessions

from ..events import AccessChanged, LoginEnded, emit_on_commit
from ..tenancy import current_schema, has_login, login_belongs_here, login_of, users_are_shared

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from django.contrib.sessions.backends.base import SessionBase
    from django.http import HttpRequest

ALL_TENANTS = ""


def recheck_access(user: AbstractBaseUser | None = None) -> None:
    """Have the connections of a user, or of all users of the current tenant, looked at again, after the commit.

    Those that would not be let in now are closed within a second, also in other processes; without the channel layer
    within ``RECONCILE_INTERVAL``. Logins, logouts, and saved and deleted users need no call. Call it when something
    changed that ``TENANT_MEMBERSHIP`` goes by, when users were changed by ``QuerySet.update``, or when a tenant is
    suspended: all that would be noticed within ``ACCESS_RECHECK_INTERVAL`` otherwise.
    """
    # A shared user may be connected in any tenant.
    schema_name = ALL_TENANTS if user is not None and users_are_shared() else current_schema()
    emit_on_commit(AccessChanged(schema_name, None if user is None else str(user.pk)))


def end_login(session: SessionBase) -> None:
    """Close the connections that were opened with a session's login, after the commit."""
    login, schema_name = login_of(session, session.session_key), current_schema()
    # The connections are where the login happened; at another tenant's address nobody knows which schema that is.
    emit_on_commit(LoginEnded(schema_name if login_belongs_here(login, schema_name) else ALL_TENANTS, login.mark))


def end_replaced_login(request: HttpRequest) -> None:
    """Close the connections of the login that a request came with, if another one has replaced it without a logout.

    Only a session that is the cookie itself still tells which login that was. Any other is deleted, which is noticed
    within ``ACCESS_RECHECK_INTERVAL``.
    """
    session, cookie = request.session, request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if isinstance(session, CookieSessions) and cookie:
        replaced = CookieSessions(cookie)
        if has_login(replaced) and login_of(replaced, cookie).mark != login_of(session, session.session_key).mark:
            end_login(replaced)
