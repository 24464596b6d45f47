"""Serve the example project with a PostgreSQL of its own, whose data is kept in the folder `.demo`."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from example.services import ServiceError, postgres_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

FOLDER = Path(os.environ.get("DEMO_FOLDER") or Path(__file__).resolve().parents[1] / ".demo")
WELCOME = """
  Open            http://acme.localhost:{port}/   and   http://globex.localhost:{port}/
  Log in as       {users}
  Password        {password}
  Administrator   {administrator}, at /admin/ of each address
  Commands        {manage} verify_tenant_migrations, for example, while the demo runs

  Two browsers, or a private window, make two people. Ctrl-C ends the demo; what was written is kept.
"""


def main() -> None:
    """Serve until a signal comes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with only_demo(), listening(demo_port()) as listener, postgres_url(FOLDER / "postgres") as url:
        os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "example.settings"}
        os.environ.setdefault("DEBUG", "1")
        use_own_secrets()
        serve(listener)


def serve(listener: socket.socket) -> None:
    """Bring the database up to date and answer requests."""
    import django
    import uvicorn

    django.setup()
    from example.seed import ADMINISTRATOR, USERNAMES, demo_password, in_this_project, seed

    seed()
    config = uvicorn.Config(
        "example.asgi:application",
        ws="websockets-sansio",
        ws_max_size=256 * 1024,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        log_level="warning",
    )
    config.load()
    port = listener.getsockname()[1]
    print(
        WELCOME.format(
            port=port,
            users=", ".join(USERNAMES),
            password=demo_password(),
            administrator=ADMINISTRATOR,
            manage=in_this_project("python manage.py"),
        ),
        flush=True,
    )
    uvicorn.Server(config).run(sockets=[listener])


def use_own_secrets() -> None:
    """Put into the environment what isn't there: a key and a password of this folder's own, made at the first start."""
    for name, length in {"SECRET_KEY": 32, "DEMO_PASSWORD": 6}.items():
        if not os.environ.get(name):
            file = FOLDER / name.lower()
            if not file.exists():
                file.touch(mode=0o600)
                file.write_text(secrets.token_hex(length))
            os.environ[name] = file.read_text()


def stop(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    """End the program, closing what is open; an impatient second signal must not interrupt that."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(0)


def demo_port() -> int:
    """The port of `DEMO_PORT`."""
    given = os.environ.get("DEMO_PORT", "8000")
    if given.isascii() and given.isdigit() and 0 < int(given) < 65536:
        return int(given)
    raise ServiceError(f"DEMO_PORT must be a number from 1 to 65535, not {given!r}.")


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on the port, taken before the slow work begins."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError as error:
            raise ServiceError(
                f"Port {port} can't be used ({error.strerror}): choose another with DEMO_PORT=number."
            ) from error
        yield listener


@contextmanager
def only_demo() -> Iterator[None]:
    """Hold the data folder, which two demos can't share."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        lock = (FOLDER / "lock").open("w")
    except OSError as error:
        raise ServiceError(f"The demo can't keep its data in {FOLDER}: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(f"A demo already runs with the data in {FOLDER}.") from error
        yield


if __name__ == "__main__":
    try:
        main()
    except ServiceError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except PermissionError as error:
        print(f"The demo can't use {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
