"""Compares what the clients received with the database, and the database with what was sent. Pure."""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from replay.script import RoomScript


class Entry(NamedTuple):
    """One message as a client saw it or as its row tells it. `digest` stands for the text."""

    room: int
    seq: int
    id: int
    client_id: str
    sender: str | None
    digest: bytes
    reply_to: int | None


@dataclass(slots=True)
class Tally:
    """What went wrong. All zero is the promise.

    The first five count deliveries over all clients, the others rows of the database.
    """

    lost: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    foreign: int = 0
    altered: int = 0
    rows_missing: int = 0
    rows_extra: int = 0
    rows_altered: int = 0
    rows_out_of_order: int = 0
    wrong_replies: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of `other` to the own."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not any(getattr(self, item.name) for item in fields(self))


def digest(text: str) -> bytes:
    """A short stand-in for a text, so that logs stay small."""
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def stored_form(text: str) -> str:
    """The text that the server stores and sends for `text`: it normalises to NFC."""
    return unicodedata.normalize("NFC", text)


def check_log(history: Sequence[Entry], log: Iterable[Entry]) -> Tally:
    """Compare one client's log of a room with the room's history.

    Foreign is what isn't of this room's history at all: another tenant's message, or another room's.
    """
    tally = Tally()
    places = {entry.client_id: place for place, entry in enumerate(history)}
    seen: set[str] = set()
    furthest = -1
    for entry in log:
        place = places.get(entry.client_id)
        if place is None:
            tally.foreign += 1
            continue
        if entry.client_id in seen:
            tally.duplicated += 1
            continue
        seen.add(entry.client_id)
        if place < furthest:
            tally.out_of_order += 1
        furthest = max(furthest, place)
        if entry != history[place]:
            tally.altered += 1
    tally.lost = len(history) - len(seen)
    return tally


def check_logs(
    history: Sequence[Entry], logs: Iterable[array[int]], table: Sequence[Entry], numbers: Mapping[Entry, int]
) -> Tally:
    """Compare the logs of a room's members with its history.

    A log holds positions in `table`, which `numbers` inverts.
    """
    tally = Tally()
    expected = array("I", (numbers[entry] for entry in history if entry in numbers))
    complete = len(expected) == len(history)
    for log in logs:
        if complete and log == expected:
            continue
        tally.add(check_log(history, (table[number] for number in log)))
    return tally


def check_elsewhere(strays: Iterable[str], staged: Collection[str]) -> Tally:
    """Count messages of this run, of any tenant, that turned up in rooms which aren't of this run."""
    return Tally(foreign=sum(client_id in staged for client_id in strays))


def check_rows(
    script: RoomScript, senders: Sequence[str], history: Sequence[Entry], acks: Mapping[str, tuple[int, int]]
) -> Tally:
    """Compare a room's rows with the lines played into it: each once, in order, nothing changed."""
    tally = Tally()
    rows = {entry.client_id: entry for entry in history}
    lines = {part.client_id: part for part in script.parts}
    tally.rows_extra = len(history) - len(rows) + len(rows.keys() - lines.keys())
    furthest = 0
    for part in script.parts:
        row = rows.get(part.client_id)
        if row is None:
            tally.rows_missing += 1
            continue
        if row.seq <= furthest:
            tally.rows_out_of_order += 1
        furthest = max(furthest, row.seq)
        same_text = row.digest == digest(stored_form(part.text))
        if not (same_text and row.sender == senders[part.sender] and acks.get(part.client_id) == (row.id, row.seq)):
            tally.rows_altered += 1
        target = None if part.reply_to is None else rows.get(script.parts[part.reply_to].client_id)
        if row.reply_to != (target.id if target else None):
            tally.wrong_replies += 1
    return tally
