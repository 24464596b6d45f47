"""Telling the servers that somebody may have lost the right to be connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..events import AccessChanged, LoginEnded, emit_on_commit
from ..tenancy import current_schema, login_belongs_here, login_of, users_are_shared

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser
    from django.contrib.sessions.backends.base import SessionBase

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
