"""What the workers and services hold: it has to be as before once everybody has gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.chaos.heap import ask_heap

if TYPE_CHECKING:
    from tests.chaos.checker import Findings
    from tests.chaos.stage import Stage

MEGABYTE = 1024 * 1024
ALLOWED_BYTES = 6 * MEGABYTE
ALLOWED_BLOCKS = 1.1
KEPT_SESSIONS = 9
"""Of PostgreSQL, by a worker: one for each thread (`DATABASE_THREADS`), and one in the pool of its pages."""
OPEN = {"01", "08"}
"""The kernel's numbers for connections that the server hasn't closed: established, and closed by the client alone."""


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
    sockets = sum(_connections(worker.pid, worker.port) for worker in stage.workers)
    with stage.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'worker%'"
        ).fetchone()
        assert row is not None
    keys = channels = 0
    for shard in stage.shards:
        with stage.redis_client(shard) as client:
            keys += int(client.dbsize())
            channels += len(client.pubsub_channels())
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


def _connections(pid: int, port: int) -> int:
    """Count what a worker has accepted and not closed, by the accounts of the network namespace that it is in."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(int(local.rpartition(":")[2], 16) == port and state in OPEN for _, local, _, state, *_ in rows)


def memory(process: psutil.Process) -> int:
    """The memory that is the process's alone, in bytes."""
    return int(process.memory_full_info().uss)


def check_resources(before: Resources, warm: Resources, after: Resources, findings: Findings, *, workers: int) -> None:
    """Compare the end with the beginning; memory, of which a server that once was busy may keep some, with that under
    load before anything was broken, and sessions with those that a worker may keep.
    """
    limits = {kind: getattr(before, kind) for kind in ("sockets", "keys", "channels")}
    for kind, was in {**limits, "sessions": workers * KEPT_SESSIONS}.items():
        now = getattr(after, kind)
        if now > was:
            findings.add(f"{kind}_left", f"{now}, before it was {was}", now - was)
    if after.allocated > warm.allocated + ALLOWED_BYTES or after.blocks > warm.blocks * ALLOWED_BLOCKS:
        was, now = (f"{each.allocated / MEGABYTE:.1f} MiB, {each.blocks:,} blocks" for each in (warm, after))
        findings.add("memory_left", f"{now}, under load it was {was}")
