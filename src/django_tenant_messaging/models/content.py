"""What may be stored of the texts and names that users write, and how a name is put into another text.

The policy and its reasons are written down in ``docs/unicode.md``.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby
from typing import TYPE_CHECKING

from ..conf import messaging_settings
from ..exceptions import Invalid
from .ids import of_wrong_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TAGS = 0xE0000
REGIONS = ("gbeng", "gbsct", "gbwls")
_REGIONS_IN_TAGS = "|".join("".join(chr(TAGS + ord(letter)) for letter in region) for region in REGIONS)
FLAG = re.compile(f"\U0001f3f4(?:{_REGIONS_IN_TAGS})\U000e007f")
"""The flags of parts of a country that Unicode recommends (UTS #51): a black flag and the region's code in tags. Tags
show nothing, so that any others could carry a hidden text."""
BLANK = re.compile(
    "[\u115f\u1160\u2065\u2800\u3164\uffa0\ufff0-\ufff8\U00013441\U00013442\U0001d159\U000e0000-\U000e0fff]"
)
"""Letters, symbols and unassigned characters that show nothing."""
VISIBLE_FORMAT = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that show something: signs that enclose numbers."""
RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"


MOST_MARKS = 30
"""Most marks on one letter: no word of any language has more, by Unicode's Stream-Safe Text Format (UAX #15)."""


MARKS = frozenset(chr(point) for point in range(0x300, 0x2_0000) if unicodedata.combining(chr(point)))
"""The characters that are marks on the one before."""


def _ranges(characters: Iterable[str]) -> Iterator[str]:
    """Yield characters as a pattern's ranges, which it looks up faster than each by itself."""
    for _distance, found in groupby(enumerate(sorted(map(ord, characters))), lambda pair: pair[1] - pair[0]):
        points = [point for _place, point in found]
        yield f"{chr(points[0])}-{chr(points[-1])}"


TOO_MANY_MARKS = re.compile(f"[{''.join(_ranges(MARKS))}]{{{MOST_MARKS + 1}}}")


class Policy:
    """Which characters a kind of text may not hold, by what they are."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        self._refused = {what: re.compile(f"[{kind}]") for what, kind in refused.items()}
        self._suspect = re.compile(f"[{''.join(refused.values())}]")
        self._flag_or_suspect = re.compile(f"{FLAG.pattern}|({self._suspect.pattern})")

    def check(self, text: str, field: str) -> None:
        """Raise ``Invalid`` for the first character that is refused, saying which it is and where it stands."""
        # What is refused is not printable, and few texts hold anything else that isn't.
        if text.isprintable() or not self._suspect.search("".join(set(text))):
            return
        for match in self._flag_or_suspect.finditer(text):
            if character := match[1]:
                what = next(what for what, kind in self._refused.items() if kind.match(character))
                reason = f"must not contain U+{ord(character):04X} (character {match.start() + 1}): it is {what}"
                raise Invalid.field(field, reason)


NONCHARACTERS = "\ufdd0-\ufdef" + "".join(
    chr(plane + last) for plane in range(0, 0x11_0000, 0x1_0000) for last in (0xFFFE, 0xFFFF)
)
STATEFUL_BIDI = "\u202a-\u202e\u2066-\u2069"
REFUSED = {
    "a control character": "\x00-\x08\x0b-\x1f\x7f-\x9f",
    "a lone surrogate": "\ud800-\udfff",
    "a noncharacter": NONCHARACTERS,
    "a bidirectional override": "\u202d\u202e",
    "a deprecated format character": "\u206a-\u206f\ufff9-\ufffb\U000e0001",
    "a tag outside of a flag": "\U000e0020-\U000e007f",
}
REFUSED_IN_NAMES = REFUSED | {
    "a tab or a line break, and a name is one line": "\t\n\u2028\u2029",
    "a bidirectional embedding or isolate": STATEFUL_BIDI,
}
OF_TEXTS, OF_NAMES = Policy(REFUSED), Policy(REFUSED_IN_NAMES)
HARMFUL_IN_NAMES = re.compile("[" + "".join(kind for what, kind in REFUSED_IN_NAMES.items() if "tag" not in what) + "]")


def clean_content(content: str) -> str:
    """Return a message's content as it is stored: in NFC, its lines ended by a line feed.

    Raises ``Invalid`` when it shows nothing, is longer than ``MAX_CONTENT_LENGTH`` characters, or holds a character
    that is refused.
    """
    if not isinstance(content, str):
        raise of_wrong_kind(content, "content", "a text")
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    return _clean(content, OF_TEXTS, field="content", limit=messaging_settings.MAX_CONTENT_LENGTH)


def clean_name(name: str, *, field: str, limit: int) -> str:
    """Return a name as it is stored: one line, in NFC.

    Raises ``Invalid`` when it shows nothing, is longer than ``limit`` characters, or holds a character that is refused.
    """
    if not isinstance(name, str):
        raise of_wrong_kind(name, field, "a text")
    return _clean(name, OF_NAMES, field=field, limit=limit)


def isolated(name: str) -> str:
    """Return a name to be put into another text: it changes neither the order of that text nor its lines.

    Also of names that this package doesn't check: those of users, and what was stored by earlier releases.
    """
    plain = HARMFUL_IN_NAMES.sub(" ", name)
    if any(unicodedata.bidirectional(character) in RIGHT_TO_LEFT for character in plain):
        return f"{FIRST_STRONG_ISOLATE}{plain}{POP_ISOLATE}"
    return plain


def _clean(text: str, policy: Policy, *, field: str, limit: int) -> str:
    if len(text) > 4 * limit:
        raise _too_long(text, field, limit)
    policy.check(text, field)
    if not text.isascii():
        # To bring marks in their order takes the square of their number.
        if not MARKS.isdisjoint(set(text)) and (found := TOO_MANY_MARKS.search(text)):
            reason = f"must have at most {MOST_MARKS} combining marks in a row (character {found.start() + 1})"
            raise Invalid.field(field, reason)
        text = unicodedata.normalize("NFC", text)
    if len(text) > limit:
        raise _too_long(text, field, limit)
    # Nearly always the first character shows something; of a text of blanks each is looked at once.
    if not any(map(_is_visible, text[:16])) and not any(map(_is_visible, set(text))):
        raise Invalid.field(field, "must not be empty")
    return text


def _is_visible(character: str) -> bool:
    if " " < character < "\x7f":
        return True
    kind = unicodedata.category(character)
    if kind == "Cf":
        return character in VISIBLE_FORMAT
    # Marks show something only together with what they mark.
    return kind[0] not in "MZ" and kind != "Cc" and not BLANK.match(character)


def _too_long(text: str, field: str, limit: int) -> Invalid:
    return Invalid.field(field, f"must have at most {limit} characters, has {len(text)}")
