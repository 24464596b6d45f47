"""What the workers and services hold: it has to be as before once everybody has gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.chaos.heap import ask_heap

if TYPE_CHECKING:
    from tests.chaos.checker import Findings
    from tests.chaos.stage import Stage

MEGABYTE = 1024 * 1024
ALLOWED_BYTES = 6 * MEGABYTE
ALLOWED_BLOCKS = 1.1


@dataclass(frozen=True, slots=True)
class Resources:
    """What is open or held: over all workers, but memory is that of the worker that has most, in bytes.

    `memory` is what the operating system counts, of which some may be free; `allocated` and `blocks` are in use.
    """

    sockets: int
    sessions: int
    keys: int
    channels: int
    memory: int
    allocated: int
    blocks: int


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
    heaps = [ask_heap(stage.folder, process.pid) for process in processes]
    return Resources(
        sockets,
        int(row[0]),
        keys,
        channels,
        memory=max(memory(process) for process in processes),
        allocated=max(heap.allocated for heap in heaps),
        blocks=max(heap.blocks for heap in heaps),
    )


def memory(process: psutil.Process) -> int:
    """The memory that is the process's alone, in bytes."""
    return int(process.memory_full_info().uss)


def check_resources(before: Resources, warm: Resources, after: Resources, findings: Findings) -> None:
    """Compare the end with the beginning; sessions and memory, of which a server that once was busy may keep some,
    with those under load before anything was broken.
    """
    limits = {kind: getattr(before, kind) for kind in ("sockets", "keys", "channels")}
    for kind, was in {**limits, "sessions": max(before.sessions, warm.sessions)}.items():
        now = getattr(after, kind)
        if now > was:
            findings.add(f"{kind}_left", f"{now}, before it was {was}", now - was)
    if after.allocated > warm.allocated + ALLOWED_BYTES or after.blocks > warm.blocks * ALLOWED_BLOCKS:
        was, now = (f"{each.allocated / MEGABYTE:.1f} MiB, {each.blocks:,} blocks" for each in (warm, after))
        findings.add("memory_left", f"{now}, under load it was {was}")
