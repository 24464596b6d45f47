"""What Prometheus is told: the tenants by state, what was refused and created, and never a tenant's name."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, connections, transaction
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from django_tenant_messaging import metrics
from django_tenant_messaging.metrics import connect_metrics, tenant_states
from django_tenant_messaging.signals import tenant_created, tenant_creation_failed, tenant_refused
from django_tenant_messaging.tenancy import readiness_of_all
from django_tenant_messaging.tenancy.gate import BYPASS_VARIABLE, verdicts
from django_tenant_messaging.types import Readiness, SchemaState
from example.customers.models import Customer
from example.services.process import python_path
from tests.harness.breaking import without_record, without_table
from tests.harness.peer import scope_for
from tests.harness.run import point_django_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("tenants")
ROOT = Path(__file__).resolve().parents[1]
PREFIX = "tenant_messaging_"
ALL_STATES = {"ok", "missing", "behind", "ahead", "drifted", "error"}
NOWHERE = "postgresql://127.0.0.1:1/nothing"
Samples = dict[tuple[str, tuple[str, ...]], float]


def parsed(text: str) -> Samples:
    """Our samples by name and values of their labels."""
    families: Iterable[Metric] = text_string_to_metric_families(text)
    return {
        (sample.name.removeprefix(PREFIX), tuple(label for _, label in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


def scrape() -> Samples:
    return parsed(generate_latest().decode())


def tenants_by_state(samples: Samples) -> dict[str, float]:
    return {labels[0]: value for (name, labels), value in samples.items() if name == "tenants"}


def only(**counts: float) -> dict[str, float]:
    return dict.fromkeys(ALL_STATES, 0.0) | counts


@contextmanager
def dead_database(database_url: str) -> Iterator[None]:
    """Point Django at a port where nothing listens; without a pool, which would go on trying."""
    options = connections.settings["default"]["OPTIONS"]
    point_django_at(NOWHERE)
    connections.settings["default"]["OPTIONS"]["pool"] = False
    try:
        yield
    finally:
        connections.settings["default"]["OPTIONS"]["pool"] = options["pool"]
        point_django_at(database_url)


def run_python(program: str, **env: str) -> str:
    path = python_path(ROOT, ROOT / "example_project")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "tests.settings", **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tenants_are_counted_by_state_and_every_state_is_there(database_url: str) -> None:
    assert tenants_by_state(scrape()) == only(ok=2.0)
    verdicts.forget_all()
    with without_table(database_url, "acme"), without_record(database_url, "globex"):
        samples = scrape()
    assert tenants_by_state(samples) == only(drifted=1.0, behind=1.0)
    assert samples["shared_schema_ready", ()] == 1
    assert samples["check_failed", ()] == 0


def test_a_shared_schema_that_is_not_ready_is_told_apart(database_url: str) -> None:
    with without_record(database_url, "public", app="customers"):
        samples = scrape()
    assert samples["shared_schema_ready", ()] == 0
    assert tenants_by_state(samples) == only(ok=2.0)


def test_a_repaired_tenant_is_counted_as_ready_again(database_url: str) -> None:
    with without_table(database_url, "acme"):
        assert tenants_by_state(scrape())["drifted"] == 1
    verdicts.forget("acme")
    assert tenants_by_state(scrape()) == only(ok=2.0)


def test_a_database_that_is_down_leaves_the_other_metrics(database_url: str) -> None:
    with dead_database(database_url):
        samples = scrape()
    assert samples["check_failed", ()] == 1
    assert tenants_by_state(samples) == {}
    assert samples["migration_check_disabled", ()] == 0
    assert samples["tenant_creations_total", ("created",)] >= 0
    assert scrape()["check_failed", ()] == 0


def test_a_database_that_hangs_holds_one_thread_and_the_scrape_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, looks = threading.Event(), []

    def hang() -> Any:
        looks.append(threading.current_thread())
        answers.wait(60)
        return readiness_of_all()

    monkeypatch.setattr(metrics, "readiness_of_all", hang)
    monkeypatch.setattr(metrics, "SCRAPE_PATIENCE", 0.01)
    try:
        for _ in range(3):
            samples = scrape()
            assert samples["check_failed", ()] == 1
            assert tenants_by_state(samples) == {}
        assert len(looks) == 1
    finally:
        answers.set()
        looks[0].join(60)
    monkeypatch.setattr(metrics, "SCRAPE_PATIENCE", 60)
    assert tenants_by_state(scrape()) == only(ok=2.0)


async def test_it_may_be_scraped_in_a_coroutine(database_url: str) -> None:
    with without_table(database_url, "acme"):
        assert tenants_by_state(scrape()) == only(ok=1.0, drifted=1.0)


def test_a_scrape_in_a_broken_transaction_neither_fails_nor_ends_it() -> None:
    with transaction.atomic():
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        assert scrape()["check_failed", ()] == 0
        transaction.set_rollback(True)


def test_a_scrape_over_http_gives_its_connections_back() -> None:
    server, thread = start_http_server(0, addr="127.0.0.1")
    try:
        for _ in range(20):
            # More than the pool holds.
            verdicts.forget_all()
            url = f"http://127.0.0.1:{server.server_port}/metrics"
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert tenants_by_state(parsed(answer.read().decode())) == only(ok=2.0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    connection.close()
    untyped: Any = connection
    statistics = untyped.pool.get_stats()
    assert statistics["pool_size"] - statistics["pool_available"] <= 1


def test_registering_asks_nothing_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[threading.Thread] = []

    def look() -> dict[str, Readiness]:
        looks.append(threading.current_thread())
        return {}

    monkeypatch.setattr(metrics, "readiness_of_all", look)
    registry = CollectorRegistry(auto_describe=True)
    registry.register(tenant_states)
    assert looks == []
    # What is described is what is collected.
    described = {metric.name for metric in tenant_states.describe()}
    assert described == {metric.name for metric in tenant_states.collect()}


def test_the_bypass_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scrape()["migration_check_disabled", ()] == 0
    monkeypatch.setenv(BYPASS_VARIABLE, "true")
    assert scrape()["migration_check_disabled", ()] == 1


async def test_a_refused_socket_is_counted_once(
    acme: Tenant, globex: Tenant, peers: Peers, people: tuple[str, ...], database_url: str
) -> None:
    before = await asyncio.to_thread(scrape)
    verdicts.forget_all()
    with without_table(database_url, "acme"):
        assert (await peers.open(scope_for(acme.host))).close_code == 4503
        assert (await peers.open(scope_for(globex.host))).close_code == 4401
        after = await asyncio.to_thread(scrape)
    assert changes(before, after) == {("refused_total", ("websocket", "drifted")): 1}


def test_creations_are_counted_with_their_duration() -> None:
    before = scrape()
    tenant_created.send_robust(None, schema_name="initech", seconds=0.3)
    tenant_creation_failed.send_robust(None, schema_name="initech", seconds=7.0, error=RuntimeError())
    assert changes(before, scrape()) == {
        ("tenant_creations_total", ("created",)): 1,
        ("tenant_creations_total", ("failed",)): 1,
    }
    after = scrape()
    for outcome, seconds, below, above in (("created", 0.3, "0.25", "0.5"), ("failed", 7.0, "5.0", "10.0")):
        rises = {key: after[key] - before[key] for key in after if key[0].startswith("tenant_creation_seconds")}
        assert rises["tenant_creation_seconds_sum", (outcome,)] == pytest.approx(seconds)
        assert rises["tenant_creation_seconds_bucket", (below, outcome)] == 0
        assert rises["tenant_creation_seconds_bucket", (above, outcome)] == 1


def test_no_schema_name_becomes_a_label_however_many_there_are() -> None:
    connect_metrics()
    counts = []
    for round_number in range(2):
        for number in range(100):
            name = f"customer{round_number}x{number}"
            for state in SchemaState:
                for face in ("http", "websocket", name):
                    readiness = Readiness(name, state, missing_migrations=(f"app.{name}",), error=name)
                    tenant_refused.send(None, readiness=readiness, face=face)
            tenant_created.send(None, schema_name=name, seconds=0.1)
            tenant_creation_failed.send(None, schema_name=name, seconds=0.1, error=RuntimeError(name))
        text = generate_latest().decode()
        assert "customer" not in text
        assert "acme" not in text
        counts.append(len(parsed(text)))
    assert counts[0] == counts[1] < 100


def test_metrics_are_connected_once_however_often_the_app_is_made_ready() -> None:
    before = scrape()
    apps.get_app_config("django_tenant_messaging").ready()
    connect_metrics()
    tenant_refused.send(None, readiness=Readiness("acme", SchemaState.BEHIND), face="http")
    assert changes(before, scrape()) == {("refused_total", ("http", "behind")): 1}


def test_without_the_client_library_the_app_starts_without_metrics() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
import django
django.setup()
print("django_tenant_messaging.metrics" in sys.modules)
"""
    assert run_python(program).strip() == "False"


