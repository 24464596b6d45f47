"""How much memory a worker really holds: what the operating system counts includes what was freed and is kept apart.

A worker answers SIGUSR1 with a file; the runner sends it and reads that.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

FOLDER = "CHAOS_HEAP_FOLDER"
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Heap:
    """What a process has allocated: bytes by malloc, and Python's own small blocks."""

    allocated: int
    blocks: int


class _MallInfo(ctypes.Structure):
    """What glibc's `mallinfo2` answers."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def own_heap() -> Heap:
    """That of this process, after a collection."""
    gc.collect()
    allocated = 0
    # Other C libraries don't tell.
    with contextlib.suppress(AttributeError):
        ask = ctypes.CDLL(None).mallinfo2
        ask.restype = _MallInfo
        found = ask()
        allocated = found.uordblks + found.hblkhd
    return Heap(allocated, sys.getallocatedblocks())


def answer_signals() -> None:
    """Write the own heap to a file at each SIGUSR1, if the environment names a folder."""
    folder = os.environ.get(FOLDER)
    if folder:
        target = _file(Path(folder), os.getpid())

        def write(*_: Any) -> None:
            draft = target.with_suffix(".new")
            draft.write_text(json.dumps(asdict(own_heap())))
            draft.rename(target)

        signal.signal(signal.SIGUSR1, write)


def ask_heap(folder: Path, pid: int) -> Heap:
    """That of a worker. Raises TimeoutError when it doesn't answer."""
    target = _file(folder, pid)
    target.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    deadline = monotonic() + PATIENCE
    while not target.exists():
        if monotonic() > deadline:
            raise TimeoutError(f"Worker {pid} doesn't say what memory it holds.")
        sleep(0.02)
    return Heap(**json.loads(target.read_text()))


def _file(folder: Path, pid: int) -> Path:
    return folder / f"heap{pid}.json"
