"""PostgreSQL, Redis, worker processes, a load balancer, and two tenants that are equal in all but what they say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
from typing import TYPE_CHECKING, Any, Self

import psycopg
import redis

from example.services import EmbeddedPostgres, LocalRedis, temporary_folder
from tests.chaos import heap
from tests.chaos.chance import chance
from tests.chaos.machines import Machines
from tests.chaos.proxy import LOOPBACK, Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.harness.server import Server

TENANTS = ("acme", "globex")
DATABASE = "chaos"
MAX_CONNECTIONS = 60
SETTINGS = "tests.chaos.settings"
LAYERS = {
    "pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
    "core": "channels_redis.core.RedisChannelLayer",
}
COMPLAINT = re.compile(r" ERROR (django_tenant_messaging|uvicorn|asyncio|django)\b")


class Stage:
    """All that a run needs; an asynchronous context manager."""

    def __init__(
        self,
        *,
        workers: int = 2,
        layer: str = "pubsub",
        shards: int = 1,
        on_machines: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = temporary_folder("messaging_chaos_")
        self.postgres_port = _free_port()
        self.postgres = EmbeddedPostgres(
            self.folder / "postgres",
            options={
                "fsync": "off",
                "full_page_writes": "off",
                "max_locks_per_transaction": "256",
                "listen_addresses": LOOPBACK,
                "port": str(self.postgres_port),
                "max_connections": str(MAX_CONNECTIONS),
            },
        )
        self.shards = [LocalRedis() for _ in range(shards)]
        self.machines = Machines(workers) if on_machines else None
        self.proxy = Proxy()
        self.workers: list[Server] = []
        self._count = workers
        self._layer = layer
        self._env = dict(env or {})
        self._stack = contextlib.ExitStack()

    @property
    def database_url(self) -> str:
        """The same address however often the server restarts."""
        return f"postgresql://postgres@{LOOPBACK}:{self.postgres_port}/{DATABASE}"

    async def __aenter__(self) -> Self:
        # Read when Django's settings are first asked for, which the imports of much else do.
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "DATABASE_URL": self.database_url,
            "CHAOS_REDIS_URLS": self._redis_urls(LOOPBACK),
            "CHAOS_LAYER": LAYERS[self._layer],
            "PGAPPNAME": "chaos-host",
            "CHAOS_LOG_LEVEL": "ERROR",
        }
        try:
            await asyncio.to_thread(self._start_services)
            await asyncio.to_thread(self._build_tenants)
            if self.machines is not None:
                await self.machines.forward(self.postgres_port, *(shard.port for shard in self.shards))
            for number in range(self._count):
                self.workers.append(self.new_worker(number))
            await asyncio.gather(*(asyncio.to_thread(worker.start) for worker in self.workers))
            await self.proxy.start()
            self.proxy.targets = [(worker.address, worker.port) for worker in self.workers]
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def new_worker(self, number: int, **env: str) -> Server:
        """A worker that isn't started yet; `env` bends it."""
        from tests.harness.server import Server

        machines = self.machines
        services = LOOPBACK if machines is None else machines.gateway
        log = self.folder / f"worker{number}.log"
        env = {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "CHAOS_REDIS_URLS": self._redis_urls(services),
            "PGAPPNAME": f"worker{number}",
            "CHAOS_LOG_LEVEL": "INFO",
            "UVICORN_WS": "websockets-sansio",
            heap.FOLDER: str(self.folder),
            **self._env,
            **env,
        }
        return Server(
            self.database_url.replace(LOOPBACK, services),
            log,
            env,
            application="tests.chaos.worker:application",
            address=LOOPBACK if machines is None else machines.address(number),
            prefix=() if machines is None else machines.command(number),
        )

    def connect(self, name: str = "chaos") -> psycopg.Connection[Any]:
        """A connection of the runner's own to the database."""
        return psycopg.connect(self.database_url, autocommit=True, application_name=name, connect_timeout=5)

    def some_shard(self) -> LocalRedis:
        """One of the Redis servers."""
        return chance.choice(self.shards)

    def redis_client(self, shard: LocalRedis) -> redis.Redis:
        """A client of the runner's own."""
        return redis.Redis(port=shard.port, socket_timeout=5, client_name="chaos")

    def crash_postgres(self, number: signal.Signals) -> None:
        """End the server without a word to anybody, and start it again, which recovers from its log."""
        process = self.postgres._process
        assert process is not None
        process.send_signal(number)
        process.wait(30)
        self.postgres.stop()
        self.postgres.start()

    def complaints(self) -> list[str]:
        """Lines of the workers' logs that tell of exceptions which the library or the server didn't expect."""
        return [
            f"{log.name}: {line}"
            for log in sorted(self.folder.glob("worker*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if COMPLAINT.search(line)
        ]

    def _start_services(self) -> None:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        for shard in self.shards:
            self._stack.callback(shard.stop)
            shard.start()
        if self.machines is not None:
            self._stack.callback(self.machines.stop)
            self.machines.start()
        url = self.database_url.removesuffix(DATABASE) + "postgres"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'")

    def _build_tenants(self) -> None:
        import django

        django.setup()
        from tests.harness.run import disconnect_django
        from tests.harness.tenants import build_template

        build_template()
        disconnect_django()

    def _redis_urls(self, address: str) -> str:
        return " ".join(shard.url().replace(LOOPBACK, address) for shard in self.shards)

    async def _end(self) -> None:
        await self.proxy.stop()
        if self.machines is not None:
            await self.machines.close()
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                os.kill(worker.pid, signal.SIGCONT)
            await asyncio.to_thread(worker.stop)
        await asyncio.to_thread(self._stack.close)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