def test_what_is_never_counted_is_zero_from_the_start() -> None:
    program = """
import django
django.setup()
from prometheus_client import generate_latest
print(generate_latest().decode())
"""
    samples = parsed(run_python(program, DATABASE_URL=NOWHERE))
    for face in ("http", "websocket"):
        for state in ("missing", "behind", "drifted", "error"):
            assert samples["refused_total", (face, state)] == 0
    for outcome in ("created", "failed"):
        assert samples["tenant_creations_total", (outcome,)] == 0
        assert samples["tenant_creation_seconds_count", (outcome,)] == 0


def test_several_processes_are_counted_together_in_multiprocess_mode(database_url: str, tmp_path: Path) -> None:
    worker = """
import django
django.setup()
from django_tenant_messaging.signals import tenant_refused
from django_tenant_messaging.types import Readiness, SchemaState
tenant_refused.send(None, readiness=Readiness("acme", SchemaState.BEHIND), face="http")
"""
    exposing = """
import django
django.setup()
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from django_tenant_messaging.metrics import tenant_states
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(tenant_states)
print(generate_latest(registry).decode())
"""
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "DATABASE_URL": database_url}
    run_python(worker, **env)
    run_python(worker, **env)
    samples = parsed(run_python(exposing, **env))
    assert samples["refused_total", ("http", "behind")] == 2
    assert tenants_by_state(samples) == only(ok=2.0)


def test_a_tenant_that_is_created_is_counted() -> None:
    before = scrape()
    customer = Customer(schema_name="initech", name="Initech")
    try:
        customer.save(verbosity=0)
        after = scrape()
    finally:
        customer.delete(force_drop=True)
        verdicts.forget("initech")
    assert changes(before, after) == {("tenant_creations_total", ("created",)): 1}
    assert tenants_by_state(after) == only(ok=3.0)


def changes(before: Samples, after: Samples) -> Samples:
    """The counters that rose, by how much."""
    return {
        key: value - before.get(key, 0)
        for key, value in after.items()
        if key[0].endswith("_total") and value != before.get(key, 0)
    }
