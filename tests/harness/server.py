"""The example project under uvicorn, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from example.services.process import end, python_path, spawn
from tests.harness.sites import Sites
from tests.harness.tenants import PASSWORD

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from tests.harness.sites import HasHost

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 15


class Server(Sites):
    """A server on a free port, of the loopback interface unless told; stopped and started again it keeps the port.

    `prefix` is put before its command; `arguments` say what it takes of WebSockets.
    """

    def __init__(
        self,
        database_url: str,
        log: Path,
        env: Mapping[str, str],
        *,
        application: str = "example.asgi:application",
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = ("--ws-max-size", str(256 * 1024), "--ws-per-message-deflate", "false"),
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            super().__init__(probe.getsockname()[1], address)
        self.log = log
        self._prefix = prefix
        self._arguments = arguments
        self._application = application
        self._env = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.settings", **env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process to send a signal to."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        path = python_path(ROOT, ROOT / "example_project")
        command = [*self._prefix, sys.executable, "-m", *self._command()]
        with self.log.open("ab") as output:
            self._process = spawn(command, env={**os.environ, "PYTHONPATH": path, **self._env}, output=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the server doesn't start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def _command(self) -> list[str]:
        """The module that serves, and its arguments."""
        listen = ["--host", self.address, "--port", str(self.port), *self._arguments]
        return ["uvicorn", self._application, *listen, "--timeout-graceful-shutdown", "2", "--no-access-log"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server by the given signal."""
        if self._process is not None:
            end(self._process, signals=(number,), seconds=STOP_SECONDS)
            self._process = None

    def login(self, tenant: HasHost, username: str, password: str = PASSWORD) -> str:
        """Log in, by default with the password of the users that tests make."""
        return super().login(tenant, username, password)

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
            return True
        return False


class Daphne(Server):
    """The same under daphne."""

    def _command(self) -> list[str]:
        return ["daphne", "-b", self.address, "-p", str(self.port), self._application]
