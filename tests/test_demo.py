from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from example.services import running_url, temporary_folder
from example.services.process import end
from tests.harness.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60
STOP_SECONDS = 60
UNAPPLY = ("migrate_schemas", "--schema=acme", "django_tenant_messaging", "zero")


class Demo:
    """The demo in a process group of its own, as a terminal starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        """What the demo made up at its first start."""
        return (self.folder / "demo_password").read_text()

    def command(self, port: int | str) -> tuple[list[str], dict[str, str]]:
        env = {**os.environ, "DEMO_PORT": str(port), "DEMO_FOLDER": str(self.folder)}
        # The demo's own server is what is shown here.
        env.pop("DATABASE_URL", None)
        for name in ("REDIS_URL", "SECRET_KEY", "DEMO_PASSWORD"):
            env.pop(name, None)
        return [sys.executable, "example_project/demo.py"], env

    def start(self) -> str:
        """Start; answer what was printed until the demo was ready."""
        command, env = self.command(self.port)
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            printed += line.decode()
            if "Ctrl-C" in printed:
                return printed
        raise AssertionError(printed)

    def stop(self, number: signal.Signals) -> int:
        """Send the signal to the process group, as Ctrl-C does; answer the exit status."""
        assert self.process is not None
        assert self.process.stdout is not None
        os.killpg(self.process.pid, number)
        status = self.process.wait(STOP_SECONDS)
        self.process.stdout.close()
        return status

    def refused(self, port: int | str) -> str:
        """Start where it can't; answer the sentence it says."""
        command, env = self.command(port)
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=START_SECONDS
        )
        assert done.returncode == 2
        assert done.stdout == ""
        (sentence,) = done.stderr.splitlines()
        return sentence


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which root's PostgreSQL may have its data: pytest's own are closed to its account."""
    folder = temporary_folder("messaging_demo_")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def demo(open_folder: Path) -> Iterator[Demo]:
    demo = Demo(open_folder / "data")
    yield demo
    if demo.process is not None:
        with demo.process as process:
            end(process, signals=(signal.SIGTERM,), seconds=15)


def postgres_pid(demo: Demo) -> int:
    return int((demo.folder / "postgres/postmaster.pid").read_text().split()[0])


def processor_seconds(demo: Demo) -> float:
    """The work done until now. The clock on the wall would measure the other tests on this machine too."""
    assert demo.process is not None
    process = psutil.Process(demo.process.pid)
    return sum(sum(part.cpu_times()[:2]) for part in (process, *process.children()))


def socket_folders(demo: Demo) -> list[str]:
    command = (demo.folder / "postgres/postmaster.opts").read_text()
    return [folder for folder in re.findall(r"unix_socket_directories=([^\"]+)", command) if Path(folder).exists()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_people_talk_and_a_second_start_is_quick_and_keeps_it(demo: Demo) -> None:
    printed = demo.start()
    for expected in (
        "acme.localhost",
        "globex.localhost",
        str(demo.port),
        "alice, bob, carol",
        demo.password,
        "alice, at /admin/",
    ):
        assert expected in printed
    await probe(demo.port, demo.password)
    (command,) = (line.split("Commands")[1].split(",")[0] for line in printed.splitlines() if "Commands" in line)
    assert shlex.split(command)[-1] == "verify_tenant_migrations"
    manage(demo, shlex.split(command))
    manage(demo, [*shlex.split(command)[:-1], "check", "--database", "default", "--fail-level", "WARNING"])
    pid = postgres_pid(demo)
    assert is_alive(pid)

    assert demo.stop(signal.SIGINT) == 0
    assert not is_alive(pid)

    demo.start()
    assert processor_seconds(demo) < 5
    await probe(demo.port, demo.password)
    pid = postgres_pid(demo)
    assert demo.stop(signal.SIGTERM) == 0
    assert not is_alive(pid)


async def test_customer_that_was_broken_stays_so_until_it_is_repaired_beside_the_running_demo(demo: Demo) -> None:
    demo.start()
    manage(demo, [sys.executable, "example_project/manage.py", *UNAPPLY])
    demo.stop(signal.SIGTERM)

    printed = demo.start()
    assert "Acme is NOT READY: not applied: django_tenant_messaging.0001_initial" in printed
    assert "Globex is NOT READY" not in printed
    (command,) = (line.strip() for line in printed.splitlines() if line.startswith(f"    {sys.executable} "))
    manage(demo, shlex.split(command))
    demo.stop(signal.SIGTERM)

    assert "NOT READY" not in demo.start()
    await probe(demo.port, demo.password)


def test_schema_that_was_lost_is_made_again(demo: Demo) -> None:
    demo.start()
    url = running_url(demo.folder / "postgres")
    assert url is not None
    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA acme CASCADE")
    demo.stop(signal.SIGTERM)
    assert running_url(demo.folder / "postgres") is None
    assert "NOT READY" not in demo.start()
    asyncio.run(probe(demo.port, demo.password))


def manage(demo: Demo, command: list[str]) -> None:
    """Run Django's command line as somebody does who started the demo in another terminal."""
    _command, env = demo.command(demo.port)
    env.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_demo_has_secrets_of_its_own_that_only_their_owner_reads(demo: Demo, open_folder: Path) -> None:
    other = Demo(open_folder / "other")
    for each in (demo, other):
        printed = each.start()
        assert each.password in printed
        each.stop(signal.SIGTERM)
        for name in ("secret_key", "demo_password"):
            assert (each.folder / name).stat().st_mode & 0o777 == 0o600
    for name, least in {"secret_key": 50, "demo_password": 12}.items():
        secrets = {(each.folder / name).read_text() for each in (demo, other)}
        assert len(secrets) == 2
        assert all(len(secret) >= least for secret in secrets)
        kept = (demo.folder / name).read_text()
        assert kept in secrets
    assert demo.password in demo.start()


def test_taken_port_is_refused(demo: Demo) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert re.fullmatch(rf"Port {port} can't be used .*DEMO_PORT.*", demo.refused(port))


@pytest.mark.parametrize("port", ["", "0", "65536", "eighty", "-1"])
def test_impossible_port_is_refused(demo: Demo, port: str) -> None:
    assert demo.refused(port) == f"DEMO_PORT must be a number from 1 to 65535, not {port!r}."


def test_folder_that_takes_no_files_is_refused(demo: Demo) -> None:
    demo.folder.write_text("a file in the folder's place")
    assert demo.refused(demo.port).startswith(f"The demo can't keep its data in {demo.folder}: ")


def test_second_demo_on_the_same_data_is_refused(demo: Demo) -> None:
    demo.start()
    other = Demo(demo.folder)
    assert other.refused(other.port) == f"A demo already runs with the data in {demo.folder}."


def test_killed_demo_leaves_no_database_server(demo: Demo) -> None:
    demo.start()
    pid = postgres_pid(demo)
    demo.stop(signal.SIGKILL)
    deadline = time.monotonic() + STOP_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (old_socket,) = socket_folders(demo)
    demo.start()
    assert old_socket not in socket_folders(demo)


def test_old_python_is_refused() -> None:
    pretend = "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); sys.argv = ['x', 'demo'];"
    done = subprocess.run(
        [sys.executable, "-c", f"{pretend} runpy.run_path('tools/bootstrap.py', run_name='__main__')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(r"Python 3\.11 or newer is needed, but .* is 3\.10: .*\n", done.stderr)
