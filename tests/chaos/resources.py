"""What the workers and services hold: it has to be as before once everybody has gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from tests.chaos.checker import Findings
    from tests.chaos.stage import Stage

MEGABYTE = 1024 * 1024
ALLOWED_GROWTH = 1.25
ALLOWED_EXTRA = 8 * MEGABYTE


@dataclass(frozen=True, slots=True)
class Resources:
    """What is open or held, over all workers; memory is that of the largest worker, in bytes."""

    sockets: int
    sessions: int
    keys: int
    channels: int
    memory: int


def measure(stage: Stage) -> Resources:
    """Look now."""
    processes = [psutil.Process(worker.pid) for worker in stage.workers]
    ports = {worker.port for worker in stage.workers}
    sockets = sum(
        connection.laddr.port in ports
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status != psutil.CONN_LISTEN
    )
    with stage.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'worker%'"
        ).fetchone()
        assert row is not None
    client = stage.redis_client()
    try:
        keys, channels = int(client.dbsize()), len(client.pubsub_channels())
    finally:
        client.close()
    return Resources(sockets, int(row[0]), keys, channels, max(memory(process) for process in processes))


def memory(process: psutil.Process) -> int:
    """The memory that is the process's alone, in bytes."""
    return int(process.memory_full_info().uss)


def check_resources(before: Resources, warm: Resources, after: Resources, findings: Findings) -> None:
    """Compare the end with the beginning; memory with that under load, before anything was broken."""
    for kind in ("sockets", "sessions", "keys", "channels"):
        was, now = getattr(before, kind), getattr(after, kind)
        if now > was:
            findings.add(f"{kind}_left", f"{now}, at the beginning {was}", now - was)
    limit = warm.memory * ALLOWED_GROWTH + ALLOWED_EXTRA
    if after.memory > limit:
        text = f"{after.memory / MEGABYTE:.0f} MiB, under load it was {warm.memory / MEGABYTE:.0f} MiB"
        findings.add("memory_left", text)
