"""Calls at the same moment, each in a thread with a connection of its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PATIENCE = 60


def together(*calls: Callable[[], T]) -> list[T]:
    """Run the functions together and return their results in order; the first exception is raised instead."""
    results, errors = outcomes(*calls)
    if errors:
        raise errors[0]
    return results


def outcomes(*calls: Callable[[], T]) -> tuple[list[T], list[Exception]]:
    """Run the functions together; return the results of those that had one, and the exceptions of the others."""
    done: dict[int, T] = {}
    failed: dict[int, Exception] = {}
    start = threading.Barrier(len(calls), timeout=PATIENCE)

    def run(place: int, call: Callable[[], T]) -> None:
        try:
            start.wait()
            done[place] = call()
        except Exception as error:  # noqa: BLE001 - whatever a thread raises belongs to the test
            failed[place] = error
        finally:
            connections.close_all()

    threads: list[Any] = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return [done[place] for place in sorted(done)], [failed[place] for place in sorted(failed)]
