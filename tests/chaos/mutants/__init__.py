"""Servers that are wrong on purpose, each in a module that is loaded by a worker of the stage and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is wrong, under which faults it shows, and by which of the checker's findings it has to be caught."""

    title: str
    caught_as: frozenset[str]
    faults: tuple[str, ...] = ()
    seconds: float = 15.0
    rate: float = 60.0
    """Messages a second. Each that comes shows what is missing before it: where much is written, little stays lost."""
    edits: bool = True


MUTANTS: dict[str, Mutant] = {
    "naive_delivery": Mutant(
        "whatever comes is delivered, contiguous or not",
        frozenset({"skipped", "reordered", "repeated", "incomplete"}),
        faults=("redis-kill-0.3",),
    ),
    "sequence_numbers": Mutant(
        "numbers come from a sequence instead of a locked counter",
        frozenset({"gap", "skipped", "reused"}),
        faults=("postgres-terminate", "postgres-crash"),
        # They have statements of their own, which go on using the counter.
        edits=False,
    ),
    "early_acknowledgement": Mutant(
        "acknowledged before the commit", frozenset({"acknowledged_missing"}), faults=("postgres-terminate",)
    ),
    "no_reconcile": Mutant(
        "never compared with the database",
        frozenset({"late", "slow_recovery", "incomplete"}),
        faults=("redis-kill-30",),
        rate=3.0,
    ),
    "separate_await": Mutant(
        "the tenant set in a separate await", frozenset({"invented_row", "acknowledged_missing", "other_tenant"})
    ),
    "tenantless_groups": Mutant("groups named without the tenant", frozenset({"other_tenant"})),
}
