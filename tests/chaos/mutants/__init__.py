"""Servers that are wrong on purpose, each in a module that is loaded by a worker of the stage and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is wrong, and by which of the checker's findings it has to be caught, in which run."""

    title: str
    caught_as: frozenset[str]
    faults: tuple[str, ...] = ()
    seconds: float = 10.0


MUTANTS: dict[str, Mutant] = {}
