"""Starts a player process for each tenant and collects what they saw."""

from __future__ import annotations

import multiprocessing
import resource
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

from replay.player import GaveUpError, Job, Progress, play_in_process
from replay.recorder import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

END_TIMEOUT = 10.0


def raise_file_limit() -> int:
    """Allow this process and its children as many open files as the system grants, and return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def play_all(jobs: Sequence[Job], on_progress: Callable[[str, Progress], None]) -> list[Record]:
    """Play all jobs at once. Raises GaveUpError when one of them ended without a record."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[Connection, int] = {}
    processes = []
    records: dict[int, Record] = {}
    try:
        for number, job in enumerate(jobs):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=play_in_process, args=(job, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes[ours] = number
            processes.append(process)
        while pipes:
            for pipe in cast("list[Connection]", wait(list(pipes))):
                job = jobs[pipes[pipe]]
                try:
                    news = pipe.recv()
                except EOFError:
                    raise GaveUpError(f"{job.tenant}: the player ended before its time.") from None
                match news:
                    case Progress():
                        on_progress(job.tenant, news)
                    case Record():
                        records[pipes.pop(pipe)] = news
                    case reason:
                        raise GaveUpError(f"{job.tenant}: {reason}")
    finally:
        for process in processes:
            process.join(END_TIMEOUT if not pipes else 0)
            process.terminate()
            process.join()
    return [records[number] for number in range(len(jobs))]
