"""Someone who sends far more than they may, in a process of their own, and comes back when they are thrown out."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.rig.dialects import Acknowledged, Refused
from benchmarks.rig.wires import LostConnectionError, Wires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.rig.dialects import Dialect, News
    from benchmarks.rig.wires import Client, Wire

TICK = 0.005
PAUSE = 0.2
"""Seconds before they come back."""
END_SECONDS = 5.0


@contextmanager
def flooding(dialect: Dialect, client: Client, *, sockets: int, frames_per_second: float) -> Iterator[dict[str, int]]:
    """Flood a room of the client's as long as the body runs; afterwards the counts say what became of it."""
    counts: dict[str, int] = {}
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_flood, args=(dialect, [client] * sockets, frames_per_second, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        pipe.recv()
        yield counts
        pipe.send(None)
        counts |= pipe.recv()
    finally:
        pipe.close()
        process.join(END_SECONDS)
        process.kill()
        process.join()


def _flood(dialect: Dialect, clients: list[Client], frames_per_second: float, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    counts: Counter[str] = Counter()

    def hear(_wire: Wire, news: News) -> None:
        match news:
            case Acknowledged():
                counts["acknowledged"] += 1
            case Refused(_, reason):
                counts[reason] += 1

    is_told = False
    while not pipe.poll():
        wires = Wires(dialect, hear)
        try:
            wires.connect(clients, at_once=len(clients))
            if not is_told:
                is_told = True
                pipe.send(None)
            _send_on(wires, clients, frames_per_second, counts, pipe)
        except LostConnectionError:
            counts["thrown_out"] += 1
            time.sleep(PAUSE)
        finally:
            wires.close()
    pipe.send(dict(counts))


def _send_on(
    wires: Wires, clients: list[Client], frames_per_second: float, counts: Counter[str], pipe: Connection
) -> None:
    began, sent = time.monotonic(), 0
    while not pipe.poll():
        while sent < (time.monotonic() - began) * frames_per_second:
            wire = wires.wires[sent % len(clients)]
            wires.say(wire, wires.dialect.send(counts["sent"], clients[0].rooms[0], "flood"))
            counts["sent"] += 1
            sent += 1
        wires.poll(TICK)
        for wire in wires.wires:
            wire.record.clear()
