"""Which tenant a handshake is of, and which pages may make one. The answer is that of HTTP, where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.test import override_settings
from django_tenants.middleware.main import TenantMainMiddleware

from django_tenant_messaging.exceptions import TenantNotFound
from django_tenant_messaging.tenancy import Tenant, current_schema, handshake_request, origin_allowed, resolve_tenant
from example.customers.models import Customer, Domain

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_HOSTS = override_settings(ALLOWED_HOSTS=["*"])


@pytest.fixture(scope="module", autouse=True)
def domains(database_url: str, django_db_blocker: Any) -> Iterator[None]:
    """More names for acme: under another top level, with an umlaut, and an address."""
    names = ("chat.acme.example", "xn--mnchen-3ya.localhost", "127.0.0.1", "[::1]")
    with django_db_blocker.unblock():
        acme = Customer.objects.get(schema_name="acme")
        made = [Domain.objects.create(domain=name, tenant=acme, is_primary=False) for name in names]
        yield
        for domain in made:
            domain.delete()


def handshake(*hosts: str | bytes, scheme: str = "ws", **headers: str | list[str]) -> HttpRequest:
    """The request of a handshake; `x_name="value"` or `["one", "two"]` adds headers."""
    fields = [(b"host", host if isinstance(host, bytes) else host.encode()) for host in hosts]
    for name, values in headers.items():
        several = [values] if isinstance(values, str) else values
        fields += [(name.replace("_", "-").encode(), value.encode("latin-1")) for value in several]
    return handshake_request(
        {"type": "websocket", "path": "/ws/messages/", "query_string": b"", "scheme": scheme, "headers": fields}
    )


def by_websocket(request: HttpRequest) -> str | None:
    try:
        return resolve_tenant(request).schema_name
    except TenantNotFound:
        return None


def by_http(request: HttpRequest) -> str | None:
    """The tenant that django-tenants' middleware finds, `None` for a refusal and for the public schema."""
    untyped: Any = connection
    try:
        if TenantMainMiddleware(lambda _request: HttpResponse()).process_request(request) is not None:
            return None
    except Http404:
        return None
    finally:
        untyped.set_schema_to_public()
    found: str = request.tenant.schema_name  # type: ignore[attr-defined]
    return None if found == "public" else found


SAME_AS_HTTP = {
    "acme.localhost": "acme",
    "globex.localhost": "globex",
    "acme.localhost:8000": "acme",
    "www.acme.localhost": "acme",
    "www.acme.localhost:8000": "acme",
    "chat.acme.example": "acme",
    "xn--mnchen-3ya.localhost": "acme",
    "127.0.0.1:8000": "acme",
    "": None,
    "localhost": None,
    "localhost:8000": None,
    "www.localhost": None,
    "unknown.localhost": None,
    "sub.acme.localhost": None,
    "www.www.acme.localhost": None,
    "acme.localhost.evil.example": None,
    "acme.localhost@globex.localhost": None,
    "acme.localhost/": None,
    "acme.localhost#": None,
    "acme localhost": None,
    "acme.localhost,globex.localhost": None,
    "%61cme.localhost": None,
    "acme": None,
    "*": None,
    "' OR ''='": None,
    "[::2]": None,
    "[::1": None,
    "acme.localhost:http": None,
    "a" * 300: None,
}
HTTP_REFUSES = {
    "ACME.localhost": "acme",
    "Acme.LocalHost:8000": "acme",
    "acme.localhost.": "acme",
    "acme.localhost.:8000": "acme",
    "WWW.acme.localhost": "acme",
    "XN--MNCHEN-3YA.localhost": "acme",
    "[::1]": "acme",
    "[::1]:8000": "acme",
}


@ALL_HOSTS
@pytest.mark.parametrize(
    ("host", "schema_name"), (SAME_AS_HTTP | HTTP_REFUSES).items(), ids=lambda value: str(value)[:40]
)
def test_host_names_the_tenant(host: str, schema_name: str | None) -> None:
    assert by_websocket(handshake(host)) == schema_name
    assert by_http(handshake(host)) == (None if host in HTTP_REFUSES else schema_name)
    assert current_schema() == "public"


def test_port_that_is_none() -> None:
    assert by_websocket(handshake("acme.localhost:65535")) == "acme"
    assert by_websocket(handshake("acme.localhost:" + "9" * 5_000)) is None


@ALL_HOSTS
@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("acme.localhost", "globex.localhost"),
        ("acme.localhost", "acme.localhost"),
        ("münchen.localhost",),
        (b"\xff",),
    ],
)
def test_host_header_has_to_come_once_in_ascii(hosts: tuple[str | bytes, ...]) -> None:
    assert by_websocket(handshake(*hosts)) is None
    assert by_http(handshake(*hosts)) is None


