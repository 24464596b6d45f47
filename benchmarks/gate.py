"""What the migration gate costs: verifying many schemas, beside `migrate_schemas --check`, and a request.

Run it with `make bench-gate`. It brings its own PostgreSQL, makes 1,000 tenants whose schemas are complete, and prints
a table; the figures go to `benchmarks/results/gate.json` as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "example_project")]

from benchmarks.tenants import make_tenants  # noqa: E402 - the path is set above
from example.services import EmbeddedPostgres  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

FEW, MANY = 200, 1_000
RUNS = 5
CALLS = 50_000
RESULTS = ROOT / "benchmarks/results/gate.json"
SERVER_OPTIONS = {"max_locks_per_transaction": "1024", "fsync": "off"}


def main() -> None:
    """Measure everything and write it down."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder), options=SERVER_OPTIONS) as server:
        os.environ |= {"DATABASE_URL": server.url(), "DJANGO_SETTINGS_MODULE": "example.settings", "DEBUG": "0"}
        import django

        django.setup()
        make_tenants(f"tenant{number}" for number in range(FEW))
        # Both commands look at the same schemas: the shared one and all tenants'.
        figures: dict[str, Any] = {
            "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, Django {django.__version__}",
            f"start of manage.py ({FEW} tenants)": timed("help"),
            f"migrate_schemas --check ({FEW} tenants)": timed("migrate_schemas", "--check", "-v0", runs=2),
            f"verify_tenant_migrations ({FEW} tenants)": timed("verify_tenant_migrations"),
            "migrate_schemas --check, without the start": timed_work("migrate_schemas", "--check", "-v0", runs=2),
            "verify_tenant_migrations, without the start": timed_work("verify_tenant_migrations"),
        }
        make_tenants(f"tenant{number}" for number in range(MANY))
        figures[f"verify_tenant_migrations ({MANY} tenants)"] = timed("verify_tenant_migrations")
        figures[f"inspection alone ({MANY} tenants)"] = inspection()
        figures["inspection of one tenant"] = inspection_of_one()
        figures["middleware, sync"] = sync_overhead()
        figures["middleware, async"] = asyncio.run(async_overhead())
    figures["times faster"] = {
        "whole processes": ratio(
            figures, f"migrate_schemas --check ({FEW} tenants)", f"verify_tenant_migrations ({FEW} tenants)"
        ),
        "the work": ratio(
            figures, "migrate_schemas --check, without the start", "verify_tenant_migrations, without the start"
        ),
    }
    report(figures)


def ratio(figures: dict[str, Any], slower: str, faster: str) -> float:
    """Return how many times faster one is."""
    return round(float(figures[slower]["seconds"] / figures[faster]["seconds"]), 1)


def timed(*arguments: str, runs: int = RUNS) -> dict[str, Any]:
    """Run a command of the example project as a process of its own: wall and CPU seconds, the median of the runs."""
    walls, cpus = [], []
    for _ in range(runs):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT / "example_project", check=True, capture_output=True
        )
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        "seconds": round(statistics.median(walls), 3),
        "from": round(min(walls), 3),
        "to": round(max(walls), 3),
        "cpu_seconds": round(statistics.median(cpus), 3),
    }


WORK = """
import sys, time, django
django.setup()
from django.core.management import execute_from_command_line
began = time.perf_counter()
execute_from_command_line(["manage.py", *sys.argv[1:]])
print(time.perf_counter() - began, file=sys.stderr)
"""


def timed_work(*arguments: str, runs: int = RUNS) -> dict[str, Any]:
    """Run a command, as a terminal does, in a process that has started Django already: wall seconds."""
    walls = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", WORK, *arguments],
            cwd=ROOT / "example_project",
            check=True,
            capture_output=True,
            text=True,
        )
        walls.append(float(done.stderr.split()[-1]))
    return {"seconds": round(statistics.median(walls), 3), "from": round(min(walls), 3), "to": round(max(walls), 3)}


def inspection() -> dict[str, Any]:
    """Look at all schemas within this process, which knows the requirements already."""
    from django_tenant_messaging.tenancy.gate import inspect_schemas, schema_kinds

    walls = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        found = list(inspect_schemas(schema_kinds()))
        walls.append(time.perf_counter() - began)
        assert len(found) == MANY + 1, len(found)
        assert all(readiness.is_ready for readiness in found)
    return {"seconds": round(statistics.median(walls[1:]), 3)}


def inspection_of_one() -> dict[str, Any]:
    """Look at one schema, as the first request does, and each that comes when the answer is too old."""
    from django_tenant_messaging.tenancy.gate import inspect_schema

    walls = []
    for number in range(FEW):
        began = time.perf_counter()
        assert inspect_schema(f"tenant{number}", "").is_ready
        walls.append(time.perf_counter() - began)
    return {"milliseconds": round(statistics.median(walls) * 1e3, 2)}


def a_request() -> Any:
    """Return a request as the tenant middleware leaves it."""
    from django.test import RequestFactory

    from example.customers.models import Customer

    request = RequestFactory().get("/messages/")
    tenant_request: Any = request
    tenant_request.tenant = Customer.objects.get(schema_name="tenant7")
    return request


def sync_overhead() -> dict[str, Any]:
    """Time a request through the middleware and without it, the view doing nothing."""
    from django.http import HttpResponse

    from django_tenant_messaging.middleware import TenantMigrationCheckMiddleware

    request, response = a_request(), HttpResponse()

    def view(_request: Any) -> HttpResponse:
        return response

    guarded = TenantMigrationCheckMiddleware(view)
    return overhead(lambda: per_call(lambda: guarded(request)), lambda: per_call(lambda: view(request)))


async def async_overhead() -> dict[str, Any]:
    """The same on an event loop."""
    from asgiref.sync import sync_to_async
    from django.http import HttpResponse

    from django_tenant_messaging.middleware import TenantMigrationCheckMiddleware

    request, response = await sync_to_async(a_request)(), HttpResponse()

    async def view(_request: Any) -> HttpResponse:
        return response

    guarded: Any = TenantMigrationCheckMiddleware(view)

    async def per_awaited(call: Any) -> float:
        await call(request)
        began = time.perf_counter()
        for _ in range(CALLS):
            await call(request)
        return (time.perf_counter() - began) / CALLS * 1e6

    costs = [(await per_awaited(guarded), await per_awaited(view)) for _ in range(RUNS)]
    return cost_of(costs)


def per_call(call: Callable[[], Any]) -> float:
    """Return the microseconds of a call, the first left out."""
    call()
    began = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - began) / CALLS * 1e6


def overhead(guarded: Callable[[], float], bare: Callable[[], float]) -> dict[str, Any]:
    """Measure both in turn, so that a busy machine hits them alike."""
    return cost_of([(guarded(), bare()) for _ in range(RUNS)])


def cost_of(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Return the median of the differences."""
    return {"microseconds": round(statistics.median(guarded - bare for guarded, bare in pairs), 2)}


def report(figures: dict[str, Any]) -> None:
    """Print the table and keep the figures."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        text = value if isinstance(value, str) else ", ".join(f"{key} {number}" for key, number in value.items())
        print(f"{name:42} {text}")


if __name__ == "__main__":
    main()
