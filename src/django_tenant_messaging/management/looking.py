"""Looking at many schemas in little time, as a command does that has nothing else to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from django.db import connections

from ..tenancy.database import TENANT_DATABASE
from ..tenancy.gate import inspect_schemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..types import Readiness

FEW = 200
"""Schemas up to which another connection would cost more than it spares."""
CONNECTIONS = 2


def look_at(kinds: Mapping[str, str]) -> Iterator[Readiness]:
    """Yield what each schema is, in the given order: see :func:`~django_tenant_messaging.tenancy.gate.inspect_schemas`.

    Two connections look at many, a half each: a fresh one has to get to know every table that it reads. In a
    transaction one does it all, as nobody else sees what that has changed.
    """
    if len(kinds) <= FEW or connections[TENANT_DATABASE].in_atomic_block:
        yield from inspect_schemas(kinds)
        return
    names = iter(kinds.items())
    parts = [dict(islice(names, -(-len(kinds) // CONNECTIONS))) for _ in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for found in threads.map(_look, parts):
            yield from found


def _look(kinds: Mapping[str, str]) -> list[Readiness]:
    try:
        return list(inspect_schemas(kinds))
    finally:
        connections.close_all()
