"""What a fault may touch while a run goes on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from tests.chaos.chance import chance
from tests.chaos.history import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.cast import Cast
    from tests.chaos.checker.truth import Truth
    from tests.chaos.history import History
    from tests.chaos.host import Host
    from tests.chaos.load import Load
    from tests.chaos.stage import Stage
    from tests.harness.server import Server


@dataclass(slots=True)
class Scene:
    """A run under way."""

    stage: Stage
    host: Host
    cast: Cast
    load: Load
    history: History
    gone: Truth = field(default_factory=dict)
    """The rows of tenants that a fault dropped, as they were before."""
    notes: dict[str, float] = field(default_factory=dict)
    """Figures of faults, for the report."""

    @contextmanager
    def fault(self, name: str, *, excuses: bool = False, resumes: bool = False) -> Iterator[None]:
        """Note when something is broken."""
        began = monotonic()
        try:
            yield
        finally:
            self.history.faults.append(Fault(name, began, monotonic(), excuses, resumes))

    def some_worker(self) -> Server:
        """One of the workers."""
        return chance.choice(self.stage.workers)

    def count(self, name: str, amount: float) -> None:
        """Add to a figure."""
        self.notes[name] = self.notes.get(name, 0.0) + amount
