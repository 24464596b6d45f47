"""What each receiver got is its memberships' timeline: all of it, in order, once, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.chaos.history import Ended, Got, Page, Started

if TYPE_CHECKING:
    from tests.chaos.checker.findings import Findings
    from tests.chaos.checker.timeline import Change, Interval, Timeline
    from tests.chaos.checker.truth import Row
    from tests.chaos.frames import Entry, Shown
    from tests.chaos.history import Event, History, Place, Receiver

State = tuple[int, int, str, str | None, str, bool]


def check_receivers(
    history: History,
    timelines: dict[Place, Timeline],
    findings: Findings,
) -> None:
    """Check every receiver in every room."""
    owners = {client_id: place for place, timeline in timelines.items() for client_id in timeline.by_client_id}
    for receiver in history.receivers:
        if receiver.refused:
            findings.add("refused", f"{receiver.name}: {receiver.refused}")
        rooms: dict[int, list[Event]] = defaultdict(list)
        for event in receiver.events:
            rooms[event.entry.room if isinstance(event, Got) else event.room].append(event)
        places = {room for tenant, room in timelines if tenant == receiver.tenant}
        for room in places | set(rooms):
            timeline = timelines.get((receiver.tenant, room))
            if timeline is None:
                findings.add("other_room", f"{receiver.name}: room {room} doesn't exist", len(rooms[room]))
                continue
            watch = RoomWatch(receiver, timeline, owners, findings)
            watch.follow(rooms[room])
            watch.finish()


class RoomWatch:
    """Follows one receiver in one room."""

    def __init__(self, receiver: Receiver, timeline: Timeline, owners: dict[str, Place], findings: Findings) -> None:
        self._receiver = receiver
        self._timeline = timeline
        self._owners = owners
        self._findings = findings
        self._position: int | None = None
        self._seen: set[int] = set()
        self._lost: set[int] = set()
        self._view: dict[int, tuple[int, Shown]] = {}
        """Each message that is shown, as of which number."""
        self._page: Page | None = None

    def follow(self, events: list[Event]) -> None:
        """Go through all that happened, in order."""
        for event in events:
            match event:
                case Started():
                    self._start(event)
                case Ended():
                    self._position = None
                case Got():
                    self._get(event.entry)
                case Page(final=True):
                    self._page = event
                case Page():
                    for message in event.messages:
                        self._show(event.seq, message)

    def _start(self, event: Started) -> None:
        if event.how == "reset":
            self._seen.clear()
            self._view.clear()
        elif event.how == "ok" and self._position is not None and event.seq > self._position:
            # What an earlier membership left out can't be had any more once there is another.
            current = [interval.joined for interval in self._memberships() if interval.holds(event.seq)]
            self._skip(max([self._position, *current]), event.seq)
        self._position = event.seq

    def _get(self, entry: Entry) -> None:
        if not self._belongs(entry):
            return
        if entry.seq in self._seen:
            self._note("repeated", entry)
        elif self._position is None:
            self._note("after_removal", entry)
        elif entry.after < self._position:
            self._note("reordered", entry)
        elif entry.after > self._position:
            # The client comes back and asks again from where it was.
            self._skip(self._position, entry.after)
        else:
            self._accept(entry)

    def _accept(self, entry: Entry) -> None:
        self._position = entry.seq
        self._seen.add(entry.seq)
        if entry.kind == "skip":
            self._skip(entry.after, entry.seq)
            return
        self._skip(entry.after, entry.seq - 1)
        self._compare(entry, self._timeline.at(entry.seq))
        if entry.message is not None:
            self._show(entry.seq, entry.message)

    def _belongs(self, entry: Entry) -> bool:
        """Whether an entry is of this room and of a time when the receiver was in it."""
        owner = self._timeline.place
        message = entry.message
        if message is not None:
            owner = self._owners.get(message.client_id, ("", 0))
            if owner != self._timeline.place:
                elsewhere = "other_room" if owner[0] == self._receiver.tenant else "other_tenant"
                self._note(elsewhere if owner[0] else "invented", entry)
                return False
        if entry.seq > self._timeline.head:
            self._note("invented", entry)
            return False
        intervals = self._memberships()
        shown = [entry.seq] if message is None else [entry.seq, message.place]
        for seq in () if entry.kind == "skip" else shown:
            if not any(interval.holds(seq) for interval in intervals):
                is_early = bool(intervals) and seq < intervals[-1].joined
                self._note("before_joining" if is_early else "after_removal", entry)
                return False
        return True

    def _compare(self, entry: Entry, change: Change | None) -> None:
        """Compare an entry with what its number stands for."""
        message = entry.message
        if change is None:
            # The write got no answer. Then only an edit can have taken the number, as sends left a row.
            if message is None or message.place == entry.seq:
                self._note("altered", entry)
        elif message is None and entry.name is not None:
            if entry.name != change.name:
                self._note("altered", entry)
        elif message is None:
            missing = (change.joined - entry.joined) | (change.left - entry.left)
            extra = (entry.joined - change.joined) | (entry.left - change.left)
            if extra or not all(self._timeline.outdated(user, entry.seq) for user in missing):
                self._note("altered", entry)
        else:
            row = self._timeline.by_client_id[message.client_id]
            wanted = (row.id, row.seq, row.sender, change.message_id, change.content, change.deleted)
            is_right = wanted == (
                message.id, message.place, message.sender, message.id, message.content, message.deleted
            )  # fmt: skip
            if not is_right or message.own is not (message.sender == self._receiver.user):
                self._note("altered", entry)

    def _skip(self, after: int, until: int) -> None:
        """Numbers that weren't sent were replaced by later changes, or aren't for this receiver."""
        lost = [
            seq
            for seq in range(after + 1, until + 1)
            if seq not in self._lost
            and self._timeline.concerns(self._receiver.user, seq)
            and not self._timeline.is_replaced(seq)
        ]
        if lost:
            self._lost.update(lost)
            where = f"{self._receiver.name} room {self._timeline.place[1]}"
            self._findings.add("skipped", f"{where}: {lost[:10]} between {after} and {until}", len(lost))

    def _memberships(self) -> list[Interval]:
        return self._timeline.intervals(self._receiver.user)

    def _show(self, seq: int, message: Shown) -> None:
        known = self._view.get(message.id)
        if known is None or known[0] <= seq:
            self._view[message.id] = seq, message

    def finish(self) -> None:
        """Compare the end of a membership that never ended with the database."""
        intervals = self._memberships()
        if not (self._receiver.is_complete and intervals and intervals[-1].left is None):
            return
        where = f"{self._receiver.name} room {self._timeline.place[1]}"
        joined = intervals[-1].joined
        position = joined if self._position is None else self._position
        missing = [seq for seq in range(position + 1, self._timeline.head + 1) if not self._timeline.is_replaced(seq)]
        if self._position is None or missing:
            self._findings.add("incomplete", f"{where}: ends at {self._position}, {missing[:10]}", len(missing) or 1)
        rows = {row.id: _state_of_row(row) for row in self._timeline.rows.values() if row.seq > joined}
        view = {key: _state(message) for key, (_, message) in self._view.items() if message.place > joined}
        self._differ("view_differs", where, rows, view)
        if self._page is not None:
            page = {message.id: _state(message) for message in self._page.messages}
            if len(page) != len(self._page.messages):
                self._findings.add("history_differs", f"{where}: a message twice")
            self._differ("history_differs", where, view, page)
            places = [message.place for message in self._page.messages]
            if places != sorted(places):
                self._findings.add("history_differs", f"{where}: not in order")

    def _differ(self, kind: str, where: str, wanted: dict[int, State], found: dict[int, State]) -> None:
        if wanted != found:
            different = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
            first = min(different)
            text = f"{where}: {len(different)} differ, such as {wanted.get(first)} and {found.get(first)}"
            self._findings.add(kind, text, len(different))

    def _note(self, kind: str, entry: Entry) -> None:
        self._findings.add(kind, f"{self._receiver.name} at {self._position}: {entry}")


def _state(message: Shown) -> State:
    return message.id, message.place, message.client_id, message.sender, message.content, message.deleted


def _state_of_row(row: Row) -> State:
    return row.id, row.seq, row.client_id, row.sender, row.content, row.deleted
