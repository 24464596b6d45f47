"""A server of the example project for the length of a play."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from django_tenant_messaging.conf import RATE_LIMIT, known_settings
from example.services.process import ServiceError, end, python_path, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

PROJECT_DIR = Path(__file__).resolve().parent.parent
START_SECONDS = 60
STOP_SECONDS = 30
SHOWN_LINES = 40
UNLIMITED = {setting.name: None for setting in known_settings() if setting.rule is RATE_LIMIT}
"""The replay is as fast as the server can be, not as people are."""


@contextmanager
def own_server(tell: Callable[[str], object]) -> Iterator[tuple[str, int]]:
    """Serve the example project on a free loopback port; `tell` is given what the server complained about."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "example.asgi:application",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--ws", "websockets-sansio", "--ws-max-size", str(256 * 1024), "--ws-per-message-deflate", "false"]
    command += ["--timeout-graceful-shutdown", "2", "--no-access-log", "--log-level", "warning"]
    # In debug mode Django keeps the text of every query.
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(PROJECT_DIR),
        "DEBUG": "0",
        "TENANT_MESSAGING": json.dumps(UNLIMITED),
    }
    with tempfile.TemporaryFile() as log:
        process = spawn(command, env=environment, output=log)
        try:
            _wait_until_ready("127.0.0.1", port, process)
            yield "127.0.0.1", port
        finally:
            end(process, signals=(signal.SIGTERM,), seconds=STOP_SECONDS)
            for line in _said(log)[-SHOWN_LINES:]:
                tell(f"server: {line}")


def require_answer(host: str, port: int) -> None:
    """Raise ServiceError unless something accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        raise ServiceError(f"No server answers at {host}:{port}: {error.strerror or error}.") from error


def _wait_until_ready(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"The server ended at its start with status {process.returncode}.")
        with contextlib.suppress(ServiceError):
            require_answer(host, port)
            return
        time.sleep(0.05)
    raise ServiceError(f"The server doesn't answer within {START_SECONDS} s.")


def _said(log: IO[bytes]) -> list[str]:
    log.seek(0)
    return log.read().decode(errors="replace").splitlines()
