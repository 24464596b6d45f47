"""Binding a login to the tenant in which it happened.

User ids and password hashes can be equal in two tenants (cloned templates, imported users), and a session store can
be shared by them (cache, signed cookies, a parent-domain cookie). Then Django's own check passes in the wrong tenant.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import SESSION_KEY as USER_KEY

from .context import current_schema
from .database import sessions_are_per_tenant
from .names import tenant_hash

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from django.contrib.sessions.backends.base import SessionBase

SESSION_KEY = "_tenant_messaging_tenant"
LOGIN_KEY = "_tenant_messaging_login"


class Login(NamedTuple):
    """What a session says of the login that opened it."""

    tenant: str | None
    """Stands for the tenant in which it happened; ``None`` from before the app was installed."""
    mark: str
    """Stands for the login where neither its id nor the session's key, which are secrets, may appear."""


def bind_session(session: MutableMapping[str, Any] | SessionBase) -> None:
    """Remember in a session that its login happened in the current tenant, under an id of the login's own.

    The id outlives the session's key, which changes with the password, and with every answer where the session is the
    cookie itself. Who logs in again, without having logged out, goes on with the same login.
    """
    tenant = tenant_hash(current_schema())
    if session.get(SESSION_KEY) != tenant or LOGIN_KEY not in session:
        session[LOGIN_KEY] = secrets.token_urlsafe(16)
    session[SESSION_KEY] = tenant


def has_login(session: SessionBase) -> bool:
    """Say whether Django counts somebody as logged in by a session."""
    return USER_KEY in session


def login_of(session: Mapping[str, Any] | SessionBase, session_key: str | None) -> Login:
    """Return a session's login, given the key under which the session is stored: that stands for logins without id."""
    secret = str(session.get(LOGIN_KEY) or session_key)
    return Login(session.get(SESSION_KEY), hashlib.sha256(secret.encode()).hexdigest()[:32])


def login_belongs_here(login: Login, schema_name: str) -> bool:
    """Say whether a login happened in this tenant.

    One that says nothing of it, from before the app was installed, belongs here only if sessions are rows in the
    tenant's own schema: then it can't have been found anywhere else.
    """
    return sessions_are_per_tenant() if login.tenant is None else login.tenant == tenant_hash(schema_name)
