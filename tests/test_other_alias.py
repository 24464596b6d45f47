"""The gate where the tenants' schemas aren't in Django's default database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from example.services.process import python_path
from tests.harness.breaking import STATUS_TABLE
from tests.harness.spare import execute, spare_tenant

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = """
from tests.settings import *

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    "tenants": DATABASES["default"],
}
TENANT_DB_ALIAS = "tenants"
"""


@pytest.fixture
def verify(tmp_path: Path, database_url: str) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the command in a host whose default database is another; returns its exit status and its document."""
    (tmp_path / "other_alias.py").write_text(SETTINGS)
    path = python_path(tmp_path, ROOT, ROOT / "example_project")
    env = {
        **os.environ,
        "PYTHONPATH": path,
        "DATABASE_URL": database_url,
        "DJANGO_SETTINGS_MODULE": "other_alias",
    }

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "example_project/manage.py", "verify_tenant_migrations", "--json", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


def test_another_database_alias_is_verified_and_repaired(
    tenants: Any, verify: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    status, found = verify()
    assert (status, [one["schema"] for one in found["schemas"]]) == (0, ["public", "acme", "globex"])
    with spare_tenant("spare"):
        execute(f"DROP TABLE spare.{STATUS_TABLE}")
        status, found = verify("--schema", "spare")
        assert (status, found["schemas"][0]["missing_relations"]) == (1, [STATUS_TABLE])
        status, found = verify("--schema", "spare", "--fix")
        assert (status, found["schemas"][0]["state"]) == (0, "ok")
        execute("DELETE FROM spare.django_migrations WHERE app = 'sessions'; DROP TABLE spare.django_session")
        status, found = verify("--schema", "spare", "--fix")
        assert (status, found["schemas"][0]["state"]) == (0, "ok")
