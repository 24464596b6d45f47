"""PostgreSQL losing its sessions, crashing, full, or waiting for a lock."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import ExitStack, closing
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.chaos.cast import EVERYBODY
from tests.chaos.nemeses.registry import nemesis
from tests.chaos.rows import APP
from tests.chaos.stage import MAX_CONNECTIONS, TENANTS

if TYPE_CHECKING:
    from tests.chaos.scene import Scene
    from tests.chaos.stage import Stage

FULL_SECONDS = 8.0
HANG_SECONDS = 10.0
LOCK_SECONDS = 30.0
WORKERS = "application_name LIKE 'worker%'"


@nemesis("postgres-terminate", "PostgreSQL's backends terminated", touches="postgres")
async def terminate(scene: Scene) -> None:
    with scene.fault("postgres-terminate"):
        for _ in range(6):
            await asyncio.to_thread(_terminate, scene.stage)
            await asyncio.sleep(0.5)


@nemesis("postgres-restart", "PostgreSQL restarted immediately, with recovery", touches="postgres")
async def restart(scene: Scene) -> None:
    with scene.fault("postgres-restart", excuses=True):
        await asyncio.to_thread(scene.stage.crash_postgres, signal.SIGQUIT)


@nemesis("postgres-crash", "SIGKILL of a PostgreSQL backend, so all of them start anew", touches="postgres")
async def crash(scene: Scene) -> None:
    with scene.fault("postgres-crash", excuses=True):
        pid = await asyncio.to_thread(_some_backend, scene.stage)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(_wait_for, scene.stage)


@nemesis("postgres-hang", "SIGSTOP of a PostgreSQL backend for 10 s", touches="postgres")
async def hang(scene: Scene) -> None:
    with scene.fault("postgres-hang"):
        pid = await asyncio.to_thread(_some_backend, scene.stage)
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(HANG_SECONDS)
        finally:
            os.kill(pid, signal.SIGCONT)


@nemesis("postgres-full", "PostgreSQL's connections exhausted for 8 s", touches="postgres")
async def fill(scene: Scene) -> None:
    with scene.fault("postgres-full", excuses=True):
        await asyncio.to_thread(_fill, scene.stage)


@nemesis("postgres-lock", "A room's row locked for 30 s", touches="postgres")
async def lock(scene: Scene) -> None:
    with scene.fault("postgres-lock"):
        connection = await asyncio.to_thread(scene.stage.connect)
        with closing(connection), connection.transaction():
            table = sql.Identifier(TENANTS[0], f"{APP}_roomcounter")
            query = sql.SQL("SELECT 1 FROM {} WHERE room_id = %s FOR UPDATE").format(table)
            await asyncio.to_thread(connection.execute, query, [EVERYBODY])
            await asyncio.sleep(LOCK_SECONDS)


def _terminate(stage: Stage) -> None:
    with stage.connect() as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WORKERS}")


def _some_backend(stage: Stage) -> int:
    with stage.connect() as connection:
        row = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {WORKERS} ORDER BY random()").fetchone()
        assert row is not None
        return int(row[0])


def _wait_for(stage: Stage) -> None:
    deadline = monotonic() + 60
    while True:
        try:
            with stage.connect():
                return
        except psycopg.OperationalError:
            if monotonic() > deadline:
                raise


def _fill(stage: Stage) -> None:
    """Take every connection, also those that the workers had, and each that becomes free."""
    deadline = monotonic() + FULL_SECONDS
    with ExitStack() as stack:
        taken = stack.enter_context(closing(stage.connect()))
        while monotonic() < deadline:
            try:
                for _ in range(MAX_CONNECTIONS):
                    stack.enter_context(closing(stage.connect()))
            except psycopg.OperationalError:
                taken.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WORKERS}")
                time.sleep(0.02)
