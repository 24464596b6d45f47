"""Everything that a run can break."""

from __future__ import annotations

from tests.chaos.nemeses import churn, clock, machines, members, network, postgres, redis, tenants, workers
from tests.chaos.nemeses.registry import NEMESES, Nemesis

__all__ = [
    "NEMESES",
    "Nemesis",
    "churn",
    "clock",
    "machines",
    "members",
    "network",
    "postgres",
    "redis",
    "tenants",
    "workers",
]
