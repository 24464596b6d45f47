"""CPU time and memory of processes, from the outside."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Meter:
    """CPU seconds of groups of processes. A group is named, and holds processes with all that they started."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}

    def read(self) -> dict[str, float]:
        """CPU seconds of each group since its start, of the system and of its users."""
        return {name: sum(_cpu_of(pid) for pid in pids) for name, pids in self._groups.items()}


def busy_seconds() -> float:
    """CPU seconds that the whole machine has worked since its start: tells whether others disturb a measurement."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def private_bytes(pids: Iterable[int]) -> int:
    """Memory that would be free if these processes, and all that they started, ended."""
    return sum(int(process.memory_full_info().uss) for pid in pids for process in _family(pid))


def _cpu_of(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            # A child that ended is counted by its parent.
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