@pytest.mark.parametrize(
    ("allowed", "served"),
    [
        (["acme.localhost"], {"acme.localhost", "acme.localhost.", "ACME.localhost"}),
        ([".acme.localhost"], {"acme.localhost", "acme.localhost.", "ACME.localhost", "www.acme.localhost"}),
        (["chat.acme.example"], {"chat.acme.example"}),
        (["other.example"], set()),
    ],
)
def test_allowed_hosts_count(allowed: list[str], served: set[str]) -> None:
    asked = ("acme.localhost", "acme.localhost.", "ACME.localhost", "www.acme.localhost", "chat.acme.example")
    with override_settings(ALLOWED_HOSTS=allowed):
        assert {host for host in asked if by_websocket(handshake(host))} == served
        assert by_websocket(handshake("globex.localhost")) is None


@pytest.mark.parametrize(("trusted", "schema_name"), [(False, "acme"), (True, "globex")])
def test_forwarded_host_counts_only_when_the_host_says_so(trusted: bool, schema_name: str) -> None:
    request = handshake("acme.localhost", x_forwarded_host="globex.localhost")
    with override_settings(USE_X_FORWARDED_HOST=trusted):
        assert by_websocket(request) == by_http(request) == schema_name
        twice = handshake("acme.localhost", x_forwarded_host=["globex.localhost", "globex.localhost"])
        assert by_websocket(twice) == by_http(twice) == (None if trusted else "acme")


def test_a_tenant_of_a_type_without_this_app_has_no_socket() -> None:
    ours = {"APPS": ["django_tenant_messaging"]}
    kinds = {"public": {"APPS": []}, "Acme": {"APPS": ["django.contrib.auth"]}, "Globex": ours}
    types: dict[str, Any] = {"HAS_MULTI_TYPE_TENANTS": True, "MULTI_TYPE_DATABASE_FIELD": "name", "TENANT_TYPES": kinds}
    with override_settings(**types):
        assert by_websocket(handshake("acme.localhost")) is None
        assert by_websocket(handshake("globex.localhost")) == "globex"


def test_tenant_is_a_value() -> None:
    tenant = resolve_tenant(handshake("acme.localhost"))
    assert tenant == Tenant("acme", str(Customer.objects.get(schema_name="acme").pk))
    assert hash(tenant) == hash(resolve_tenant(handshake("www.acme.localhost:8000")))
    with pytest.raises(AttributeError):
        tenant.schema_name = "globex"  # type: ignore[misc]


def test_allowed_hosts_are_told_apart_from_unknown_names_for_people_only() -> None:
    with pytest.raises(TenantNotFound, match="ALLOWED_HOSTS"):
        resolve_tenant(handshake("acme.example"))
    with pytest.raises(TenantNotFound, match=r"No tenant has the domain unknown\.localhost"):
        resolve_tenant(handshake("unknown.localhost"))


