"""Reads recorded chat: one JSON object a line, plain or gzipped.

A line has `room`, `at` (ISO 8601), `user`, `text` and `reply_to` (0-based index of an earlier line of the
same room, or null). A line that breaks a rule is reported with its number and left out; reading goes on.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from django_tenant_messaging.exceptions import Invalid
from django_tenant_messaging.models.content import clean_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT_SKIPS = 1000
MAX_LINE_BYTES = 1 << 20
MAX_NAME_LENGTH = 150  # Django's username column
MAX_ROOM_LENGTH = 80
MAX_TEXT_LENGTH = 10_000
GZIP_MAGIC = b"\x1f\x8b"


class CorpusError(Exception):
    """The file as a whole can't be read."""


class BrokenLineError(ValueError):
    """One line breaks a rule; the text says which."""


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the corpus. `index` counts the lines of its room, broken ones too."""

    number: int
    room: str
    index: int
    user: str
    text: str
    reply_to: int | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that isn't played. `number` is 1-based, as editors count."""

    number: int
    reason: str


@dataclass(slots=True)
class Corpus:
    """What was read.

    `skipped` counts the lines left out, the first of which are in `skips`. `orphans` counts the lines whose
    `reply_to` was dropped because it named a skipped line.
    """

    lines: list[Line] = field(default_factory=list)
    skips: list[Skipped] = field(default_factory=list)
    skipped: int = 0
    orphans: int = 0

    def skip(self, number: int, reason: str) -> None:
        """Leave a line out."""
        self.skipped += 1
        if len(self.skips) < KEPT_SKIPS:
            self.skips.append(Skipped(number, reason))


@dataclass(slots=True)
class _Room:
    size: int = 0
    good: set[int] = field(default_factory=set)


def read_corpus(path: Path, *, limit: int | None = None) -> Corpus:
    """Read the first `limit` lines of `path`. Raises CorpusError when no byte of it can be read."""
    corpus = Corpus()
    rooms: dict[str, _Room] = {}
    # A room's lines stand together: an unreadable line takes its place in the room before it (the first room if
    # there is none), so that the replies after it still point to the right message.
    room = _Room()
    for number, raw in _numbered_lines(path, limit, corpus):
        try:
            fields = _parse(raw)
            name = _text(fields, "room", MAX_ROOM_LENGTH)
            room = rooms.setdefault(name, _Room() if rooms else room)
            line = _line(number, name, room.size, fields)
        except BrokenLineError as error:
            corpus.skip(number, str(error))
        else:
            if line.reply_to is not None and line.reply_to not in room.good:
                corpus.orphans += 1
                line = replace(line, reply_to=None)
            room.good.add(line.index)
            corpus.lines.append(line)
        room.size += 1
    return corpus


def _numbered_lines(path: Path, limit: int | None, corpus: Corpus) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _opened(path) as stream:
            while limit is None or number < limit:
                raw = stream.readline(MAX_LINE_BYTES)
                if not raw:
                    return
                number += 1
                if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    _skip_rest(stream)
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                yield number, raw
    except (EOFError, zlib.error, OSError) as error:
        if number == 0:
            raise CorpusError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from error
        corpus.skip(number + 1, f"the file can't be read from here on: {error}")


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if packed else path.open("rb")


def _skip_rest(stream: BinaryIO | gzip.GzipFile) -> None:
    while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _parse(raw: bytes) -> dict[str, Any]:
    if len(raw) >= MAX_LINE_BYTES:
        raise BrokenLineError(f"longer than {MAX_LINE_BYTES:,} bytes")
    try:
        fields = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise BrokenLineError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise BrokenLineError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BrokenLineError("not a JSON object")
    return fields


def _line(number: int, room: str, index: int, fields: dict[str, Any]) -> Line:
    user = _text(fields, "user", MAX_NAME_LENGTH)
    try:
        text = clean_content(_text(fields, "text", MAX_TEXT_LENGTH))
    except Invalid as error:
        raise BrokenLineError(f"text: {error.details['errors'][0]['reason']}") from None
    at = _text(fields, "at", 64)
    try:
        datetime.fromisoformat(at)
    except ValueError:
        raise BrokenLineError("at: not an ISO 8601 time") from None
    if "reply_to" not in fields:
        raise BrokenLineError("reply_to: missing")
    reply_to = fields["reply_to"]
    if reply_to is None:
        return Line(number, room, index, user, text, None)
    if type(reply_to) is not int:
        raise BrokenLineError("reply_to: neither a number nor null")
    if not 0 <= reply_to < index:
        raise BrokenLineError(f"reply_to: {reply_to} isn't an earlier message of the room, this one is {index}")
    return Line(number, room, index, user, text, reply_to)


def _text(fields: dict[str, Any], name: str, limit: int) -> str:
    value = fields.get(name)
    if name not in fields:
        raise BrokenLineError(f"{name}: missing")
    if not isinstance(value, str):
        raise BrokenLineError(f"{name}: not a string")
    if not value.strip():
        raise BrokenLineError(f"{name}: empty")
    if len(value) > limit:
        raise BrokenLineError(f"{name}: longer than {limit:,} characters")
    if "\0" in value:
        raise BrokenLineError(f"{name}: has a NUL")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise BrokenLineError(f"{name}: has a lone surrogate")
    return value
