"""The tenants' pages on a port of this machine, as a browser without a resolver for their names sees them."""

from __future__ import annotations

import contextlib
import http.client
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping


class HasHost(Protocol):
    """A tenant, as far as its address goes."""

    @property
    def host(self) -> str: ...


class Sites:
    """All tenants on one port, of the loopback interface unless told."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.port = port
        self.address = address

    def origin(self, tenant: HasHost) -> str:
        """The origin of the tenant's pages on this server."""
        return f"http://{tenant.host}:{self.port}"

    def websocket(self, tenant: HasHost) -> str:
        """The address of the tenant's WebSocket; its host name need not resolve, connect to `address`."""
        return f"ws://{tenant.host}:{self.port}/ws/messages/"

    def request(
        self, tenant: HasHost, method: str, path: str, *, data: Mapping[str, str] | None = None, cookie: str = ""
    ) -> tuple[http.client.HTTPResponse, str]:
        """Answer the response, not following redirects, and its text."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=30)
        headers = {"Host": f"{tenant.host}:{self.port}", "Cookie": cookie}
        if data is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin(tenant)}
        with contextlib.closing(connection):
            connection.request(method, path, urlencode(data) if data is not None else None, headers)
            response = connection.getresponse()
            return response, response.read().decode()

    def login(self, tenant: HasHost, username: str, password: str) -> str:
        """Log in through the login page; answer the `Cookie` header of the new session."""
        page, _ = self.request(tenant, "GET", "/accounts/login/")
        token = _cookies(page)["csrftoken"].value
        form = {"username": username, "password": password, "csrfmiddlewaretoken": token}
        cookie = f"csrftoken={token}"
        response, text = self.request(tenant, "POST", "/accounts/login/", data=form, cookie=cookie)
        assert response.status == 302, text
        return "; ".join(f"{name}={morsel.value}" for name, morsel in _cookies(response).items())

    def logout(self, tenant: HasHost, cookie: str) -> None:
        """Log the session of a `Cookie` header out."""
        form = {"csrfmiddlewaretoken": SimpleCookie(cookie)["csrftoken"].value}
        response, text = self.request(tenant, "POST", "/accounts/logout/", data=form, cookie=cookie)
        assert response.status in {200, 302}, text


def _cookies(response: http.client.HTTPResponse) -> SimpleCookie:
    cookies = SimpleCookie()
    for header in response.headers.get_all("Set-Cookie", []):
        cookies.load(header)
    return cookies
