"""Made-up runs for the checker's own tests: by themselves they keep every promise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tests.chaos.checker import check
from tests.chaos.checker.truth import RoomRows, Row
from tests.chaos.frames import Entry, Shown
from tests.chaos.history import Answer, Ended, Got, History, MemberChange, Page, Receiver, Started, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.checker import Judgement
    from tests.chaos.history import Place

ROOM = 1
EPOCH = "epoch"
DELAY = 0.01
"""Seconds from an answer to its delivery."""


@dataclass(slots=True)
class Room:
    """One room: who is in it and what is said."""

    head: int = 0
    members: set[str] = field(default_factory=set)
    rows: dict[int, Row] = field(default_factory=dict)
    name: str = ""
    name_seq: int = 0


class Tale:
    """Two tenants with a room of equal number, in which alice, bob and carol are; each has one device."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rooms: dict[Place, Room] = {}
        self.history = History({})
        self._ids = 0
        for tenant in ("acme", "globex"):
            people = ("alice", "bob", "carol")
            self.rooms[tenant, ROOM] = Room(members=set(people))
            self.history.members[tenant, ROOM] = frozenset(people)
            for user in (*people, "dave"):
                receiver = Receiver(tenant, user, 0, resumed=[self.now])
                if user in people:
                    receiver.events.append(Started(self.now, ROOM, EPOCH, 0, "hello"))
                self.history.receivers.append(receiver)

    def receiver(self, user: str, tenant: str = "acme") -> Receiver:
        """A user's device."""
        return next(found for found in self.history.receivers if (found.tenant, found.user) == (tenant, user))

    # What happens, as it should

    def send(self, user: str, text: str, *, tenant: str = "acme") -> Write:
        """A message that is written, acknowledged and delivered to all members."""
        room = self._next(tenant)
        self._ids += 1
        write = Write(tenant, ROOM, user, "send", text, self.now, f"client {self._ids}")
        row = Row(self._ids, room.head, room.head, write.client_id, user, text)
        return self._written(write, row)

    def edit(self, write: Write, text: str) -> Write:
        """A message that is edited by its sender."""
        row, room = self._row(write), self._next(write.tenant)
        edit = Write(write.tenant, ROOM, write.user, "edit", text, self.now, message_id=row.id)
        return self._written(edit, replace(row, changed_seq=room.head, content=text))

    def delete(self, write: Write) -> Write:
        """A message that is deleted by its sender."""
        row, room = self._row(write), self._next(write.tenant)
        deletion = Write(write.tenant, ROOM, write.user, "delete", "", self.now, message_id=row.id)
        return self._written(deletion, replace(row, changed_seq=room.head, content="", deleted=True))

    def rename(self, user: str, name: str) -> Write:
        """A room that gets another name."""
        room = self._next("acme")
        room.name, room.name_seq = name, room.head
        write = Write("acme", ROOM, user, "rename", name, self.now, answers=[Answer(0, 0, self.now)])
        self.history.writes.append(write)
        for member in room.members:
            entry = Entry(ROOM, room.head - 1, room.head, "room", name=name)
            self.receiver(member).events.append(Got(self.now + DELAY, entry))
        return write

    def add(self, user: str, *, tenant: str = "acme") -> MemberChange:
        """A user who joins."""
        return self._move(user, tenant, joined=True)

    def remove(self, user: str, *, tenant: str = "acme") -> MemberChange:
        """A user who is removed."""
        return self._move(user, tenant, joined=False)

    def resume(self, user: str, seq: int, how: Any = "ok") -> None:
        """A client that comes back, at a position."""
        self.now += 1
        receiver = self.receiver(user)
        receiver.events.append(Started(self.now, ROOM, EPOCH, seq, how))
        receiver.resumed.append(self.now)

    def page(self, user: str, *, final: bool = False) -> Page:
        """A client that reads what it may see of the history."""
        self.now += 1
        rows = sorted(self.rooms["acme", ROOM].rows.values(), key=lambda row: row.seq)
        page = Page(self.now, ROOM, self.rooms["acme", ROOM].head, tuple(shown(row, user) for row in rows), final)
        self.receiver(user).events.append(page)
        return page

    # What goes wrong

    def got(self, user: str, tenant: str = "acme") -> list[Got]:
        """What a user's device got."""
        return [event for event in self.receiver(user, tenant).events if isinstance(event, Got)]

    def change_events(self, user: str, change: Callable[[list[Any]], None]) -> None:
        """Let a device have recorded something else."""
        change(self.receiver(user).events)

    def alter(self, user: str, seq: int, **fields: Any) -> None:
        """Let a device have got an entry that is different."""
        receiver = self.receiver(user)
        receiver.events[:] = [
            replace(event, entry=replace(event.entry, **fields))
            if isinstance(event, Got) and event.entry.seq == seq
            else event
            for event in receiver.events
        ]

    def judge(self, **bounds: Any) -> Judgement:
        """What the checker says."""
        truth = {
            place: RoomRows(
                room.head, tuple(sorted(room.rows.values(), key=lambda row: row.seq)), room.name, room.name_seq
            )
            for place, room in self.rooms.items()
        }
        return check(self.history, truth, **bounds)

    def found(self, **bounds: Any) -> dict[str, int]:
        """How often each promise was broken, by the checker's count."""
        return dict(self.judge(**bounds).findings.counts)

    def _next(self, tenant: str) -> Room:
        self.now += 1
        room = self.rooms[tenant, ROOM]
        room.head += 1
        return room

    def _row(self, write: Write) -> Row:
        return self.rooms[write.tenant, ROOM].rows[write.answers[0].message_id]

    def _written(self, write: Write, row: Row) -> Write:
        room = self.rooms[write.tenant, ROOM]
        room.rows[row.id] = row
        write.answers.append(Answer(row.id, row.changed_seq, self.now))
        self.history.writes.append(write)
        for user in room.members:
            entry = Entry(ROOM, row.changed_seq - 1, row.changed_seq, "message", shown(row, user))
            self.receiver(user, write.tenant).events.append(Got(self.now + DELAY, entry))
        return write

    def _move(self, user: str, tenant: str, *, joined: bool) -> MemberChange:
        room, users = self._next(tenant), frozenset({user})
        change = MemberChange(tenant, ROOM, users, joined, self.now, room.head, self.now)
        self.history.changes.append(change)
        entry = Entry(ROOM, room.head - 1, room.head, "members", joined=users if joined else frozenset())
        entry = entry if joined else replace(entry, left=users)
        for other in room.members:
            self.receiver(other, tenant).events.append(Got(self.now + DELAY, entry))
        mover = self.receiver(user, tenant)
        if joined:
            room.members.add(user)
            mover.events.append(Started(self.now + DELAY, ROOM, EPOCH, room.head, "added"))
        else:
            room.members.remove(user)
            mover.events.append(Ended(self.now + DELAY, ROOM))
        return change


def shown(row: Row, user: str) -> Shown:
    """A row as a user is shown it."""
    return Shown(row.id, row.seq, row.client_id, row.sender, row.content, row.deleted, row.sender == user)
