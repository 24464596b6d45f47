"""Threads that many tenants share, and of which none can take all: a tenant whose work hangs keeps no other waiting."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")


class Job(NamedTuple):
    """Work of a tenant, and where its outcome goes."""

    tenant: str
    call: Callable[[], Any]
    outcome: Future[Any]

    def run(self) -> None:
        """Do the work, unless nobody waits for it any more."""
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
        finally:
            # The error's traceback holds this frame, which would hold the error.
            del self


class QueueFull(Exception):
    """So much work of one tenant waits that more is refused."""


class FairThreads:
    """Runs work of tenants in a fixed number of threads.

    A tenant is given another thread as long as it has fewer than it leaves free: alone it gets half of them, rounded
    up, a second one half of the rest, and so on. Work that has to wait is taken from the waiting tenants in turn, and
    of one tenant in its order.

    Of the threads that are free a tenant gets its own one, else the first: a database connection that mostly sees the
    same tenants knows their tables, and not those of all others.
    """

    def __init__(self, size: int, *, most_waiting: int) -> None:
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"tenant-messaging-{place}") for place in range(size)]
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._idle = set(range(size))
        """The places of the threads that are free."""
        self._running: defaultdict[str, int] = defaultdict(int)
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()

    def submit(self, tenant: str, call: Callable[[], R]) -> Future[R]:
        """Have work done. Raises :class:`QueueFull` when ``most_waiting`` calls of the tenant wait already."""
        outcome: Future[R] = Future()
        with self._lock:
            waiting = self._waiting.get(tenant, ())
            if len(waiting) >= self._most_waiting:
                raise QueueFull(tenant)
            self._waiting.setdefault(tenant, deque()).append(Job(tenant, call, outcome))
            job = self._next()
            if job is not None:
                self._start(job)
        return outcome

    def close(self) -> None:
        """Finish what runs, drop what waits, and end the threads."""
        with self._lock:
            dropped = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
        for job in dropped:
            job.outcome.cancel()
            job.outcome.set_running_or_notify_cancel()
        for thread in self._threads:
            thread.shutdown(wait=True)

    def _start(self, job: Job) -> None:
        own = crc32(job.tenant.encode()) % len(self._threads)
        place = own if own in self._idle else min(self._idle)
        self._idle.remove(place)
        self._threads[place].submit(self._work, place, [job])

    def _work(self, place: int, jobs: list[Job]) -> None:
        # Taken out of the list: the executor holds its arguments, and so the outcome, for as long as this runs.
        job: Job | None = jobs.pop()
        while job is not None:
            job.run()
            job = self._after(job, place)

    def _after(self, done: Job, place: int) -> Job | None:
        """Free the thread of what is done, and return what it goes on with; wake others for what may run besides."""
        with self._lock:
            self._idle.add(place)
            self._running[done.tenant] -= 1
            if not self._running[done.tenant]:
                del self._running[done.tenant]
            following = self._next()
            if following is not None:
                self._idle.remove(place)
                while (another := self._next()) is not None:
                    self._start(another)
            return following

    def _next(self) -> Job | None:
        """Take the work whose turn it is, and count a thread as its own."""
        if not self._idle:
            return None
        # Who has no thread may have one, so this passes over no more tenants than there are threads.
        for tenant, jobs in self._waiting.items():
            if self._running.get(tenant, 0) < len(self._idle):
                job = jobs.popleft()
                self._waiting.move_to_end(tenant)
                if not jobs:
                    del self._waiting[tenant]
                self._running[tenant] += 1
                return job
        return None
