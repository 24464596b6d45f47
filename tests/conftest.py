from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from example.services import LocalRedis
from tests.harness.run import Run, disconnect_django, new_run, point_django_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.harness.clock import Clock
    from tests.harness.peer import Peers
    from tests.harness.server import Server
    from tests.harness.spare import OwnMigrations
    from tests.harness.tenants import Tenant

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

CI = os.environ.get("CI") == "true"


class RunKeeper:
    """Starts the run when a process first needs it, and ends it with that process's session."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._run: Run | None = None

    def run(self) -> Run:
        if self._run is None:
            self._run = self._stack.enter_context(new_run())
        return self._run

    # pytest-xdist: called in the controller for each worker it starts.
    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        run = self.run()
        node.workerinput |= {"postgres_url": run.postgres_url, "run_folder": str(run.folder)}

    def pytest_unconfigure(self) -> None:
        self._stack.close()


RUN_KEEPER = pytest.StashKey[RunKeeper]()


def pytest_configure(config: pytest.Config) -> None:
    # A script's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    keeper = config.stash[RUN_KEEPER] = RunKeeper()
    config.pluginmanager.register(keeper)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """On the machine that decides, a test that didn't run is a test that failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if CI and reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The test run, shared by its parallel workers."""
    workerinput = getattr(pytestconfig, "workerinput", None)
    if workerinput is None:
        return pytestconfig.stash[RUN_KEEPER].run()
    return Run(workerinput["postgres_url"], Path(workerinput["run_folder"]))


@pytest.fixture(scope="session")
def database_url(run: Run, worker_id: str, django_db_blocker: Any) -> Iterator[str]:
    """The URL of this worker's own database, to which Django's connections are pointed."""
    from tests.harness.tenants import build_template, know_structures

    def build(url: str) -> None:
        point_django_at(url)
        build_template()
        disconnect_django()

    with django_db_blocker.unblock():
        url = run.create(worker_id, template=run.template(build))
        point_django_at(url)
        know_structures()
        yield url
        disconnect_django()


@pytest.fixture
def tenants(database_url: str, django_db_blocker: Any) -> Iterator[tuple[Tenant, Tenant]]:
    """Both tenants with empty tables. Whatever the test commits in them is gone after it."""
    from django_tenant_messaging.limits import sharing
    from django_tenant_messaging.tenancy import close_executor
    from tests.harness.tenants import Tenant, empty_tenants, forbid_kept_connections, leave_tenant

    with django_db_blocker.unblock():
        leave_tenant()
        yield Tenant("acme"), Tenant("globex")
        close_executor()
        leave_tenant()
        empty_tenants()
        sharing._shared.clear()
        forbid_kept_connections()


@pytest.fixture
def acme(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """The tenant in which things happen."""
    return tenants[0]


@pytest.fixture
def globex(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """The other tenant, which must see nothing of it."""
    return tenants[1]


@pytest.fixture
def people(tenants: tuple[Tenant, Tenant]) -> tuple[str, ...]:
    """Users of equal names and ids in both tenants, found in `tenant.users[name]`."""
    names = ("alice", "bob", "carol")
    for tenant in tenants:
        for name in names:
            tenant.create_user(name)
    return names


@pytest.fixture
def team(tenants: tuple[Tenant, Tenant], people: tuple[str, ...]) -> None:
    """Room 1, of the first of the people, with all of them in it, in both tenants."""
    from django_tenant_messaging import actions

    for tenant in tenants:
        with tenant.activated():
            owner, *others = (tenant.users[name] for name in people)
            assert actions.create_room(owner, name="team", members=others).pk == 1


@pytest.fixture
def no_pool(tenants: tuple[Tenant, Tenant]) -> Iterator[None]:
    """Django's connections without a pool, as most hosts have them: each of many threads has one."""
    from django.db import connections

    from django_tenant_messaging.tenancy import close_executor

    disconnect_django()
    options = connections.settings["default"]["OPTIONS"]
    pool = options.pop("pool")
    yield
    close_executor()
    disconnect_django()
    options["pool"] = pool


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which verdicts of schemas run out; it stands until the test moves it."""
    from tests.harness.clock import Clock

    clock = Clock()
    # By its full name: the package exports an object that is called like the module.
    monkeypatch.setattr(sys.modules["django_tenant_messaging.tenancy.gate.verdicts"], "time", clock)
    return clock


@pytest.fixture
def spare(tenants: tuple[Tenant, Tenant]) -> Iterator[Tenant]:
    """A tenant to break."""
    from tests.harness.spare import spare_tenant

    with spare_tenant("spare") as tenant:
        yield tenant


@pytest.fixture
def own(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnMigrations]:
    """Migrations that the test writes."""
    from tests.harness.spare import OwnMigrations

    migrations = OwnMigrations(tmp_path, settings, monkeypatch)
    yield migrations
    migrations.forget()


@pytest.fixture
def start_server(tenants: tuple[Tenant, Tenant], database_url: str, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`start_server(NAME="value", ...)` serves the worker's database, with those environment variables."""
    from tests.harness.server import Server

    with ExitStack() as stack:

        def start(**env: str) -> Server:
            server = Server(database_url, tmp_path / "server.log", env)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A running server, one process with the in-memory channel layer."""
    return start_server()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of `REDIS_URL`'s server, or of this worker's own."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    with LocalRedis() as local:
        yield local.url()


@pytest.fixture
def redis_server() -> Iterator[LocalRedis]:
    """A Redis of the test's own, to be stopped, killed or flushed."""
    with LocalRedis() as local:
        yield local


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of the browser, which comes from the operating system's packages."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("no Chromium on the PATH; Debian's package is called chromium")
    return found


@pytest.fixture
async def peers(tenants: tuple[Tenant, Tenant]) -> AsyncIterator[Peers]:
    """Connects users to the WebSocket within the test's event loop; the loop's hub is gone after the test."""
    from django_tenant_messaging.realtime.hub import running_hub
    from django_tenant_messaging.tenancy import close_executor
    from tests.harness.peer import connecting

    async with connecting() as peers:
        yield peers
    if hub := running_hub():
        await hub.stop()
    await asyncio.to_thread(close_executor)
