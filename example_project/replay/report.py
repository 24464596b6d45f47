"""The figures of a play, and their text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replay.checker import Tally
from replay.recorder import Latencies, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(slots=True)
class TenantReport:
    """What one tenant's play came to."""

    tenant: str
    lines: int
    rooms: int
    clients: int
    expected: int
    rows: int
    record: Record
    tally: Tally

    @property
    def clean(self) -> bool:
        """Whether nothing at all went wrong."""
        record = self.record
        return self.tally.clean and not record.mislabelled and not record.faults


@dataclass(slots=True)
class Report:
    """All tenants of a play."""

    tenants: list[TenantReport] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong in any tenant."""
        return all(tenant.clean for tenant in self.tenants)

    def text(self) -> str:
        """The report as it is printed."""
        blocks = ["\n".join(_tenant_lines(tenant)) for tenant in self.tenants]
        return "\n".join([*blocks, *self._total()])

    def _total(self) -> Iterator[str]:
        records = [tenant.record for tenant in self.tenants]
        tally, latencies = Tally(), Latencies()
        for tenant in self.tenants:
            tally.add(tenant.tally)
            latencies.merge(tenant.record.latencies)
        lines = sum(tenant.lines for tenant in self.tenants)
        yield f"together: {_rates(records)}"
        yield f"  send to deliver: {_latency_text(latencies)}"
        yield f"  {lines:,} lines into {len(records)} tenants: {_verdict(tally)}"
        yield "every log equals its room's history" if self.clean else "THE LOGS DIFFER FROM THE HISTORY"


def _tenant_lines(report: TenantReport) -> Iterator[str]:
    record, tally = report.record, report.tally
    yield (
        f"{report.tenant}: {report.lines:,} lines, {report.rows:,} rows, {report.rooms:,} rooms, "
        f"{report.clients:,} clients, {record.deliveries:,} of {report.expected:,} deliveries"
    )
    yield f"  {_rates([record])}"
    yield f"  send to deliver: {_latency_text(record.latencies)}"
    yield (
        f"  connections: {record.reconnects:,} cut on purpose, {record.dropped:,} lost, "
        f"{record.gaps:,} gaps resumed, {record.pages:,} rooms caught up by pages"
    )
    yield (
        f"  deliveries: {_verdict(tally)}, {tally.altered:,} altered, "
        f"{record.mislabelled:,} with a wrong is_own_message"
    )
    yield (
        f"  rows: {tally.rows_missing:,} missing, {tally.rows_extra:,} extra, {tally.rows_altered:,} altered, "
        f"{tally.rows_out_of_order:,} out of order, {tally.wrong_replies:,} wrong replies"
    )
    for fault in record.faults:
        yield f"  fault: {fault}"


def _rates(records: Sequence[Record]) -> str:
    start = min(record.first_sent for record in records)
    acked = sum(len(record.acks) for record in records)
    delivered = sum(record.deliveries for record in records)
    sending = max(max(record.last_acked for record in records) - start, 1e-9)
    receiving = max(max(record.last_delivered for record in records) - start, 1e-9)
    return (
        f"{acked:,} messages in {sending:.1f} s = {acked / sending:,.0f} messages/s, "
        f"{delivered / receiving:,.0f} deliveries/s"
    )


def _latency_text(latencies: Latencies) -> str:
    parts = [f"p{percent} {latencies.percentile(percent) * 1000:,.1f} ms" for percent in (50, 95, 99)]
    return ", ".join([*parts, f"max {latencies.highest * 1000:,.1f} ms"])


def _verdict(tally: Tally) -> str:
    return (
        f"{tally.lost:,} lost, {tally.duplicated:,} duplicated, {tally.out_of_order:,} out of order, "
        f"{tally.foreign:,} foreign"
    )
