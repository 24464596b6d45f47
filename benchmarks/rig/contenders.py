"""Who is measured: how each is set up, started, and spoken to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import psycopg
from psycopg import sql

from benchmarks.rig.dialects import Dialect, Messaging, Plain
from benchmarks.rig.meters import Meter, private_bytes
from benchmarks.rig.wires import Client
from example.services import LocalRedis, ServiceError
from example.services.process import end, python_path, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from example.services import EmbeddedPostgres

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
STOP_SECONDS = 15
SHOWN_LINES = 20


@dataclass(frozen=True, slots=True)
class Tenant:
    """The people of one tenant. `rooms` names the members of each room by their number, from 0."""

    users: int
    rooms: tuple[tuple[int, ...], ...]
    stored: int = 0
    """Messages that each room holds already."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom a scenario needs. Plans of one prefix use the same tenants, with other people."""

    tenants: tuple[Tenant, ...]
    prefix: str = "tenant"

    @classmethod
    def of_one(cls, users: int, rooms: list[list[int]]) -> Plan:
        """A plan for a single tenant."""
        return cls((Tenant(users, tuple(tuple(room) for room in rooms)),))


@dataclass(frozen=True, slots=True)
class People:
    """Who was made for a plan: clients without a port, tenant by tenant, and the ids of the rooms."""

    clients: list[Client]
    rooms: list[list[int]]
    schemas: list[str]


@dataclass
class Services:
    """What all contenders use: one PostgreSQL, and a folder for what they say."""

    postgres: EmbeddedPostgres
    folder: Path
    _databases: set[str] = field(default_factory=set)
    _runs: int = 0

    def database(self, name: str) -> str:
        """The URL of a contender's own database."""
        if name not in self._databases:
            self._databases.add(name)
            with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.postgres.url(name)

    def log(self, contender: Contender) -> Path:
        """Where a contender's processes write."""
        return self.folder / f"{contender.name}.log"

    def said(self, contender: Contender) -> list[str]:
        """What a contender's processes wrote last."""
        log = self.log(contender)
        return log.read_text(errors="replace").splitlines()[-SHOWN_LINES:] if log.exists() else []

    def next_run(self) -> str:
        """A name that no earlier run has."""
        self._runs += 1
        return f"run{self._runs}"


@dataclass
class Server:
    """A contender that runs."""

    contender: Contender
    clients: list[Client]
    rooms: list[list[int]]
    schemas: list[str]
    pids: list[int]
    meter: Meter
    database: str

    def memory(self) -> int:
        """Its private memory in bytes."""
        return private_bytes(self.pids)

    def committed(self) -> int:
        """How many messages its database holds."""
        table = self.contender.table
        if table is None:
            return 0
        counts = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table)) for schema in self.schemas
        )
        with psycopg.connect(self.database) as connection:
            return sum(count for (count,) in connection.execute(counts))


