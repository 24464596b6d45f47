"""Installing by the README, word for word, into projects that lived without the app before."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.harness.run import Run

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "tests/projects/host"
INSTALL = re.search(r"^## Install\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)[1]  # type: ignore[index]
STEPS = INSTALL[: INSTALL.index("That is all")]


def readme_block(first_line: str) -> str:
    """The Python of the README's install section that begins with this comment."""
    (block,) = re.findall(rf"```python\n({re.escape(first_line)}\n.*?)```", INSTALL, re.DOTALL)
    return f"\n{block}"


def test_readme_installs_in_under_30_lines() -> None:
    assert len(STEPS.splitlines()) < 30


@pytest.fixture
def host(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Host:
    """A copy of the host project in the shape of the parameter, with a database of its own."""
    folder = tmp_path / "host"
    shutil.copytree(HOST, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return Host(folder, request.param, run.create(f"install_{request.param}"))


class Host:
    def __init__(self, folder: Path, shape: str, database_url: str) -> None:
        self.folder = folder
        self.shape = shape
        self._env = {**os.environ, "DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": f"config.{shape}"}

    @property
    def shares_users(self) -> bool:
        return self.shape in {"shared_users", "other_schema"}

    def run(self, *command: str) -> str:
        """Run one of the host's scripts as its developers would; warnings are errors."""
        done = subprocess.run(
            [sys.executable, "-W", "error", *command],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def append(self, file: str, text: str) -> None:
        """Add lines to one of the host's files, as the README says."""
        with (self.folder / file).open("a") as opened:
            opened.write(text)

    def install(self) -> None:
        """Follow the README."""
        settings = f"config/{self.shape}.py"
        self.append(settings, readme_block("# settings.py"))
        if self.shares_users:
            self.append(settings, readme_block("# settings.py, with shared users"))
        self.append("config/urls.py", readme_block("# urls.py"))
        self.append("config/asgi.py", readme_block("# asgi.py"))
        self.run("manage.py", "migrate_schemas")


@pytest.mark.parametrize("host", ["tenant_users", "shared_users", "custom_user"], indirect=True)
def test_readme_installs_into_a_living_host(host: Host) -> None:
    host.run("manage.py", "migrate_schemas")
    host.run("before.py")
    host.install()
    host.run("manage.py", "check", "--fail-level", "WARNING")
    host.run("manage.py", "makemigrations", "--check", "--dry-run")

    shown: dict[str, Any] = json.loads(host.run("after.py").splitlines()[-1])

    ben = {"anonymous": 302, "status": 200}
    assert shown["application"] != "ASGIHandler"
    assert shown["acme"]["messages"] == ["for Ben alone"]
    assert shown["acme"]["notified"] == ["ben@example.com"]
    assert shown["acme"]["ben"] == {**ben, "shown": True}
    assert shown["globex"]["messages"] == []
    assert shown["globex"]["notified"] == []
    assert shown["globex"]["ben"] == {**ben, "shown": False}
    # Dan came after the installation, in acme. Shared users get a status where they belong and are not new.
    own, old = not host.shares_users, ["ann@example.com", "ben@example.com"]
    dan = ["dan@example.com"] if own else []
    assert shown["acme"]["statuses"] == [dan, old + dan]
    assert shown["globex"]["statuses"] == [[], old]
    assert shown["acme"]["after deletion"] == [["for Ben alone", None]]
    assert (shown["acme"]["broken"], shown["globex"]["broken"]) == (503, 200)
    for company in ("acme", "globex"):
        assert shown[company]["stranger"]["status"] != 200


@pytest.mark.parametrize("host", ["odd_names", "other_schema"], indirect=True)
def test_a_host_may_name_the_table_and_columns_of_its_users_as_it_likes(host: Host) -> None:
    host.run("manage.py", "migrate_schemas")
    host.run("before.py")
    host.install()
    host.run("manage.py", "check", "--fail-level", "WARNING")
    host.run("manage.py", "makemigrations", "--check", "--dry-run")

    shown: dict[str, Any] = json.loads(host.run("conversation.py").splitlines()[-1])

    ann, ben = "ann@example.com", "ben@example.com"
    assert shown["acme"] == {
        "rooms": ["team"],
        "others": [ben],
        "texts": ["for Ben", "hello again", "", *(f"more {number}" for number in range(8))],
        "unread": [9, 1],
        "statuses": 2,
        "told": [ben],
        "contacts": [ann],
        "heads": {"1": 12},
        "joined": 2,
    }
    assert shown["globex"] == {
        "rooms": [],
        "others": [],
        "texts": [],
        "unread": [],
        "statuses": 2,
        "told": [],
        "contacts": [],
        "heads": {},
        "joined": 0,
    }
    passwords = {ann: "ann's", ben: "ben's"}
    assert shown["logins"] == ([] if host.shares_users else [["acme", passwords], ["globex", passwords]])
    assert shown["states"] == {"public": "ok", "acme": "ok", "globex": "ok"}
