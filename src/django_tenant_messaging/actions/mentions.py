"""Finding ``@username`` in a text."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..selectors import mentioned_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..types import UserRef

# What Django allows in a username besides "@" itself: letters and digits of any script, "_", ".", "-", "+". The
# possessive "++" never tries a shorter piece, so that hostile texts cost no more than their length.
MENTION = re.compile(r"(?<![\w.+\-@/])@([\w.+\-]++)(?!@)")
ADDRESS = re.compile(r"(?<![a-z0-9+.\-])[a-z0-9+.\-]++://\S+|\bwww\.\S+", re.IGNORECASE)
BACKTICKS = re.compile("`+")
FENCE = 3
CLOSING = ".+-_"
LONGEST_USERNAME = 150
MOST_SPELLINGS = 4
SPARE_MENTIONS = 50
"""Names of nobody in the room that a text may hold before those after them are left alone: each costs a look."""


def mention_candidates(content: str) -> Iterator[tuple[str, ...]]:
    """Yield for each mention in a text the usernames it may mean, the likeliest first.

    A sentence's full stop may belong to the name or not: ``@bob.`` means ``bob.`` if there is one, else ``bob``.
    Nothing is a mention in code, web addresses and e-mail addresses.
    """
    if "@" not in content:
        return
    for match in MENTION.finditer(ADDRESS.sub(" ", _without_code(content))):
        if len(match[1]) <= LONGEST_USERNAME:
            yield tuple(_spellings(unicodedata.normalize("NFKC", match[1])))


def first_candidates(content: str) -> list[tuple[str, ...]]:
    """Return the different mentions of a text that are looked up: ``MAX_MENTIONS`` and ``SPARE_MENTIONS`` at most."""
    highest = messaging_settings.MAX_MENTIONS
    found: dict[tuple[str, ...], None] = {}
    if highest:
        for names in mention_candidates(content):
            found[names] = None
            if len(found) == highest + SPARE_MENTIONS:
                break
    return list(found)


def _spellings(name: str) -> Iterator[str]:
    """Yield a name with ever less of the punctuation at its end, and at last without any."""
    bare = name.rstrip(CLOSING)
    for length in range(len(name), max(len(bare), len(name) - MOST_SPELLINGS), -1):
        yield name[:length]
    if bare:
        yield bare


def _without_code(text: str) -> str:
    """Return a text without its code: from backticks to the next as many, where three or more begin a block that
    reaches to the end when it isn't closed.
    """
    runs = [match.span() for match in BACKTICKS.finditer(text)]
    closing: list[int | None] = [None] * len(runs)
    latest: dict[int, int] = {}
    for place in range(len(runs) - 1, -1, -1):
        kind = min(runs[place][1] - runs[place][0], FENCE)
        closing[place] = latest.get(kind)
        latest[kind] = place
    kept, after, place = [], 0, 0
    while place < len(runs):
        start, end = runs[place]
        closed_by = closing[place]
        if closed_by is not None:
            kept.append(text[after:start])
            after, place = runs[closed_by][1], closed_by
        elif end - start >= FENCE:
            return " ".join([*kept, text[after:start]])
        place += 1
    return " ".join([*kept, text[after:]])


def resolve_mentions(room_id: int, content: str, *, sender_key: Any) -> list[tuple[Any, UserRef]]:
    """Return the room's members that a text mentions: see :func:`resolve_mentions_of`."""
    return resolve_mentions_of([(room_id, content, sender_key)])[0]


def resolve_mentions_of(texts: Sequence[tuple[int, str, Any]]) -> list[list[tuple[Any, UserRef]]]:
    """Return for each text, given with its room and its sender's key, the room's members that it mentions, in order
    and once each, the sender excepted.

    The first ``MAX_MENTIONS`` count; names of nobody in the room don't, up to 50 of them.
    One query, none for texts without mentions. Names match in any case; the exact spelling goes first.
    """
    candidates = [first_candidates(content) for _room_id, content, _sender_key in texts]
    names: defaultdict[int, set[str]] = defaultdict(set)
    for (room_id, _content, _sender_key), found in zip(texts, candidates, strict=True):
        if found:
            names[room_id].update(name for spellings in found for name in spellings)
    found_members = mentioned_members(names) if names else {}
    members = {room_id: _Members(of_room) for room_id, of_room in found_members.items()}
    return [
        _resolve(found, members[room_id], sender_key) if found and room_id in members else []
        for (room_id, _content, sender_key), found in zip(texts, candidates, strict=True)
    ]


def _resolve(candidates: list[tuple[str, ...]], members: _Members, sender_key: Any) -> list[tuple[Any, UserRef]]:
    found: dict[Any, UserRef] = {}
    for names in candidates:
        member = next(filter(None, map(members.named, names)), None)
        if member is not None and member[0] != sender_key:
            found.setdefault(*member)
    return list(found.items())[: messaging_settings.MAX_MENTIONS]


class _Members:
    """Members of a room, found by their names."""

    def __init__(self, members: list[tuple[Any, UserRef]]) -> None:
        self._exact = {member[1].username: member for member in members}
        self._alike: defaultdict[str, list[tuple[Any, UserRef]]] = defaultdict(list)
        for member in members:
            self._alike[member[1].username.lower()].append(member)

    def named(self, name: str) -> tuple[Any, UserRef] | None:
        """Return the member of this name, or the only one whose name differs from it by case alone."""
        alike = self._alike.get(name.lower(), ())
        return self._exact.get(name) or (alike[0] if len(alike) == 1 else None)
