"""Finding ``@username`` in a text."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..selectors import mentioned_members

if TYPE_CHECKING:
    from ..types import UserRef

# What Django allows in a username besides "@" itself: letters and digits of any script, "_", ".", "-", "+".
MENTION = re.compile(r"(?<![\w.+\-@/])@([\w.+\-]{1,150})(?![\w@])")
NOT_TEXT = re.compile(
    r"```.*?(?:```|\Z)"  # a fenced block of code, to the end when it isn't closed
    r"|(`+)(?!`).+?(?<!`)\1(?!`)"  # code in a line
    r"|[a-z][a-z0-9+.\-]*://\S+|\bwww\.\S+",  # an address
    re.DOTALL | re.IGNORECASE,
)
CLOSING = ".+-_"


def mention_candidates(content: str) -> list[tuple[str, ...]]:
    """Return for each mention in a text the usernames it may mean, the likeliest first.

    A sentence's full stop may belong to the name or not: ``@bob.`` means ``bob.`` if there is one, else ``bob``.
    Nothing is a mention in code, web addresses and e-mail addresses. At most ``MAX_MENTIONS`` are returned.
    """
    if "@" not in content:
        return []
    found: dict[tuple[str, ...], None] = {}
    for match in MENTION.finditer(NOT_TEXT.sub(" ", content)):
        name = unicodedata.normalize("NFKC", match[1])
        names = [name]
        while len(name) > 1 and name[-1] in CLOSING:
            name = name[:-1]
            names.append(name)
        found[tuple(names)] = None
        if len(found) >= messaging_settings.MAX_MENTIONS:
            break
    return list(found)[: messaging_settings.MAX_MENTIONS]


def resolve_mentions(room_id: int, content: str, *, sender_key: Any) -> list[tuple[Any, UserRef]]:
    """Return the room's members that a text mentions, in order and once each, the sender excepted.

    One query, none for a text without mentions. Names match in any case; the exact spelling goes first.
    """
    candidates = mention_candidates(content)
    if not candidates:
        return []
    members = mentioned_members(room_id, {name for names in candidates for name in names})
    found: dict[Any, UserRef] = {}
    for names in candidates:
        member = next(filter(None, (_pick(name, members) for name in names)), None)
        if member is not None and member[0] != sender_key:
            found.setdefault(*member)
    return list(found.items())


def _pick(name: str, members: list[tuple[Any, UserRef]]) -> tuple[Any, UserRef] | None:
    exact = [member for member in members if member[1].username == name]
    if exact:
        return exact[0]
    alike = [member for member in members if member[1].username.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None