OWN = "acme.localhost"
PLAIN, SECURE = "ws", "wss"
OWN_ORIGINS = [
    # the page's Host, the socket's scheme, the page's origin
    (OWN, PLAIN, "http://acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost:80"),
    (OWN, PLAIN, "HTTP://ACME.localhost"),
    (OWN, PLAIN, "http://www.acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost."),
    ("acme.localhost:8000", PLAIN, "http://acme.localhost:8000"),
    ("acme.localhost:8000", PLAIN, "http://www.acme.localhost:8000"),
    ("www.acme.localhost", PLAIN, "http://acme.localhost"),
    (OWN, SECURE, "https://acme.localhost"),
    (OWN, SECURE, "https://acme.localhost:443"),
    ("acme.localhost:8443", SECURE, "https://acme.localhost:8443"),
    # A proxy that ends TLS and tells nobody: the page is https, the request isn't.
    (OWN, PLAIN, "https://acme.localhost"),
    # Another domain of the same tenant.
    (OWN, PLAIN, "http://chat.acme.example"),
    (OWN, SECURE, "https://chat.acme.example"),
    ("chat.acme.example", SECURE, "https://acme.localhost"),
    ("acme.localhost:8000", PLAIN, "http://chat.acme.example:8000"),
    (OWN, PLAIN, "http://xn--mnchen-3ya.localhost"),
    ("[::1]:8000", PLAIN, "http://[::1]:8000"),
]
FOREIGN_ORIGINS = [
    (OWN, PLAIN, "http://globex.localhost"),
    (OWN, SECURE, "https://globex.localhost"),
    ("globex.localhost", PLAIN, "http://acme.localhost"),
    (OWN, PLAIN, "http://localhost"),
    (OWN, PLAIN, "http://evil.example"),
    (OWN, PLAIN, "http://sub.acme.localhost"),
    (OWN, PLAIN, "http://evil-acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost.evil.example"),
    (OWN, PLAIN, "http://acme.localhost:8000"),
    (OWN, PLAIN, "http://acme.localhost:0"),
    (OWN, PLAIN, "http://chat.acme.example:8000"),
    ("acme.localhost:8000", PLAIN, "http://acme.localhost"),
    ("acme.localhost:8000", PLAIN, "http://acme.localhost:8001"),
    ("acme.localhost:8000", PLAIN, "http://chat.acme.example:8001"),
    (OWN, SECURE, "http://acme.localhost"),
    (OWN, SECURE, "https://acme.localhost:8443"),
    (OWN, PLAIN, ""),
    (OWN, PLAIN, "null"),
    (OWN, PLAIN, "acme.localhost"),
    (OWN, PLAIN, "//acme.localhost"),
    (OWN, PLAIN, "http:acme.localhost"),
    (OWN, PLAIN, "http://"),
    (OWN, PLAIN, "ws://acme.localhost"),
    (OWN, PLAIN, "file://acme.localhost"),
    (OWN, PLAIN, "javascript://acme.localhost"),
    (OWN, PLAIN, "http://user:pass@acme.localhost"),
    (OWN, PLAIN, "http://evil.example@acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost@evil.example"),
    (OWN, PLAIN, "http://acme.localhost/"),
    (OWN, PLAIN, "http://acme.localhost/page"),
    (OWN, PLAIN, "http://acme.localhost?page"),
    (OWN, PLAIN, "http://acme.localhost?"),
    (OWN, PLAIN, "http://acme.localhost#page"),
    (OWN, PLAIN, "http://acme.lo\tcalhost"),
    (OWN, PLAIN, "http://evil.example\\@acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost, http://acme.localhost"),
    (OWN, PLAIN, "http://acme.localhost http://evil.example"),
    (OWN, PLAIN, "http://acme.localhost:port"),
    (OWN, PLAIN, "http://acme.localhost:99999"),
    (OWN, PLAIN, "http://acme.localhost:" + "9" * 5_000),
    (OWN, PLAIN, "http://[::1"),
    (OWN, PLAIN, "http://\xff"),
]


def origin_counts(host: str, scheme: str, **headers: str | list[str]) -> bool:
    request = handshake(host, scheme=scheme, **headers)
    return origin_allowed(request, resolve_tenant(request))


@ALL_HOSTS
@pytest.mark.parametrize(("host", "scheme", "origin"), OWN_ORIGINS)
def test_origin_of_the_tenants_own_pages(host: str, scheme: str, origin: str) -> None:
    assert origin_counts(host, scheme, origin=origin)


@ALL_HOSTS
@pytest.mark.parametrize(("host", "scheme", "origin"), FOREIGN_ORIGINS, ids=lambda value: value[:40])
def test_foreign_origin(host: str, scheme: str, origin: str) -> None:
    assert not origin_counts(host, scheme, origin=origin)


def test_origin_has_to_come_once() -> None:
    assert not origin_counts(OWN, PLAIN)
    assert not origin_counts(OWN, PLAIN, origin=["http://acme.localhost", "http://acme.localhost"])
    assert not origin_counts(OWN, PLAIN, origin=["http://acme.localhost", "http://evil.example"])


@pytest.mark.parametrize(
    "origin", ["https://app.example.com", "https://APP.example.com", "https://app.example.com:8443"]
)
def test_allowed_origins(origin: str) -> None:
    with override_settings(TENANT_MESSAGING={"ALLOWED_ORIGINS": [origin.lower()]}):
        assert origin_counts(OWN, PLAIN, origin=origin)
        assert origin_counts("globex.localhost", SECURE, origin=origin.lower())
        for other in (
            "http://app.example.com",
            "https://app.example.com:444",
            "https://sub.app.example.com",
            "",
            "null",
        ):
            assert not origin_counts(OWN, PLAIN, origin=other)


def test_origin_behind_a_proxy() -> None:
    """The proxy's host name is the page's, and so is its port."""
    forwarded = {"x_forwarded_host": "acme.localhost", "x_forwarded_proto": "https"}
    headers = {"USE_X_FORWARDED_HOST": True, "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}
    with override_settings(ALLOWED_HOSTS=[".localhost"], **headers):
        assert origin_counts("backend:8000", PLAIN, origin="https://acme.localhost", **forwarded)
        assert not origin_counts("backend:8000", PLAIN, origin="http://acme.localhost", **forwarded)
        assert not origin_counts("backend:8000", PLAIN, origin="https://globex.localhost", **forwarded)
        assert not origin_counts("backend:8000", PLAIN, origin="https://acme.localhost:8000", **forwarded)
