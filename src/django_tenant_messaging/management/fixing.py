"""Repairing many schemas, one after the other or in several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Self

from django.db import connections

from ..exceptions import Unavailable
from ..tenancy.gate import inspect_schema
from ..tenancy.gate.repair import Repair, repair_schema
from . import worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE = 5.0
"""Seconds that a worker process has to end before it is killed."""


def repair_one_by_one(kinds: Mapping[str, str], *, fail_fast: bool) -> Iterator[Repair]:
    """Repair schemas in this process and yield what became of each.

    What migrations print goes to standard error. Raises
    :class:`~django_tenant_messaging.exceptions.Unavailable` when the database doesn't answer.
    """
    for name, kind in kinds.items():
        with contextlib.redirect_stdout(sys.stderr):
            repair = repair_schema(name, kind)
        yield repair
        if fail_fast and not repair.is_success:
            return


def repair_in_processes(kinds: Mapping[str, str], processes: int, *, fail_fast: bool) -> Iterator[Repair]:
    """Repair schemas in several processes at once and yield what became of each, in the order in which they end.

    Processes and not threads: see :func:`~django_tenant_messaging.tenancy.gate.repair.repair_schema`. Each has a pool
    of its own, so that one that is killed costs the schema it was at, and no other. When the caller stops early, by
    Ctrl-C for instance, all are ended at once. Raises :class:`~django_tenant_messaging.exceptions.Unavailable` when
    the database doesn't answer, or when the processes don't start.
    """
    with _Crew(min(processes, len(kinds))) as crew:
        waiting = deque(kinds.items())
        while waiting or crew.is_busy:
            while waiting and crew.has_idle:
                crew.give(*waiting.popleft())
            for repair in crew.results():
                yield repair
                if fail_fast and not repair.is_success:
                    waiting.clear()


class _Crew:
    """Worker processes, each at one schema at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._others = {child.pid for child in multiprocessing.active_children()}
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[Repair], tuple[str, str, ProcessPoolExecutor]] = {}
        self._deaths_in_a_row = 0

    def __enter__(self) -> Self:
        self._idle = [_new_pool() for _ in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_busy:
            for pool in self._idle:
                pool.shutdown()
            return
        children = [child for child in multiprocessing.active_children() if child.pid not in self._others]
        for child in children:
            child.terminate()
        for child in children:
            child.join(PATIENCE)
            child.kill()
        for pool in [*self._idle, *(pool for _name, _kind, pool in self._busy.values())]:
            pool.shutdown(cancel_futures=True)

    @property
    def is_busy(self) -> bool:
        return bool(self._busy)

    @property
    def has_idle(self) -> bool:
        return bool(self._idle)

    def give(self, name: str, kind: str) -> None:
        """Let an idle worker begin with a schema."""
        pool = self._idle.pop()
        self._busy[pool.submit(worker.repair, name, kind)] = name, kind, pool

    def results(self) -> Iterator[Repair]:
        """Wait for the next results."""
        done, _running = wait(self._busy, return_when=FIRST_COMPLETED)
        for future in done:
            name, kind, pool = self._busy.pop(future)
            try:
                repair = future.result()
            except BrokenProcessPool:
                pool.shutdown()
                self._deaths_in_a_row += 1
                if self._deaths_in_a_row > 2 * self._size:
                    raise Unavailable("the worker processes end as soon as they start") from None
                self._idle.append(_new_pool())
                yield Repair(inspect_schema(name, kind), failure="its worker process ended (was it killed?)")
            else:
                self._deaths_in_a_row = 0
                self._idle.append(pool)
                yield repair


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=worker.begin, initargs=(_databases(),))


def _databases() -> dict[str, Any]:
    """Return the databases that this process uses; a worker needs no pool of connections."""
    return {
        alias: {
            **database,
            "OPTIONS": {name: value for name, value in database.get("OPTIONS", {}).items() if name != "pool"},
        }
        for alias, database in connections.settings.items()
    }
