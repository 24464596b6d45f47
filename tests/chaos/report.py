"""What a run says for itself: a row of a table, and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tests.chaos.checker.findings import COLUMNS
from tests.chaos.history import Got, Page, Started

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.chaos.checker import Judgement
    from tests.chaos.history import History, Receiver

TITLES = ("fault", "deliveries", "acknowledged", "unknown", *COLUMNS, "other", "recovery s", "worst s", "p99 ms")


@dataclass(slots=True)
class Report:
    """The figures of one run."""

    name: str
    seconds: float = 0.0
    deliveries: int = 0
    shown_in_pages: int = 0
    writes: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    postponed: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    unanswered: int = 0
    reconnects: dict[str, int] = field(default_factory=dict)
    resumes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    worst: float = 0.0
    worst_is: str = ""
    p50: float = 0.0
    p99: float = 0.0
    columns: dict[str, int] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    resources: dict[str, Any] = field(default_factory=dict)

    @property
    def recovery(self) -> float:
        """The longest of all recoveries, in seconds."""
        return max((seconds for found in self.recoveries.values() for seconds in found), default=0.0)

    def cells(self) -> tuple[str, ...]:
        """The row of the table, as `TITLES` names it."""
        others = sum(self.findings.values()) - sum(self.columns.values())
        return (
            self.name,
            f"{self.deliveries:,}",
            f"{self.writes.get('acknowledged', 0):,}",
            str(self.writes.get("unknown", 0)),
            *(str(self.columns.get(name, 0)) for name in COLUMNS),
            str(others),
            f"{self.recovery:.1f}",
            f"{self.worst:.1f}",
            f"{self.p99 * 1000:.0f}",
        )

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def summarise(
    name: str, history: History, judgement: Judgement, notes: Mapping[str, float], complaints: Iterable[str]
) -> Report:
    """Put the figures together."""
    report = Report(name, notes=dict(notes), complaints=list(complaints))
    if judgement.times.removals:
        report.notes["longest seconds from a removal to its client"] = max(judgement.times.removals)
    for receiver in history.receivers:
        _count_events(report, receiver)
    for write in history.writes:
        _count(report.writes, write.outcome)
        report.repeated += len(write.answers) > 1
        for code in write.refusals:
            _count(report.refusals, code)
        for code in write.postponed:
            _count(report.postponed, code)
    for fault in history.faults:
        _count(report.faults, fault.name)
    times, findings = judgement.times, judgement.findings
    report.recoveries = {key: [round(value, 3) for value in found] for key, found in times.recoveries.items()}
    report.worst_is = times.worst_is
    report.worst, report.p50, report.p99 = times.worst, times.percentile(0.5), times.percentile(0.99)
    report.columns = {column: findings.column(column) for column in COLUMNS}
    report.findings, report.examples = dict(findings.counts), findings.examples
    return report


def _count_events(report: Report, receiver: Receiver) -> None:
    for event in receiver.events:
        if isinstance(event, Got):
            report.deliveries += event.entry.kind != "skip"
        elif isinstance(event, Page):
            report.shown_in_pages += len(event.messages)
        elif isinstance(event, Started):
            _count(report.resumes, event.how)
    for _, how in receiver.lost:
        _count(report.reconnects, how.partition(":")[0])


def table(reports: Iterable[Report]) -> str:
    """All reports below each other, aligned."""
    rows = [TITLES, *(report.cells() for report in reports)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(TITLES))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
