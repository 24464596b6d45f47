"""Deciding whether a connection is let in: of which tenant it is, from which page it comes, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.utils import timezone

from ..exceptions import TenantNotFound
from ..payloads import PROTOCOL
from ..permissions import may_use_tenant
from ..tenancy import (
    Tenant,
    handshake_request,
    origin_allowed,
    resolve_tenant,
    session_belongs_here,
)
from .close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest


def find_tenant(scope: Mapping[str, Any]) -> Tenant | CloseCode:
    """Return the tenant whose socket is asked for by a page of its own; synchronous, in the shared schema."""
    request = handshake_request(scope)
    try:
        tenant = resolve_tenant(request)
    except TenantNotFound:
        return CloseCode.UNKNOWN_TENANT
    return tenant if origin_allowed(request, tenant) else CloseCode.FORBIDDEN


@dataclass(frozen=True, slots=True)
class Standing:
    """Who connected, and what that rests on.

    ``session_key`` is empty when the session store can't say whether a session still exists.
    """

    user: AbstractBaseUser
    session_key: str
    password_hash: str
    """Changes with the password."""


def identify(scope: Mapping[str, Any], tenant: Tenant) -> Standing | CloseCode:
    """Return who connects, or why they may not; synchronous, in the tenant's schema."""
    request = handshake_request(scope)
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(_session_key(request))
    user: Any = get_user(request)
    if not (user.is_authenticated and session_belongs_here(request.session, tenant.schema_name)):
        return CloseCode.UNAUTHENTICATED
    if not may_use_tenant(user, tenant.schema_name):
        return CloseCode.FORBIDDEN
    key = request.session.session_key or ""
    return Standing(user, key if live_sessions([key]) else "", user.get_session_auth_hash())


def live_sessions(keys: Collection[str]) -> set[str]:
    """Return those sessions, by key, that haven't ended; one query where sessions are rows."""
    store: Any = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, DatabaseSessions):
        rows = store.get_model_class().objects.filter(session_key__in=keys, expire_date__gt=timezone.now())
        return set(rows.values_list("session_key", flat=True))
    return {key for key in keys if store(key).exists(key)}


def standing_lost(standing: Standing, user: AbstractBaseUser | None, schema_name: str) -> CloseCode | None:
    """Return why somebody who connected may not stay, given the user as stored now."""
    if user is None or not user.is_active or user.get_session_auth_hash() != standing.password_hash:
        return CloseCode.UNAUTHENTICATED
    return None if may_use_tenant(user, schema_name) else CloseCode.FORBIDDEN


def _session_key(request: HttpRequest) -> str | None:
    """Return the session cookie, unless it can't be one: an escaped NUL in it would be an error of the database."""
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    return key if key is not None and key.isprintable() else None


def choose_protocol(offered: Iterable[str]) -> str | CloseCode | None:
    """Return the subprotocol to speak; none needs to be offered."""
    offers = list(offered)
    if not offers:
        return None
    return PROTOCOL if PROTOCOL in offers else CloseCode.UNSUPPORTED_PROTOCOL
