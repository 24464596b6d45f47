"""Whether those who are connected still may be, as the database tells; synchronous, in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser

from ..selectors import LoginsAsked, read_logins
from ..tenancy import handshake_request, sessions_are_per_tenant, users_are_shared
from .close_codes import CloseCode
from .handshake import find_tenants, live_sessions, may_identify_together, standing_lost
from .together import ask_together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .handshake import Standing


class Connected(NamedTuple):
    """What a connection rests on: the handshake as ASGI gives it, and who it was found to be."""

    scope: Mapping[str, Any]
    standing: Standing

    @property
    def host(self) -> bytes:
        """The Host header."""
        return b",".join(value for name, value in self.scope["headers"] if name == b"host")


def lost_rights(schema_name: str, connected: Sequence[Connected]) -> list[CloseCode | None]:
    """Return for each connection to a tenant why it may not stay, by Django's own functions; in the tenant.

    One query in the shared schema, two in the tenant's where sessions are rows.
    """
    served = _served({schema_name: connected})
    keys = {one.standing.user.pk for one in connected}
    users: dict[Any, Any] = get_user_model()._default_manager.in_bulk(keys)
    sessions = live_sessions({one.standing.session_key for one in connected if one.standing.session_key})
    return [
        CloseCode.UNKNOWN_TENANT
        if (schema_name, one.host) not in served
        else CloseCode.UNAUTHENTICATED
        if one.standing.session_key and one.standing.session_key not in sessions
        else standing_lost(one.standing, users.get(one.standing.user.pk), schema_name)
        for one in connected
    ]


def may_look_together() -> bool:
    """Say whether somebody's right to stay rests on columns of Django's own in the tenant's schema alone.

    Not where the host decides whom it knows (a manager that leaves users out), who is active, what makes a login
    invalid, or who is a member of a tenant.
    """
    model: Any = get_user_model()
    columns = {field.name for field in model._meta.concrete_model._meta.local_concrete_fields}
    return (
        may_identify_together()
        and sessions_are_per_tenant()
        and not users_are_shared()
        and columns >= {model._meta.pk.name, "password", "is_active"}
        and model.get_session_auth_hash is AbstractBaseUser.get_session_auth_hash
        and not model._default_manager.get_queryset().query.where
    )


def plainly_stay(connected: Mapping[str, Sequence[Connected]]) -> dict[str, list[bool]]:
    """Say of each connection, by tenant, whether it plainly may stay, where :func:`may_look_together`; in the shared
    schema.

    Of all others :func:`lost_rights` has to decide. Three statements, however many tenants: one says how the next is
    planned and how long it may wait, the last reads the addresses, with another for pages of other addresses.
    Raises what :func:`~.together.ask_together` raises.
    """
    asked: dict[str, Any] = {
        schema_name: LoginsAsked(
            {one.standing.session_key for one in of_tenant}, {one.standing.user.pk for one in of_tenant}
        )
        for schema_name, of_tenant in connected.items()
    }
    logins = ask_together(read_logins, asked)
    served = _served(connected)
    return {
        schema_name: [
            (schema_name, one.host) in served
            and one.standing.session_key in logins[schema_name].sessions
            and logins[schema_name].passwords.get(str(one.standing.user.pk)) == one.standing.user.password
            for one in of_tenant
        ]
        for schema_name, of_tenant in connected.items()
    }


def _served(connected: Mapping[str, Iterable[Connected]]) -> set[tuple[str, bytes]]:
    """Return the tenants together with those of the given Host headers that still name them."""
    scopes = {(schema_name, one.host): one.scope for schema_name, found in connected.items() for one in found}
    tenants = find_tenants("", [handshake_request(scope) for scope in scopes.values()])
    return {
        key
        for key, tenant in zip(scopes, tenants, strict=True)
        if not isinstance(tenant, CloseCode) and tenant.schema_name == key[0]
    }
