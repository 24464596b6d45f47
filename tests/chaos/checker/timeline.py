"""A room's timeline as writes, changes of membership and rows together tell it: what has which number."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.chaos.checker.findings import Findings
    from tests.chaos.checker.truth import RoomRows, Row
    from tests.chaos.history import History, MemberChange, Place, Write


Told = dict["Place", set[tuple[int, str]]]
"""The numbers and names of renamings that receivers were told of."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one number stands for: a message's state from there on, users who came or went, or the room's new name."""

    message_id: int | None = None
    content: str = ""
    deleted: bool = False
    joined: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A membership: from the number of the join on, up to that of the removal."""

    joined: int
    left: int | None

    def holds(self, seq: int) -> bool:
        """Whether a number lies in it, the join and the removal themselves included."""
        return self.joined <= seq and (self.left is None or seq <= self.left)


class Timeline:
    """What each number from 1 to the head stands for, and who was a member when."""

    def __init__(self, place: Place, room: RoomRows, history: History, told: Told, findings: Findings) -> None:
        self.place = place
        self.head = room.head
        self.rows = {row.id: row for row in room.rows}
        self.by_client_id = {row.client_id: row for row in room.rows}
        self.committed: dict[int, float] = {}
        """When a number was known to be committed, by the first answer."""
        self._changes: dict[int, Change] = {}
        self._last_of_message: dict[int, int] = defaultdict(int)
        self._last_of_member: dict[str, int] = defaultdict(int)
        self._texts: dict[int, list[str]] = defaultdict(list)
        self._last_name = 0
        self._findings = findings
        writes = [write for write in history.writes if (write.tenant, write.room) == place]
        moves = [change for change in history.changes if (change.tenant, change.room) == place]
        self._add_rows(room.rows, writes)
        self._add_members(moves)
        self._add_edits(writes)
        self._add_names(room, writes, told.get(place, set()))
        self._find_gaps(writes, moves)
        self._intervals = _intervals(history.members.get(place, frozenset()), moves)

    def at(self, seq: int) -> Change | None:
        """What a number stands for; `None` for one whose write nobody got an answer to, or that doesn't exist."""
        return self._changes.get(seq)

    def texts(self, message_id: int) -> list[str]:
        """All that a message ever said."""
        return self._texts[message_id]

    def is_replaced(self, seq: int) -> bool:
        """Whether a later change made this one invisible to whoever reads the current states."""
        change = self._changes.get(seq)
        if change is None:
            return True
        if change.message_id is not None:
            return self._last_of_message[change.message_id] > seq
        if change.name is not None:
            return self._last_name > seq
        return all(self._last_of_member[user] > seq for user in change.joined | change.left)

    def outdated(self, user: str, seq: int) -> bool:
        """Whether a user came or went again after a number."""
        return self._last_of_member[user] > seq

    def intervals(self, user: str) -> list[Interval]:
        """The memberships of a user, in order."""
        return self._intervals.get(user, [])

    def concerns(self, user: str, seq: int) -> bool:
        """Whether what a number stands for has to be shown to a user: not what changes a message of before joining."""
        change = self._changes.get(seq)
        if change is None:
            return False
        row = self.rows.get(change.message_id or 0)
        shown = seq if row is None else row.seq
        return any(
            interval.joined < seq and interval.holds(seq) and interval.holds(shown) for interval in self.intervals(user)
        )

    def _add(self, seq: int, change: Change, at: float | None = None) -> None:
        known = self._changes.setdefault(seq, change)
        if known != change:
            self._findings.add("reused", f"{self.place}: {seq} is {known} and {change}")
        if at is not None:
            self.committed[seq] = min(at, self.committed.get(seq, at))
        if change.message_id is not None:
            self._last_of_message[change.message_id] = max(seq, self._last_of_message[change.message_id])
            self._texts[change.message_id].append(change.content)
        for user in change.joined | change.left:
            self._last_of_member[user] = max(seq, self._last_of_member[user])
        if change.name is not None:
            self._last_name = max(seq, self._last_name)

    def _add_rows(self, rows: Iterable[Row], writes: Iterable[Write]) -> None:
        # Of several sends with one client id only the first can have been written.
        texts: dict[str, str] = {}
        for write in writes:
            if write.kind == "send" and write.outcome != "failed":
                texts.setdefault(write.client_id, stored(write.text))
        for row in rows:
            self._add(row.seq, Change(message_id=row.id, content=texts.get(row.client_id, row.content)))
        for write in writes:
            for answer in write.answers if write.kind == "send" else ():
                self.committed[answer.seq] = min(answer.at, self.committed.get(answer.seq, answer.at))

    def _add_members(self, moves: Iterable[MemberChange]) -> None:
        for move in moves:
            if move.seq is not None:
                change = Change(joined=move.users) if move.joined else Change(left=move.users)
                self._add(move.seq, change, move.acknowledged)

    def _add_edits(self, writes: Iterable[Write]) -> None:
        for write in writes:
            for answer in write.answers if write.kind in {"edit", "delete"} else ():
                deleted = write.kind == "delete"
                change = Change(answer.message_id, "" if deleted else stored(write.text), deleted)
                self._add(answer.seq, change, answer.at)
        for row in self.rows.values():
            if row.changed_seq not in self._changes:
                self._add(row.changed_seq, Change(row.id, row.content, row.deleted))

    def _add_names(self, room: RoomRows, writes: Iterable[Write], told: set[tuple[int, str]]) -> None:
        """A renaming's answer doesn't say its number. Who was told of it knows it, the room only that of the last."""
        asked = {write.text for write in writes if write.kind == "rename" and write.outcome != "failed"}
        if room.name_seq:
            told = told | {(room.name_seq, room.name)}
        for seq, name in told:
            if name in asked:
                self._add(seq, Change(name=name))
            else:
                self._findings.add("altered_row", f"{self.place}: renamed to {name!r} at {seq}, which nobody asked for")

    def _find_gaps(self, writes: Iterable[Write], moves: Iterable[MemberChange]) -> None:
        """Each number up to the head is taken, but for those of writes whose outcome nobody knows."""
        missing = [seq for seq in range(1, self.head + 1) if seq not in self._changes]
        excused = sum(write.unsettled for write in writes if write.kind != "send")
        excused += sum(move.seq is None for move in moves)
        known = {change.name for change in self._changes.values()}
        unseen = [write for write in writes if write.kind == "rename" and write.answers and write.text not in known]
        if len(missing) < len(unseen):
            self._findings.add(
                "acknowledged_missing", f"{self.place}: renamings {unseen[:5]}", len(unseen) - len(missing)
            )
        excused += len(unseen)
        if len(missing) > excused:
            self._findings.add("gap", f"{self.place}: {missing[:20]} of 1..{self.head}", len(missing) - excused)
        beyond = [seq for seq in self._changes if not 1 <= seq <= self.head]
        if beyond:
            self._findings.add("gap", f"{self.place}: {beyond[:20]} outside 1..{self.head}", len(beyond))


def stored(text: str) -> str:
    """The text that is kept of what a client sends."""
    return unicodedata.normalize("NFC", text)


def _intervals(first: frozenset[str], moves: list[MemberChange]) -> dict[str, list[Interval]]:
    found: dict[str, list[Interval]] = {user: [Interval(0, None)] for user in first}
    for move in sorted((move for move in moves if move.seq is not None), key=lambda move: move.seq or 0):
        assert move.seq is not None
        for user in move.users:
            own = found.setdefault(user, [])
            is_member = bool(own) and own[-1].left is None
            if move.joined and not is_member:
                own.append(Interval(move.seq, None))
            elif not move.joined and is_member:
                own[-1] = Interval(own[-1].joined, move.seq)
    return found
