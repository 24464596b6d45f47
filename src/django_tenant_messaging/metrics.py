"""What Prometheus is told. Labels are states, faces and outcomes, never a tenant's name: their number is bounded.

The module is imported only where ``prometheus_client`` is installed, by the extra ``[metrics]``.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from functools import cache
from typing import TYPE_CHECKING, Any

from django.db import connections
from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .signals import tenant_created, tenant_creation_failed, tenant_refused
from .tenancy import is_public_schema, readiness_of_all
from .tenancy.gate import check_is_bypassed
from .types import SchemaState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from .types import Readiness

logger = logging.getLogger(__name__)

SCRAPE_PATIENCE = 5.0
"""Seconds that a scrape waits for the database: half of Prometheus' own limit."""
FACES = ("http", "websocket")
OTHER_FACE = "other"
OUTCOMES = ("created", "failed")

refused = Counter(
    "tenant_messaging_refused",
    "Requests and handshakes refused because their tenant isn't ready, by the state of the schema at fault.",
    ["face", "state"],
    registry=None,
)
creations = Counter(
    "tenant_messaging_tenant_creations",
    "Tenants whose schema was made and migrated, or whose creation was aborted.",
    ["outcome"],
    registry=None,
)
creation_seconds = Histogram(
    "tenant_messaging_tenant_creation_seconds",
    "How long the creation of a tenant took.",
    ["outcome"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
    registry=None,
)


class TenantStates(Collector):
    """Counts the tenants by state when it is asked, with what this process knows and one look for the rest.

    The look is taken in a thread of its own: a scrape may come in a coroutine, in the middle of a transaction, or in a
    thread that never gives its connection back. While the database doesn't answer, the counts are left out and
    ``tenant_messaging_check_failed`` is 1. Prometheus' multiprocess mode knows nothing of collectors: register
    :data:`tenant_states` with the registry that you expose.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._look: _Look | None = None

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without values: to be registered costs no query."""
        return iter([*_states({}), _check_failed(False), _check_disabled(False)])

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, in :data:`SCRAPE_PATIENCE` seconds at most."""
        yield _check_disabled(check_is_bypassed())
        look = self._running_look()
        look.join(SCRAPE_PATIENCE)
        yield _check_failed(look.found is None)
        if look.found is not None:
            yield from _states(look.found)

    def _running_look(self) -> _Look:
        """Return the look that others wait for already: a database that hangs holds one thread. Else begin one."""
        with self._lock:
            if self._look is None or not self._look.is_alive():
                look = _Look(name="tenant-messaging-metrics", daemon=True)
                look.start()
                self._look = look
            return self._look


class _Look(threading.Thread):
    """Finds out what the schemas are; ``found`` stays ``None`` when that fails."""

    found: Mapping[str, Readiness] | None = None

    def run(self) -> None:
        try:
            self.found = readiness_of_all()
        except Exception as error:  # noqa: BLE001 - whatever it is, the other metrics are still told
            logger.warning("The tenants can't be counted for Prometheus: %s", error)
        finally:
            connections.close_all()


tenant_states = TenantStates()


@cache
def connect_metrics() -> None:
    """Register the metrics with Prometheus' default registry and count what the signals tell; once for a process."""
    for metric in (tenant_states, refused, creations, creation_seconds):
        REGISTRY.register(metric)
    tenant_refused.connect(_count_refusal)
    tenant_created.connect(_count_creation)
    tenant_creation_failed.connect(_count_failure)
    # What was never counted is 0, not absent, so that an alert sees its first rise.
    for face in FACES:
        for state in (SchemaState.MISSING, SchemaState.BEHIND, SchemaState.DRIFTED, SchemaState.ERROR):
            refused.labels(face, state.value)
    for outcome in OUTCOMES:
        creations.labels(outcome)
        creation_seconds.labels(outcome)


def _count_refusal(readiness: Readiness, face: str, **_kwargs: Any) -> None:
    refused.labels(face if face in FACES else OTHER_FACE, readiness.state.value).inc()


def _count_creation(seconds: float, **_kwargs: Any) -> None:
    creations.labels("created").inc()
    creation_seconds.labels("created").observe(seconds)


def _count_failure(seconds: float, **_kwargs: Any) -> None:
    creations.labels("failed").inc()
    creation_seconds.labels("failed").observe(seconds)


def _states(found: Mapping[str, Readiness]) -> Iterator[Metric]:
    tally = Tally(readiness.state for name, readiness in found.items() if not is_public_schema(name))
    tenants = GaugeMetricFamily("tenant_messaging_tenants", "Tenants by the state of their schema.", labels=["state"])
    shared = GaugeMetricFamily(
        "tenant_messaging_shared_schema_ready", "Whether the shared schema is ready; without it no tenant is served."
    )
    for state in SchemaState:
        tenants.add_metric([state.value], tally[state])
    for name, readiness in found.items():
        if is_public_schema(name):
            shared.add_metric([], readiness.is_ready)
    yield tenants
    yield shared


def _check_failed(failed: bool) -> Metric:
    return GaugeMetricFamily(
        "tenant_messaging_check_failed", "Whether the states of the tenants couldn't be found out.", value=failed
    )


def _check_disabled(disabled: bool) -> Metric:
    return GaugeMetricFamily(
        "tenant_messaging_migration_check_disabled",
        "Whether DISABLE_MIGRATION_CHECK=true serves tenants that aren't ready.",
        value=disabled,
    )
