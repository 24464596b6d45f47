"""A container starts its server only when every tenant is migrated; the files that describe containers agree."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from django.conf import settings
from django.core.management import call_command
from django.urls import resolve

from django_tenant_messaging.tenancy.gate import inspect_schema, verdicts
from tests.test_metrics import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "example_project"
DEPLOY = PROJECT / "deploy"
ENTRYPOINT = DEPLOY / "entrypoint.sh"
APP = "django_tenant_messaging"
PATIENCE = 60
#: Stands for the server: says who it is, and ends by itself once it is told to, or when it hears SIGTERM.
SERVER = """
import os, signal, sys

def stop(number, frame):
    # Not by print, which the signal may have interrupted.
    os.write(1, b"stopped\\n")
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
print("started", os.getpid(), *sys.argv[1:], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def enter(database_url: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`enter(NAME="value", ...)` runs the script as a container does; the server ends when its input does."""
    processes: list[subprocess.Popen[str]] = []

    def start(*command: str, **env: str) -> subprocess.Popen[str]:
        folder = Path(sys.executable).parent
        process = subprocess.Popen(
            ["sh", ENTRYPOINT, *(command or (sys.executable, "-c", SERVER, "an argument"))],
            cwd=PROJECT,
            env={
                "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
                "DATABASE_URL": database_url,
                "DATABASE_WAIT": "20",
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def unapplied(tenants: Any) -> Iterator[None]:
    """The app's migrations are undone in acme."""
    try:
        call_command("migrate_schemas", APP, "zero", schema_name="acme", verbosity=0)
        verdicts.forget_all()
        yield
    finally:
        call_command("migrate_schemas", schema_name="acme", verbosity=0)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_when_all_is_ready_the_script_becomes_the_server(tenants: Any, enter: Any) -> None:
    process = enter()
    status, out, err = ended(process)
    assert status == 0, out + err
    assert out.splitlines()[-1] == f"started {process.pid} an argument"


def test_signals_reach_the_server_and_its_status_is_the_containers(tenants: Any, enter: Any) -> None:
    process = enter()
    while not process.stdout.readline().startswith("started"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    status, out, _err = ended(process)
    assert (status, out) == (7, "stopped\n")


def test_with_a_tenant_that_is_not_ready_nothing_is_started(unapplied: None, enter: Any) -> None:
    status, out, err = ended(enter())
    assert status == 1
    assert "started" not in out
    assert "acme" in out + err
    assert "globex" not in err
    assert "entrypoint: tenants are not ready. Repair them: python manage.py verify_tenant_migrations --fix" in err
    assert "DISABLE_MIGRATION_CHECK=true" in err


def test_asked_to_it_migrates_first_and_starts(unapplied: None, enter: Any) -> None:
    process = enter(MIGRATE_ON_START="True")
    status, out, err = ended(process)
    assert status == 0, err
    assert f"started {process.pid}" in out
    assert inspect_schema("acme", "").is_ready
    # The next container finds nothing to do.
    assert ended(enter())[0] == 0


def test_it_migrates_only_when_asked_clearly(unapplied: None, enter: Any) -> None:
    assert ended(enter(MIGRATE_ON_START="1"))[0] == 1
    assert not inspect_schema("acme", "").is_ready


def test_in_an_emergency_it_starts_and_says_so(unapplied: None, enter: Any) -> None:
    process = enter(DISABLE_MIGRATION_CHECK="true")
    status, out, err = ended(process)
    assert status == 0
    assert f"started {process.pid}" in out
    assert "entrypoint: started all the same, because of DISABLE_MIGRATION_CHECK=true." in err


def test_a_database_that_is_down_ends_the_wait_with_2(enter: Any) -> None:
    status, out, err = ended(enter(DATABASE_URL=NOWHERE, DATABASE_WAIT="1"))
    assert status == 2
    assert out == ""
    assert "The database did not answer within 1 s" in err
    assert "entrypoint: not started: the database can't be reached." in err


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(PATIENCE)
        yield listener


def test_a_database_that_accepts_and_stays_silent_ends_the_wait_too(enter: Any, silent: socket.socket) -> None:
    url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/nothing"
    status, _out, err = ended(enter(DATABASE_URL=url, DATABASE_WAIT="0"))
    assert status == 2
    assert "not started" in err


def test_a_database_that_comes_late_is_waited_for(
    tenants: Any, enter: Any, silent: socket.socket, database_url: str, tmp_path: Path
) -> None:
    # A file that the database's clients read at each try says where it is.
    services = tmp_path / "services.conf"
    services.write_text(f"[late]\nhost=127.0.0.1\nport={silent.getsockname()[1]}\nuser=postgres\ndbname=nothing\n")
    process = enter(DATABASE_URL="service=late", PGSERVICEFILE=str(services), DATABASE_WAIT="40")
    first_try, _address = silent.accept()
    services.write_text("[late]\n" + "\n".join(shlex.split(database_url)) + "\n")
    first_try.close()
    status, out, err = ended(process)
    assert status == 0, err
    assert f"started {process.pid}" in out


def test_a_stopping_container_is_not_kept_waiting(enter: Any, silent: socket.socket) -> None:
    url = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/nothing"
    process = enter(DATABASE_URL=url, DATABASE_WAIT="600")
    # The wait has begun when it connects.
    attempt, _address = silent.accept()
    with attempt:
        process.send_signal(signal.SIGTERM)
        status, _out, err = ended(process)
    assert status == 143
    assert "entrypoint: stopped before the server was started." in err


def test_a_wrong_number_of_seconds_is_told(enter: Any) -> None:
    status, _out, err = ended(enter(DATABASE_WAIT="soon"))
    assert status == 2
    assert "invalid float value: 'soon'" in err


def test_without_a_command_it_says_so(database_url: str) -> None:
    done = subprocess.run(["sh", ENTRYPOINT], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no command was given" in done.stderr


def test_a_project_that_cannot_start_is_not_called_unmigrated(enter: Any) -> None:
    status, _out, err = ended(enter(DJANGO_SETTINGS_MODULE="example.nothing"))
    assert status == 2
    assert "ModuleNotFoundError" in err


def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_copies_what_there_is() -> None:
    copied = [rest.split() for word, rest in dockerfile() if word == "COPY"]
    sources = [source for *given, _target in copied for source in given]
    assert len(sources) >= 5
    for source in sources:
        assert (ROOT / source).exists(), source
    # What the package is built from is there before it is built.
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= set(sources)


def test_the_containers_server_is_nobody_important_and_starts_by_the_script() -> None:
    instructions = dockerfile()
    users = [rest for word, rest in instructions if word == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}
    assert any(word == "RUN" and rest.startswith("useradd") and rest.endswith(users[-1]) for word, rest in instructions)
    (entrypoint,) = (rest for word, rest in instructions if word == "ENTRYPOINT")
    (command,) = (rest for word, rest in instructions if word == "CMD")
    assert yaml.safe_load(entrypoint) == ["/app/example_project/deploy/entrypoint.sh"]
    assert os.access(ENTRYPOINT, os.X_OK)
    assert yaml.safe_load(command)[-1] == "example.asgi:application"


def test_the_health_check_asks_an_address_that_exists() -> None:
    (check,) = (rest for word, rest in dockerfile() if word == "HEALTHCHECK")
    _python, _option, program = yaml.safe_load(check.partition("CMD")[2])
    compile(program, "HEALTHCHECK", "exec")
    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/[\w/]+)", program)
    assert resolve(path, urlconf="example.urls").view_name.endswith(":migrations")
    # It names no tenant's host.
    assert settings.MIDDLEWARE[0].endswith("MigrationHealthMiddleware")


def test_the_compose_file_holds_together() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "redis", "migrate", "web"}
    assert services["web"]["depends_on"] == {
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    for service in services.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] != "service_healthy" or "test" in services[name]["healthcheck"]
    for name in ("migrate", "web"):
        build = services[name]["build"]
        context = (DEPLOY / build["context"]).resolve()
        assert context == ROOT
        assert (context / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
        read = "".join((PROJECT / "example" / name).read_text() for name in ("settings.py", "seed.py"))
        for variable in services[name]["environment"]:
            assert f'os.environ.get("{variable}"' in read, variable


def test_what_is_published_is_published_on_this_machine_alone_and_nothing_secret_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    services = yaml.safe_load(text)["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]
    assert all(service.get("network_mode") is None for service in services.values())
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD", "DEMO_PASSWORD"):
        # Required where it is used first, with a sentence for those who forgot it.
        assert re.search(rf"\$\{{{name}\W", text)[0] == f"${{{name}:"  # type: ignore[index]
        assert re.search(rf"\$\{{{name}:\?Set [^}}]+\}}", text)
    assert not re.search(r"\$\{\w+:?-", text)
    assert "DEBUG" not in text + (DEPLOY / "Dockerfile").read_text()


@pytest.mark.parametrize("command", [("-c", "import example.asgi"), ("manage.py", "demo_setup")])
def test_the_example_does_not_start_without_its_secrets(command: tuple[str, ...], database_url: str) -> None:
    env = {**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "example.settings"}
    for name in ("SECRET_KEY", "DEMO_PASSWORD"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, *command], cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    said = done.stderr.strip().splitlines()[-1]
    assert "SECRET_KEY setting must not be empty" in said or said.startswith("CommandError: Set DEMO_PASSWORD")


def test_the_example_is_not_in_debug_mode_unless_told() -> None:
    show = "from example.settings import DEBUG, SECRET_KEY; print(DEBUG, repr(SECRET_KEY))"
    for given, expected in (({}, "False ''"), ({"DEBUG": "1", "SECRET_KEY": "given"}, "True 'given'")):
        env = {name: value for name, value in os.environ.items() if name not in {"DEBUG", "SECRET_KEY"}} | given
        done = subprocess.run(
            [sys.executable, "-c", show], cwd=PROJECT, env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
