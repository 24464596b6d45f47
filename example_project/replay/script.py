"""Turns the lines of a corpus into what one tenant's clients will do. Pure: no database, no network."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.corpus import Line


@dataclass(frozen=True, slots=True)
class Part:
    """One message to send. `sender` indexes the script's users, `reply_to` the parts of its room."""

    number: int
    client_id: str
    sender: int
    text: str
    reply_to: int | None


@dataclass(slots=True)
class RoomScript:
    """One room: its messages in the order of the file, its members in the order of their first appearance."""

    name: str
    members: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """What one tenant plays. `shared` counts the nicks that had to share the account of another."""

    users: list[str]
    rooms: list[RoomScript]
    shared: int

    @property
    def parts(self) -> int:
        """The number of messages."""
        return sum(len(room.parts) for room in self.rooms)

    @property
    def deliveries(self) -> int:
        """The number of deliveries when each member gets each message of its rooms."""
        return sum(len(room.parts) * len(room.members) for room in self.rooms)


def build_script(lines: Sequence[Line], *, tenant: str, run: UUID, max_users: int, listeners: int = 0) -> Script:
    """Cast the nicks of `lines` as users, at most `max_users` of them, and give each message its client id.

    A nick above the bound plays as the user that its checksum picks, the same in every run and tenant. Client
    ids are unique per tenant and run, so that a message seen in the wrong tenant betrays itself. Each of the
    `listeners` is a member of every room and says nothing.
    """
    nicks = list(dict.fromkeys(line.user for line in lines))
    users = nicks[:max_users]
    cast = {nick: index for index, nick in enumerate(users)}
    for nick in nicks[max_users:]:
        cast[nick] = zlib.crc32(nick.encode()) % len(users)
    silent = range(len(users), len(users) + listeners)
    rooms: dict[str, RoomScript] = {}
    places: dict[tuple[str, int], int] = {}
    for line in lines:
        room = rooms.setdefault(line.room, RoomScript(line.room))
        places[line.room, line.index] = len(room.parts)
        client_id = str(uuid5(run, f"{tenant}\0{line.room}\0{line.index}"))
        reply_to = None if line.reply_to is None else places[line.room, line.reply_to]
        room.parts.append(Part(line.number, client_id, cast[line.user], line.text, reply_to))
    for room in rooms.values():
        room.members = [*dict.fromkeys(part.sender for part in room.parts), *silent]
    names = [*users, *(f"replay-listener-{number + 1}" for number in range(listeners))]
    return Script(names, list(rooms.values()), len(nicks) - len(users))
