"""The measuring process's side of the load generator."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks.rig.generator import Connect, Connected, Failed, Idle, Outcome, Rested, Settled, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.rig.dialects import Dialect
    from benchmarks.rig.generator import Command
    from benchmarks.rig.loads import Load
    from benchmarks.rig.wires import Client

END_SECONDS = 5.0


class GaveUpError(Exception):
    """The load generator can't go on: a server refuses or drops its clients."""


class Conductor:
    """Tells the generator what to do."""

    def __init__(self, dialect: Dialect) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=generate, args=(dialect, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def connect(self, clients: list[Client], *, at_once: int = 32) -> float:
        """Connect the clients. Returns the seconds that it took."""
        answer = self._ask(Connect(clients, at_once), Connected)
        assert isinstance(answer, Connected)
        return answer.seconds

    def rest(self, seconds: float) -> None:
        """Let the connections be idle."""
        self._ask(Idle(seconds), Rested)

    def play(self, load: Load, on_settled: Callable[[], object]) -> Outcome:
        """Carry out a load. `on_settled` is called when all has come, as far as anyone can tell then."""
        answer = self._ask(load, Outcome, on_settled)
        assert isinstance(answer, Outcome)
        return answer

    def close(self) -> None:
        """End the generator."""
        self._pipe.close()
        self._process.join(END_SECONDS)
        self._process.kill()
        self._process.join()

    def _ask(self, command: Command, expected: type, on_settled: Callable[[], object] = lambda: None) -> object:
        try:
            self._pipe.send(command)
            while True:
                match self._pipe.recv():
                    case Settled():
                        on_settled()
                    case Failed(reason):
                        raise GaveUpError(reason)
                    case answer:
                        assert isinstance(answer, expected), answer
                        return answer
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise GaveUpError("The load generator ended before its time.") from None


@contextmanager
def conducting(dialect: Dialect) -> Iterator[Conductor]:
    """A load generator that runs as long as the body."""
    conductor = Conductor(dialect)
    try:
        yield conductor
    finally:
        conductor.close()
