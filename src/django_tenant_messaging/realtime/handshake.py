"""Deciding whether a connection is let in: of which tenant it is, from which page it comes, and whose it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user

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
    from collections.abc import Iterable, Mapping

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


def identify(scope: Mapping[str, Any], tenant: Tenant) -> AbstractBaseUser | CloseCode:
    """Return who connects, or why they may not; synchronous, in the tenant's schema."""
    request = handshake_request(scope)
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(_session_key(request))
    user: Any = get_user(request)
    if not (user.is_authenticated and session_belongs_here(request.session, tenant.schema_name)):
        return CloseCode.UNAUTHENTICATED
    if not may_use_tenant(user, tenant.schema_name):
        return CloseCode.FORBIDDEN
    found: AbstractBaseUser = user
    return found


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
