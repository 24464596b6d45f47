"""The faults by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.scene import Scene

Strike = Callable[["Scene"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Nemesis:
    """A fault: `strike` breaks something, waits and repairs it.

    `touches` names what is broken, or has to be whole, so that two at once break different things.
    """

    name: str
    title: str
    touches: frozenset[str]
    strike: Strike
    needs_machines: bool = False


NEMESES: dict[str, Nemesis] = {}


def nemesis(name: str, title: str, *, touches: str, needs_machines: bool = False) -> Callable[[Strike], Strike]:
    """Register a fault."""

    def register(strike: Strike) -> Strike:
        NEMESES[name] = Nemesis(name, title, frozenset(touches.split()), strike, needs_machines)
        return strike

    return register
