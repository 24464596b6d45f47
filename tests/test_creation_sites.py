"""The Site of each new tenant, in a host that has `django.contrib.sites` for its tenants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging.tenancy.gate.sites import complete_domain
from example.services.process import python_path
from tests.harness.queries import exactly

if TYPE_CHECKING:
    from tests.harness.run import Run
    from tests.harness.tenants import Tenant

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def story(run: Run, worker_id: str) -> dict[str, Any]:
    """What `tests/site_story.py` saw."""
    path = python_path(ROOT, ROOT / "example_project")
    url = run.create(f"{worker_id}_sites")
    env = {**os.environ, "PYTHONPATH": path, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.settings_sites"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.site_story"], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    steps: dict[str, Any] = json.loads(done.stdout)
    return steps


def test_site_has_djangos_placeholder_until_there_is_a_domain(story: dict[str, Any]) -> None:
    assert story["tenant"] == {"sites": {"one": [[1, "example.com", "example.com"]]}, "log": []}


def test_site_gets_the_primary_domain(story: dict[str, Any]) -> None:
    assert story["domain"] == {
        "sites": {"one": [[1, "one.localhost", "one.localhost"]]},
        "log": ["INFO Created Site for tenant one: one.localhost"],
    }


def test_process_doesnt_answer_with_the_former_site(story: dict[str, Any]) -> None:
    assert story["cached"] == "one.localhost"


def test_each_tenant_has_its_own_site(story: dict[str, Any]) -> None:
    assert story["another"]["sites"] == {
        "one": [[1, "one.localhost", "one.localhost"]],
        "two": [[1, "two.localhost", "two.localhost"]],
    }


def test_site_that_the_host_changed_is_kept(story: dict[str, Any]) -> None:
    assert story["chosen by the host"] == {"sites": {"two": [[1, "chosen.example", "Chosen"]]}, "log": []}


def test_clone_gets_its_own_domain_instead_of_its_templates(story: dict[str, Any]) -> None:
    assert story["clone"]["sites"] == {
        "one": [[1, "one.localhost", "one.localhost"]],
        "clone": [[1, "clone.localhost", "clone.localhost"]],
    }


def test_tenant_that_is_not_ready_is_left_alone(story: dict[str, Any]) -> None:
    assert story["not ready"]["sites"] == {"broken": [[1, "example.com", "example.com"]]}
    (line,) = story["not ready"]["log"]
    assert line.startswith("WARNING [broken] No Site is made for broken.localhost: recorded as migrated, but not there")


def test_domain_is_saved_though_the_site_cannot_be_changed(story: dict[str, Any]) -> None:
    assert story["domain is saved all the same"]
    assert story["refused by the database"] == {
        "sites": {"odd": [[1, "example.com", "example.com"], [2, "odd.localhost", "made by hand"]]},
        "log": ["ERROR [odd] The tenant's Site can't be made."],
    }


def test_host_without_sites_pays_nothing(acme: Tenant) -> None:
    from example.customers.models import Domain

    domain = Domain.objects.select_related("tenant").get(domain=acme.host)
    with exactly(0):
        complete_domain(domain)
