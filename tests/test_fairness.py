"""Threads that tenants share: who may use how many, whose turn it is, and what becomes of work that waits."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import defaultdict
from concurrent.futures import CancelledError, wait
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_tenant_messaging.tenancy.fairness import FairThreads, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

PATIENCE = 30


class Gate:
    """Work that hangs until the gate is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.is_open = threading.Event()

    def __call__(self) -> str:
        self.entered.release()
        assert self.is_open.wait(PATIENCE)
        return "through"

    def wait_for(self, number: int) -> None:
        """Wait until so many hang."""
        for _ in range(number):
            assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


@pytest.fixture
def make(gate: Gate) -> Iterator[Callable[..., FairThreads]]:
    made: list[FairThreads] = []

    def make(size: int, most_waiting: int = 1_000) -> FairThreads:
        made.append(FairThreads(size, most_waiting=most_waiting))
        return made[-1]

    yield make
    gate.is_open.set()
    for threads in made:
        threads.close()


def results(futures: list[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures]


@pytest.mark.parametrize(
    ("size", "shares"),
    [(1, [1, 0]), (2, [1, 1, 0]), (3, [2, 1, 0]), (4, [2, 1, 1, 0]), (8, [4, 2, 1, 1, 0]), (16, [8, 4, 2, 1, 1, 0])],
)
def test_a_tenant_gets_half_of_what_is_left(
    size: int, shares: list[int], make: Callable[..., FairThreads], gate: Gate
) -> None:
    threads = make(size)
    futures = []
    for number, share in enumerate(shares):
        futures += [threads.submit(f"tenant{number}", gate) for _ in range(20)]
        gate.wait_for(share)
        assert threads._running.get(f"tenant{number}", 0) == share
    assert not gate.entered.acquire(blocking=False)
    gate.is_open.set()
    assert results(futures) == ["through"] * 20 * len(shares)
    assert (len(threads._idle), threads._running, threads._waiting) == (size, {}, {})


def test_a_tenant_whose_work_hangs_keeps_no_other_waiting(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads = make(8)
    hanging = [threads.submit("slow", gate) for _ in range(100)]
    gate.wait_for(4)
    for number in range(300):
        assert threads.submit(f"tenant{number % 100}", partial(int, number)).result(PATIENCE) == number
    assert not any(future.done() for future in hanging)


def test_waiting_tenants_take_turns_and_keep_their_order(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads = make(1)
    order: list[str] = []
    first = threads.submit("a", gate)
    gate.wait_for(1)
    futures = [
        threads.submit(name[0], partial(order.append, name))
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1", "d1", "d2")
    ]
    gate.is_open.set()
    results([first, *futures])
    assert order == ["a1", "b1", "c1", "d1", "a2", "b2", "d2", "a3", "a4"]


def test_one_that_ends_may_make_room_for_two(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads, one_of_a, one_of_c = make(4), Gate(), Gate()
    futures = [threads.submit(*call) for call in (("a", gate), ("a", one_of_a), ("b", gate), ("c", one_of_c))]
    gate.wait_for(2)
    futures += [threads.submit("b", gate), threads.submit("c", gate)]
    one_of_a.is_open.set()
    assert futures[1].result(PATIENCE) == "through"
    one_of_c.is_open.set()
    gate.wait_for(2)
    gate.is_open.set()
    assert results(futures) == ["through"] * 6


@settings(deadline=None)
@given(
    size=st.integers(1, 5),
    calls=st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=60),
)
def test_all_is_done_once_in_order_and_nobody_has_more_than_half(size: int, calls: list[tuple[str, bool]]) -> None:
    lock = threading.Lock()
    started: defaultdict[str, list[int]] = defaultdict(list)
    running: defaultdict[str, int] = defaultdict(int)
    most: defaultdict[str, int] = defaultdict(int)

    def work(tenant: str, number: int, fails: bool) -> int:
        with lock:
            started[tenant].append(number)
            running[tenant] += 1
            most[tenant] = max(most[tenant], running[tenant])
            most[""] = max(most[""], sum(running.values()))
        with lock:
            running[tenant] -= 1
        if fails:
            raise LookupError(number)
        return number

    threads = FairThreads(size, most_waiting=1_000)
    futures = [
        threads.submit(tenant, partial(work, tenant, number, fails)) for number, (tenant, fails) in enumerate(calls)
    ]
    wait(futures, PATIENCE)
    for number, ((_tenant, fails), future) in enumerate(zip(calls, futures, strict=True)):
        if fails:
            assert isinstance(future.exception(), LookupError)
        else:
            assert future.result() == number
    threads.close()
    for tenant, numbers in started.items():
        wanted = [number for number, (whose, _fails) in enumerate(calls) if whose == tenant]
        # What runs side by side may reach the lock in another order than it was started.
        assert (numbers if size < 3 else sorted(numbers)) == wanted
        assert most[tenant] <= (size + 1) // 2
    assert most[""] <= size
    assert (len(threads._idle), threads._running, threads._waiting) == (size, {}, {})


def test_the_queue_of_a_tenant_is_bounded(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads = make(2, 3)
    futures = [threads.submit("a", gate) for _ in range(4)]
    gate.wait_for(1)
    with pytest.raises(QueueFull):
        threads.submit("a", gate)
    assert threads.submit("b", lambda: "b").result(PATIENCE) == "b"
    gate.is_open.set()
    assert results(futures) == ["through"] * 4
    assert threads.submit("a", lambda: "again").result(PATIENCE) == "again"


def test_work_that_nobody_waits_for_is_not_begun(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads = make(1)
    done: list[str] = []
    threads.submit("a", gate)
    given_up = threads.submit("b", lambda: done.append("given up"))
    wanted = threads.submit("b", lambda: done.append("wanted"))
    assert given_up.cancel()
    gate.is_open.set()
    results([wanted])
    assert done == ["wanted"]


def test_closing_finishes_what_runs_and_drops_what_waits(make: Callable[..., FairThreads], gate: Gate) -> None:
    threads = make(2)
    running = [threads.submit(tenant, gate) for tenant in "ab"]
    gate.wait_for(2)
    waiting = [threads.submit(tenant, gate) for tenant in "aabbcd" * 5]
    closing = threading.Thread(target=threads.close)
    closing.start()
    assert not wait(waiting, PATIENCE).not_done
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(0)
    gate.is_open.set()
    closing.join(PATIENCE)
    assert results(running) == ["through"] * 2
    assert not closing.is_alive()


def test_an_error_is_freed_without_the_garbage_collector(make: Callable[..., FairThreads]) -> None:
    class Failure(Exception):
        pass

    def fail() -> None:
        raise Failure

    threads = make(1)
    gc.collect()
    gc.disable()
    try:
        future = threads.submit("a", fail)
        error = future.exception(PATIENCE)
        assert error is not None
        found = weakref.ref(error)
        # The thread has let go of it once it runs something else.
        threads.submit("a", lambda: None).result(PATIENCE)
        del future, error
        assert found() is None
    finally:
        gc.enable()


def test_a_tenant_has_its_own_thread_as_long_as_that_is_free(make: Callable[..., FairThreads], gate: Gate) -> None:
    """So that a connection gets to know the tables of some tenants, not of all."""
    threads = make(4)

    def name_of_thread(tenant: str) -> str:
        name = threads.submit(tenant, lambda: threading.current_thread().name).result(PATIENCE)
        while len(threads._idle) + sum(threads._running.values()) < 4 or threads._running.get(tenant, 0) > 0:
            time.sleep(0.001)
        return name

    own = {tenant: name_of_thread(tenant) for tenant in (f"tenant{number}" for number in range(20))}
    assert set(own.values()) == {f"tenant-messaging-{place}_0" for place in range(4)}
    assert {tenant: name_of_thread(tenant) for tenant in own} == own
    slow, other = [tenant for tenant, name in own.items() if name == "tenant-messaging-0_0"][:2]
    hanging = threads.submit(slow, gate)
    gate.wait_for(1)
    assert name_of_thread(other) == "tenant-messaging-1_0"
    gate.is_open.set()
    hanging.result(PATIENCE)
