"""Acknowledged writes are there once, failed ones not at all, unknown ones at most once."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.chaos.checker.timeline import stored

if TYPE_CHECKING:
    from tests.chaos.checker.findings import Findings
    from tests.chaos.checker.timeline import Timeline
    from tests.chaos.checker.truth import Row, Truth
    from tests.chaos.history import History, Place, Write

Found = dict[str, list[tuple["Place", "Row"]]]


def check_writes(history: History, truth: Truth, timelines: dict[Place, Timeline], findings: Findings) -> None:
    """Compare what was asked for with the rows of all rooms of all tenants."""
    found: Found = defaultdict(list)
    for place, room in truth.items():
        for row in room.rows:
            found[row.client_id].append((place, row))
    sends = [write for write in history.writes if write.kind == "send"]
    asked = {write.client_id for write in sends}
    for write in sends:
        rows = found.get(write.client_id, [])
        if write.outcome == "unknown":
            # Another text with the same client id may have been written before.
            rows = [(place, row) for place, row in rows if _is_of(write, row, sends)]
        _check_send(write, rows, timelines, findings)
    for client_id, rows in found.items():
        if client_id not in asked:
            findings.add("invented_row", f"{rows}: nobody sent it", len(rows))
    _check_edits(history, timelines, findings)


def _check_send(
    write: Write, rows: list[tuple[Place, Row]], timelines: dict[Place, Timeline], findings: Findings
) -> None:
    label = f"{write.tenant}/{write.room} {write.user} {write.client_id}"
    if write.outcome == "failed":
        if any(row.content == stored(write.text) for _, row in rows):
            findings.add("failed_present", f"{label}: refused with {write.refusals}, and is there")
        return
    is_known = write.outcome == "acknowledged"
    if len(rows) > 1:
        findings.add("acknowledged_twice" if is_known else "unknown_twice", f"{label}: {rows}", len(rows) - 1)
    if is_known and not rows:
        findings.add("acknowledged_missing", label)
    answers = {(answer.message_id, answer.seq) for answer in write.answers}
    if len(answers) > 1 or (answers and rows and (rows[0][1].id, rows[0][1].seq) not in answers):
        findings.add("answers_differ", f"{label}: answered {sorted(answers)}, is {rows}")
    for place, row in rows:
        _check_row(write, place, row, timelines, findings)


def _is_of(write: Write, row: Row, sends: list[Write]) -> bool:
    """Whether a row may be of a write, unless it is of another one that is known."""
    others = [other for other in sends if other.client_id == write.client_id and other is not write]
    return not any((row.id, row.seq) == (answer.message_id, answer.seq) for other in others for answer in other.answers)


def _check_row(write: Write, place: Place, row: Row, timelines: dict[Place, Timeline], findings: Findings) -> None:
    is_changed = row.changed_seq != row.seq
    if place != (write.tenant, write.room):
        findings.add("invented_row", f"{write} is in {place}")
    elif row.sender != write.user or not (is_changed or row.content == stored(write.text)):
        findings.add("altered_row", f"{write} is {row}")
    elif not any(interval.holds(row.seq) for interval in timelines[place].intervals(write.user)):
        findings.add("unauthorised", f"{row} of {write.user}, who was no member")


def _check_edits(history: History, timelines: dict[Place, Timeline], findings: Findings) -> None:
    """What a message says in the end is what the last change that was acknowledged, or may have been, made of it."""
    by_message: dict[tuple[Place, int], list[Write]] = defaultdict(list)
    for write in history.writes:
        if write.kind != "send" and write.message_id is not None:
            by_message[(write.tenant, write.room), write.message_id].append(write)
    for (place, message_id), edits in by_message.items():
        row = timelines[place].rows.get(message_id)
        if row is None:
            findings.add("acknowledged_missing", f"{place}: message {message_id} is gone")
            continue
        last = max((answer.seq for write in edits for answer in write.answers), default=row.seq)
        if row.changed_seq < last:
            findings.add("acknowledged_missing", f"{place}: change {last} of {row}")
        open_ended = [write for write in edits if write.unsettled or write.answers]
        texts = {stored(write.text) for write in open_ended if write.kind == "edit"}
        deletable = any(write.kind == "delete" for write in open_ended)
        if row.changed_seq != row.seq and not (row.content in texts or (row.deleted and deletable)):
            findings.add("altered_row", f"{row}: no edit says so")
        for write in edits:
            if write.outcome == "failed" and write.kind == "edit" and row.content == stored(write.text):
                findings.add("failed_present", f"{row}: its edit was refused with {write.refusals}")
