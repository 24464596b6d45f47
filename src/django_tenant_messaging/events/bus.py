"""Handing events to their sinks once the transaction that caused them is committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from django.db import transaction

from ..tenancy import TENANT_DATABASE
from .kinds import Event

logger = logging.getLogger(__name__)

Sink = Callable[[Sequence[Event]], None]

_sinks: list[Sink] = []


def connect_sink(sink: Sink) -> None:
    """Let a function take part in every batch of events. A sink must not block; one that raises is logged."""
    if sink not in _sinks:
        _sinks.append(sink)


def emit_on_commit(*events: Event) -> None:
    """Announce events after the outermost commit, in this order; at once when no transaction is open.

    A rollback drops them. A failing sink never reaches the writer, whose data is committed by then.
    """
    if events:
        transaction.on_commit(partial(_deliver, events), using=TENANT_DATABASE, robust=True)


def _deliver(events: Sequence[Event]) -> None:
    for sink in _sinks:
        try:
            sink(events)
        except Exception:
            logger.exception("[%s] An event sink failed: %s", events[0].schema_name, getattr(sink, "__name__", sink))
