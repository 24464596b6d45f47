"""What isn't part of a timeline stays in its tenant and room as well: typing, reading, presence, notifications."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.history import Sign, Told

if TYPE_CHECKING:
    from tests.chaos.checker.findings import Findings
    from tests.chaos.checker.timeline import Timeline
    from tests.chaos.history import History, Place, Receiver


@dataclass(frozen=True, slots=True)
class Habits:
    """What the users of a tenant do that those of the others, who have the same names, don't."""

    signing: frozenset[str]
    """Who types and reads."""
    absent: frozenset[str]
    """Who never connects."""


def check_passing(
    history: History, timelines: dict[Place, Timeline], habits: dict[str, Habits], findings: Findings
) -> None:
    """Check what may be lost but mustn't be shown to others."""
    for receiver in history.receivers:
        of_tenant = habits.get(receiver.tenant)
        if of_tenant is not None and (seen := receiver.online & of_tenant.absent):
            findings.add("other_tenant", f"{receiver.name}: {sorted(seen)} online", len(seen))
        for event in receiver.events:
            if isinstance(event, Sign | Told):
                timeline = timelines.get((receiver.tenant, event.room))
                if timeline is None or not timeline.intervals(receiver.user):
                    findings.add("other_room", f"{receiver.name}: {event}")
                elif isinstance(event, Told):
                    _check_notification(receiver, event, timeline, findings)
                elif of_tenant is not None and event.user not in of_tenant.signing:
                    findings.add("other_tenant", f"{receiver.name}: {event}")


def _check_notification(receiver: Receiver, told: Told, timeline: Timeline, findings: Findings) -> None:
    """Whoever is notified was mentioned, by whom the notification names."""
    row = timeline.rows.get(told.message_id)
    is_mentioned = any(f"@{receiver.user}" in text for text in timeline.texts(told.message_id))
    if row is None or not is_mentioned or not told.text.startswith(f"{row.sender} "):
        findings.add("other_tenant", f"{receiver.name}: {told} of {row}")
