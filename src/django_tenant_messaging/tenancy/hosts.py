"""Which tenant a host name means, and which origins are that tenant's own."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http.request import HttpRequest, split_domain_port
from django_tenants.utils import get_tenant_domain_model, has_multi_type_tenants, remove_www

from ..conf import messaging_settings
from ..exceptions import TenantNotFound
from .context import activated, is_public_schema, public_schema
from .database import TENANT_DATABASE, serves_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_PORTS = {"http": "80", "https": "443"}
LONGEST_PORT = len("65535")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant as a value that is safe to hand between tasks and threads."""

    schema_name: str
    pk: str


@dataclass(frozen=True, slots=True)
class _Address:
    hostname: str
    port: str
    is_secure: bool


def handshake_request(scope: Mapping[str, Any]) -> HttpRequest:
    """Return a WebSocket handshake as the HTTP request that it is, for whatever reads headers and cookies."""
    scheme = {"ws": "http", "wss": "https"}.get(scope.get("scheme", "ws"), "http")
    return ASGIRequest({**scope, "type": "http", "method": "GET", "scheme": scheme}, BytesIO())


def resolve_tenant(request: HttpRequest) -> Tenant:
    """Return the tenant that a request's Host header names; one query in the shared schema.

    Django's own request class reads the header, so ``ALLOWED_HOSTS``, ``USE_X_FORWARDED_HOST`` and repeated headers
    are treated exactly as for HTTP. Case, port, a trailing dot and ``www.`` make no difference.
    Raises :class:`~django_tenant_messaging.exceptions.TenantNotFound`.
    """
    return _tenant_of_domain(_address(request).hostname)


def resolve_tenants(requests: Iterable[HttpRequest]) -> list[Tenant | None]:
    """Return the tenants that the Host headers of requests name, ``None`` for one that names none; one query."""
    hostnames = [_hostname_of(request) for request in requests]
    tenants = _tenants_of_domains({hostname for hostname in hostnames if hostname is not None})
    return [None if hostname is None else tenants.get(hostname) for hostname in hostnames]


def _hostname_of(request: HttpRequest) -> str | None:
    try:
        return _address(request).hostname
    except TenantNotFound:
        return None


def origin_allowed(request: HttpRequest, tenant: Tenant) -> bool:
    """Say whether the page that opens a socket is of the same tenant; one query at most.

    A browser always sends ``Origin`` with a WebSocket handshake. Scheme and port have to be those of the request,
    or the scheme's default port. A missing, repeated or unreadable origin is foreign.
    """
    # A repeated header arrives joined by commas, which no origin contains. `request.headers` would copy all of them.
    origin = request.META.get("HTTP_ORIGIN", "").strip().lower()
    if origin in messaging_settings.ALLOWED_ORIGINS:
        return True
    # Read like a Host header: what isn't a plain scheme, name and port is no origin.
    scheme, _separator, authority = origin.partition("://")
    hostname, port = split_domain_port(authority)
    default_port = DEFAULT_PORTS.get(scheme)
    if default_port is None or not hostname:
        return False
    address = _address(request)
    if address.is_secure and scheme != "https":
        return False
    port = port or default_port
    if port not in {default_port, address.port}:
        return False
    hostname = _normalised(hostname)
    if hostname == address.hostname:
        return port == (address.port or default_port)
    try:
        return _tenant_of_domain(hostname) == tenant
    except TenantNotFound:
        return False


def _address(request: HttpRequest) -> _Address:
    try:
        hostname, port = split_domain_port(request.get_host())
    except DisallowedHost as error:
        raise TenantNotFound("This host name isn't served here; ALLOWED_HOSTS decides.") from error
    if len(port) > LONGEST_PORT:
        raise TenantNotFound("The Host header's port is no port.")
    return _Address(_normalised(hostname), port, request.is_secure())


def _normalised(hostname: str) -> str:
    name: str = remove_www(hostname.lower().rstrip("."))
    return name


def _tenant_of_domain(hostname: str) -> Tenant:
    tenant = _tenants_of_domains([hostname]).get(hostname)
    if tenant is None:
        raise TenantNotFound(f"No tenant has the domain {hostname}, or it has no messages.")
    return tenant


def _tenants_of_domains(hostnames: Iterable[str]) -> dict[str, Tenant]:
    # The database would refuse a NUL in an origin with an error of its own.
    asked = {hostname for hostname in hostnames if hostname.isprintable()}
    with activated(public_schema()):
        domains = get_tenant_domain_model().objects.using(TENANT_DATABASE).select_related("tenant")
        return {
            domain.domain: Tenant(schema_name=domain.tenant.schema_name, pk=str(domain.tenant.pk))
            for domain in domains.filter(domain__in=asked)
            if _has_messages(domain.tenant)
        }


def _has_messages(tenant: Any) -> bool:
    if is_public_schema(tenant.schema_name):
        return False
    return serves_messages(tenant.get_tenant_type() if has_multi_type_tenants() else "")
