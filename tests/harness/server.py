"""The example project under uvicorn, in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from example.services.process import end, spawn
from tests.harness.tenants import PASSWORD

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping

    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 15


class Server:
    """A server on a free loopback port; stopped and started again it keeps the port."""

    def __init__(self, database_url: str, log: Path, env: Mapping[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.log = log
        self._env = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings", **env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process to send a signal to."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        path = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "example_project"))
        command = [sys.executable, "-m", "uvicorn", "example.asgi:application"]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--ws-max-size", str(256 * 1024)]
        command += ["--timeout-graceful-shutdown", "2", "--no-access-log"]
        with self.log.open("ab") as output:
            self._process = spawn(command, env={**os.environ, "PYTHONPATH": path, **self._env}, output=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the server doesn't start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server by the given signal."""
        if self._process is not None:
            end(self._process, signals=(number,), seconds=STOP_SECONDS)
            self._process = None

    def origin(self, tenant: Tenant) -> str:
        """The origin of the tenant's pages on this server."""
        return f"http://{tenant.host}:{self.port}"

    def websocket(self, tenant: Tenant) -> str:
        """The address of the tenant's WebSocket; its host name need not resolve, connect to 127.0.0.1."""
        return f"ws://{tenant.host}:{self.port}/ws/messages/"

    def request(
        self,
        tenant: Tenant,
        method: str,
        path: str,
        *,
        data: Mapping[str, str] | None = None,
        cookie: str = "",
    ) -> tuple[http.client.HTTPResponse, str]:
        """Answer the response, not following redirects, and its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Host": f"{tenant.host}:{self.port}", "Cookie": cookie}
        if data is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin(tenant)}
        with contextlib.closing(connection):
            connection.request(method, path, urlencode(data) if data is not None else None, headers)
            response = connection.getresponse()
            return response, response.read().decode()

    def login(self, tenant: Tenant, username: str, password: str = PASSWORD) -> str:
        """Log in through the login page; answer the `Cookie` header of the new session."""
        page, _ = self.request(tenant, "GET", "/accounts/login/")
        token = _cookies(page)["csrftoken"].value
        form = {"username": username, "password": password, "csrfmiddlewaretoken": token}
        cookie = f"csrftoken={token}"
        response, text = self.request(tenant, "POST", "/accounts/login/", data=form, cookie=cookie)
        assert response.status == 302, text
        return "; ".join(f"{name}={morsel.value}" for name, morsel in _cookies(response).items())

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def _cookies(response: http.client.HTTPResponse) -> SimpleCookie:
    cookies = SimpleCookie()
    for header in response.headers.get_all("Set-Cookie", []):
        cookies.load(header)
    return cookies
