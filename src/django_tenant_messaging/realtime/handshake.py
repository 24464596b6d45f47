"""Deciding whether a connection is let in: of which tenant it is, from which page it comes, and whose it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user,
    get_user_model,
    load_backend,
)
from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.module_loading import import_string

from ..conf import messaging_settings
from ..payloads import PROTOCOL
from ..permissions import Refusal, why_refused
from ..tenancy import Login, Tenant, login_of, origin_allowed, resolve_tenants
from .close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from django.contrib.auth.models import AbstractBaseUser
    from django.http import HttpRequest

CODES = {
    Refusal.NOT_SIGNED_IN: CloseCode.UNAUTHENTICATED,
    Refusal.OTHER_TENANT: CloseCode.UNAUTHENTICATED,
    Refusal.NOT_ADMITTED: CloseCode.FORBIDDEN,
}


def find_tenants(_schema_name: str, requests: Sequence[HttpRequest]) -> list[Tenant | CloseCode]:
    """Return the tenants whose sockets are asked for by pages of their own; synchronous, in the shared schema.

    One query, and another for a page of an address that is not the socket's own.
    """
    return [
        CloseCode.UNKNOWN_TENANT
        if tenant is None
        else tenant
        if origin_allowed(request, tenant)
        else CloseCode.FORBIDDEN
        for request, tenant in zip(requests, resolve_tenants(requests), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Standing:
    """Who connected, and what that rests on.

    ``session_key`` is empty when the session store can't say whether a session still exists.
    """

    user: AbstractBaseUser
    login: Login
    session_key: str
    password_hash: str
    """Changes with the password."""


def identify(schema_name: str, request: HttpRequest) -> Standing | CloseCode:
    """Return who connects, or why they may not; synchronous, in the tenant's schema."""
    engine = import_module(settings.SESSION_ENGINE)
    request.session = engine.SessionStore(session_key_of(request))
    user: Any = get_user(request)
    key = request.session.session_key or ""
    login = login_of(request.session, key)
    refusal = why_refused(user, login, schema_name)
    if refusal is not None:
        return CODES[refusal]
    return Standing(user, login, key if live_sessions([key]) else "", user.get_session_auth_hash())


def may_identify_together() -> bool:
    """Say whether sessions are Django's own rows, and nothing of the host's has to be asked of each user."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    return store is DatabaseSessions and messaging_settings.TENANT_MEMBERSHIP is None


def identify_together(schema_name: str, requests: Sequence[HttpRequest]) -> list[Standing | None]:
    """Return for each who connects, two queries for all; ``None`` for those of whom :func:`identify` has to decide.

    That is everybody who isn't plainly signed in, so that it is Django's own functions that refuse somebody.
    """
    session_keys = [DatabaseSessions(session_key_of(request)).session_key or "" for request in requests]
    sessions = _read_sessions(session_keys)
    user_keys = {key: _user_key(session) for key, session in sessions.items()}
    asked = {key for key in user_keys.values() if key is not None}
    users: dict[Any, Any] = get_user_model()._default_manager.in_bulk(asked)
    found = [(key, users.get(user_keys.get(key))) for key in session_keys]
    return [None if user is None else _standing_of(user, key, sessions[key], schema_name) for key, user in found]


def find_together(
    schema_name: str, requests: Sequence[HttpRequest]
) -> list[tuple[Tenant | CloseCode, Standing | None]]:
    """Return for each which tenant is asked for, and who asks if it is this one; three queries for all.

    What :func:`find_tenants` and :func:`identify_together` say, in one call into the tenant.
    """
    tenants = find_tenants("", requests)
    own = [request for request, tenant in zip(requests, tenants, strict=True) if _is_of(tenant, schema_name)]
    standings = iter(identify_together(schema_name, own) if own else [])
    return [(tenant, next(standings) if _is_of(tenant, schema_name) else None) for tenant in tenants]


def _is_of(tenant: Tenant | CloseCode, schema_name: str) -> bool:
    return isinstance(tenant, Tenant) and tenant.schema_name == schema_name


def _read_sessions(keys: Collection[str]) -> dict[str, Mapping[str, Any]]:
    rows = DatabaseSessions.get_model_class().objects.filter(session_key__in=set(keys), expire_date__gt=timezone.now())
    decode = DatabaseSessions().decode
    return {key: decode(data) for key, data in rows.values_list("session_key", "session_data")}


def _user_key(session: Mapping[str, Any]) -> Any:
    """Return the key of a session's user, if the user is found by that alone."""
    path = str(session.get(BACKEND_SESSION_KEY))
    if path not in settings.AUTHENTICATION_BACKENDS or import_string(path).get_user is not ModelBackend.get_user:
        return None
    with suppress(ValidationError):
        return get_user_model()._meta.pk.to_python(session.get(SESSION_KEY))
    return None


def _standing_of(user: Any, session_key: str, session: Mapping[str, Any], schema_name: str) -> Standing | None:
    """Return the standing of somebody whose session and user are there, unless something is wrong with them."""
    backend: Any = load_backend(session[BACKEND_SESSION_KEY])
    password_hash = user.get_session_auth_hash()
    login = login_of(session, session_key)
    if (
        constant_time_compare(session.get(HASH_SESSION_KEY, ""), password_hash)
        and backend.user_can_authenticate(user)
        and why_refused(user, login, schema_name) is None
    ):
        return Standing(user, login, session_key, password_hash)
    return None


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
    refusal = why_refused(user, standing.login, schema_name)
    return None if refusal is None else CODES[refusal]


def session_key_of(request: HttpRequest) -> str | None:
    """Return the session cookie as Django reads it, unless it can't be one: an escaped NUL in it would be an error of
    the database.
    """
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    return key if key is not None and key.isprintable() else None


def choose_protocol(offered: Iterable[str]) -> str | CloseCode | None:
    """Return the subprotocol to speak; none needs to be offered."""
    offers = list(offered)
    if not offers:
        return None
    return PROTOCOL if PROTOCOL in offers else CloseCode.UNSUPPORTED_PROTOCOL