class Contender(ABC):
    """Something that delivers messages."""

    name: str
    dialect: ClassVar[type[Dialect]]
    workers = 1
    database: str
    table: str | None = None
    """Where messages are committed, None if they aren't."""

    @abstractmethod
    def title(self) -> str:
        """What it is, for a table."""

    @abstractmethod
    def people(self, services: Services, plan: Plan) -> People:
        """Make whom the plan names."""

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """How one worker is started."""

    @abstractmethod
    def environment(self, services: Services, redis: LocalRedis) -> dict[str, str]:
        """What its process has to know."""

    @contextmanager
    def serving(self, services: Services, plan: Plan) -> Iterator[Server]:
        """Serve the people of a plan, with fresh processes and a fresh Redis."""
        people = self.people(services, plan)
        with ExitStack() as stack:
            redis = stack.enter_context(LocalRedis())
            environment = {
                **os.environ,
                "PYTHONPATH": python_path(ROOT, ROOT / "example_project"),
                **self.environment(services, redis),
            }
            log = stack.enter_context(services.log(self).open("ab"))
            workers = [stack.enter_context(self._worker(environment, log)) for _ in range(self.workers)]
            ports = [port for _, port in workers]
            pids = [process.pid for process, _ in workers]
            clients = [
                Client(ports[place % len(ports)], client.host, client.path, client.cookie, client.rooms)
                for place, client in enumerate(people.clients)
            ]
            meter = Meter({"server": pids, "postgresql": [services.postgres.pid], "redis": [redis.pid]})
            yield Server(self, clients, people.rooms, people.schemas, pids, meter, services.database(self.database))

    @contextmanager
    def _worker(self, environment: dict[str, str], log: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        process = spawn(self.command(port), env=environment, output=log)
        try:
            self._wait_until_ready(process, port)
            yield process, port
        finally:
            end(process, signals=[signal.SIGTERM], seconds=STOP_SECONDS)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise ServiceError("Its server doesn't start.")


def uvicorn(application: str, port: int) -> list[str]:
    """The same server, with the same options, for all that run under it."""
    return [
        *(sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "asyncio", "--http", "h11", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"),
        *("--ws-max-size", "262144"),
        *("--backlog", "4096", "--timeout-graceful-shutdown", "2", "--no-access-log", "--log-level", "warning"),
    ]


class Limit(Contender):
    """The bare broadcast."""

    name = "limit"
    dialect = Plain
    database = "bare"

    def title(self) -> str:
        """What it is."""
        return "bare ASGI broadcast, no database"

    def people(self, services: Services, plan: Plan) -> People:  # noqa: ARG002 - it keeps nobody
        """Number everybody."""
        clients: list[Client] = []
        rooms, next_room = [], 1
        for number, tenant in enumerate(plan.tenants):
            ids = list(range(next_room, next_room + len(tenant.rooms)))
            next_room += len(ids)
            rooms.append(ids)
            for its_rooms in rooms_of(tenant, ids):
                path = f"/ws/?user={len(clients)}&rooms={','.join(map(str, its_rooms))}"
                clients.append(Client(0, f"tenant{number}.localhost", path, "", its_rooms))
        return People(clients, rooms, ["public"])

    def command(self, port: int) -> list[str]:
        """How it is started."""
        return uvicorn("benchmarks.servers.bare:application", port)

    def environment(self, services: Services, redis: LocalRedis) -> dict[str, str]:  # noqa: ARG002 - it needs neither
        """Nothing."""
        return {}


class Commit(Limit):
    """The bare broadcast of committed messages."""

    name = "commit"
    table = "message"

    def title(self) -> str:
        """What it is."""
        return "the same, each message committed first"

    def people(self, services: Services, plan: Plan) -> People:
        """Number everybody, and make the rooms."""
        from benchmarks.servers.bare import TABLES

        people = super().people(services, plan)
        rooms = max(room for ids in people.rooms for room in ids)
        with psycopg.connect(services.database(self.database), autocommit=True) as connection:
            connection.execute(TABLES)
            connection.execute("TRUNCATE room, message")
            connection.execute("INSERT INTO room (id) SELECT generate_series(1, %s::bigint)", [rooms])
        return people

    def environment(self, services: Services, redis: LocalRedis) -> dict[str, str]:  # noqa: ARG002 - it needs no Redis
        """Its database."""
        return {"BARE_DATABASE_URL": services.database(self.database)}


class Project(Contender):
    """A Django project, with tenants, users and sessions."""

    settings: str
    path: ClassVar[str]

    def people(self, services: Services, plan: Plan) -> People:
        """Let a process with the project's settings make everybody."""
        run = services.next_run()
        wanted: list[dict[str, Any]] = [
            {
                "schema": f"{plan.prefix}{number}",
                "users": tenant.users,
                "rooms": tenant.rooms,
                "stored": tenant.stored,
            }
            for number, tenant in enumerate(plan.tenants)
        ]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/staging.py")],
            env={
                **os.environ,
                "DATABASE_URL": services.database(self.database),
                "DJANGO_SETTINGS_MODULE": self.settings,
            },
            input=json.dumps({"run": run, "tenants": wanted}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServiceError(f"Its tenants can't be made:\n{done.stderr}")
        made = json.loads(done.stdout)
        clients = [
            Client(0, of_tenant["host"], self.path, f"sessionid={session}", its_rooms)
            for tenant, of_tenant in zip(plan.tenants, made, strict=True)
            for session, its_rooms in zip(of_tenant["sessions"], rooms_of(tenant, of_tenant["rooms"]), strict=True)
        ]
        return People(clients, [of_tenant["rooms"] for of_tenant in made], [tenant["schema"] for tenant in wanted])

    def environment(self, services: Services, redis: LocalRedis) -> dict[str, str]:
        """Settings, database and layer."""
        return {
            "DATABASE_URL": services.database(self.database),
            "DJANGO_SETTINGS_MODULE": self.settings,
            "REDIS_URL": redis.url(),
        }


class Tutorial(Project):
    """The hand-written consumer."""

    dialect = Plain
    database = "tutorial"
    table = "tutorial_message"
    settings = "benchmarks.tutorial.settings"
    path = "/ws/chat/"

    def __init__(self, server: str, layer: str) -> None:
        self.server, self.layer = server, layer
        self.name = f"tutorial-{server}-{layer}"

    def title(self) -> str:
        """What it is."""
        layer = {"core": "core", "pubsub": "pub/sub"}[self.layer]
        return f"hand-written consumer, {self.server}, {layer} layer"

    def command(self, port: int) -> list[str]:
        """How it is started."""
        application = "benchmarks.tutorial.asgi:application"
        if self.server == "uvicorn":
            return uvicorn(application, port)
        return [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", application]

    def environment(self, services: Services, redis: LocalRedis) -> dict[str, str]:
        """The layer as well."""
        return {**super().environment(services, redis), "LAYER": self.layer}


class Ours(Project):
    """The project itself."""

    name = "ours"
    dialect = Messaging
    database = "ours"
    table = "django_tenant_messaging_message"
    path = "/ws/messages/"

    def __init__(self, workers: int = 1, settings: str = "benchmarks.ours_settings") -> None:
        self.workers = workers
        self.settings = settings
        if workers > 1:
            self.name = f"ours-{workers}"

    def title(self) -> str:
        """What it is."""
        return "django-tenant-messaging" + (f", {self.workers} workers" if self.workers > 1 else "")

    def command(self, port: int) -> list[str]:
        """How a worker is started."""
        return uvicorn("example.asgi:application", port)


def rooms_of(tenant: Tenant, ids: list[int]) -> list[tuple[int, ...]]:
    """The ids of the rooms of each user."""
    found: list[list[int]] = [[] for _ in range(tenant.users)]
    for room, members in zip(ids, tenant.rooms, strict=True):
        for member in members:
            found[member].append(room)
    return [tuple(rooms) for rooms in found]


CONTENDERS: tuple[Contender, ...] = (
    Limit(),
    Commit(),
    Tutorial("daphne", "core"),
    Tutorial("daphne", "pubsub"),
    Tutorial("uvicorn", "core"),
    Tutorial("uvicorn", "pubsub"),
    Ours(),
    Ours(workers=2),
)
