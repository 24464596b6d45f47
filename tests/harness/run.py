"""What the workers of one test run share: a PostgreSQL server, a folder, and a template database."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from django.db import connections
from psycopg import sql
from psycopg.conninfo import make_conninfo

from example.database import database_from_url
from example.services import EmbeddedPostgres, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Many workers with pools and servers of their own. The data is thrown away, so nothing waits for the disk.
TEST_SERVER_OPTIONS = {
    "max_connections": "200",
    "max_locks_per_transaction": "256",
    "fsync": "off",
    "full_page_writes": "off",
}
TEMPLATE = "template"


@dataclass(frozen=True)
class Run:
    """A test run as each of its processes sees it."""

    postgres_url: str
    folder: Path

    @property
    def prefix(self) -> str:
        """How the names of this run's databases begin, which no other run on the server shares."""
        return f"{self.folder.name}_"

    def url(self, database: str) -> str:
        """How to connect to a database of this run, in the form that `DATABASE_URL` may have as well."""
        return make_conninfo(self.postgres_url, dbname=self.prefix + database)

    def template(self, build: Callable[[str], None], *, name: str = TEMPLATE, source: str | None = None) -> str:
        """Name a template database. The first to ask makes it, of `source` if given, and fills it by `build(url)`."""
        done = self.folder / f"{name}.done"
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                self.create(name, template=source)
                build(self.url(name))
                done.touch()
        return name

    def create(self, name: str, *, template: str | None = None) -> str:
        """Make the database `name` of this run, as a copy of `template` if given, and answer its URL."""
        source = sql.Identifier(self.prefix + template if template else "template0")
        with self._server() as server:
            database = sql.Identifier(self.prefix + name)
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8'").format(database, source))
        return self.url(name)

    def drop_all(self) -> None:
        """Drop every database of this run."""
        with self._server() as server:
            found = server.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.prefix]
            ).fetchall()
            for (name,) in found:
                server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _server(self) -> contextlib.AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]:
        return psycopg.connect(self.postgres_url, autocommit=True)


@contextlib.contextmanager
def new_run() -> Iterator[Run]:
    """Start a run: on the server of `DATABASE_URL`, or on one that lives as long as the run."""
    folder = temporary_folder("messaging_test_")
    try:
        if given := os.environ.get("DATABASE_URL"):
            run = Run(given, folder)
            try:
                yield run
            finally:
                run.drop_all()
        else:
            with EmbeddedPostgres(folder / "postgres", options=TEST_SERVER_OPTIONS) as server:
                yield Run(server.url(), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def point_django_at(url: str) -> None:
    """Make `url` the database of every connection that Django opens from now on, in any thread."""
    disconnect_django()
    settings = connections.settings["default"]
    fresh = database_from_url(url)
    fresh["OPTIONS"]["pool"] = settings["OPTIONS"].get("pool")
    settings.update(fresh)


def disconnect_django() -> None:
    """Close this thread's connection and the idle ones of the pool: a template must have no clients."""
    connection: Any = connections["default"]
    connection.close()
    connection.close_pool()
