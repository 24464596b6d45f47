"""Telling the messages of this site's own processes from all others that a channel layer may carry.

A layer says neither who sent a message nor by which group it came: other code of the host, another site on the same
Redis or a copy of this one can send to the group of any tenant. So each message carries a seal, made with a key that
only this site has, over all that it says; nothing of one without it is read. Nor can they send one again that was
heard: each has a number, and of one process those about one tenant come in their order.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from hashlib import blake2b
from hmac import compare_digest
from itertools import count
from secrets import token_hex
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.utils.encoding import force_bytes
from pydantic_core import from_json, to_json

from ..conf import messaging_settings
from ..tenancy import database_address

if TYPE_CHECKING:
    from collections.abc import Iterator

PERSON = b"messaging.layer1"
"""What this key and its seals are for; another form of message gets another number."""
SEAL_BYTES = 16
MOST_HEARD = 65_536
"""Processes, times the tenants that each speaks of, of which the last number is known. Each takes about 300 bytes."""
TELL_INTERVAL = 600.0
"""Seconds between two log records of one kind of message that isn't used."""


class Message(NamedTuple):
    """What one process tells others."""

    kind: str
    about: str
    """The schema of the tenant that it is about, or the process that it is for."""
    content: Any
    """Whatever JSON can hold."""


class Sealer:
    """Seals messages with ``SECRET_KEY``, and opens those that were sealed with it or one of its fallbacks, once."""

    def __init__(self) -> None:
        self._keys = list(_keys())
        self._source = token_hex(8)
        self._numbers = count(1)
        self._heard: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        """The last number of each source, kind and tenant; those that were heard of last are at the end."""

    def sealed(self, message: Message, *, origin: str = "") -> dict[str, Any]:
        """Return a message as it is given to the channel layer. The process ``origin`` passes it over."""
        body = to_json((*message, self._source, next(self._numbers)))
        return {
            "type": message.kind,
            "origin": origin,
            "body": body.decode(),
            "seal": _seal(body, self._keys[0]).hex(),
        }

    def opened(self, given: object) -> Message | None:
        """Return a message that came by the channel layer; ``None`` for one that no process of this site sent, or that
        was opened before, or overtaken by a later one of the same kind about the same tenant.

        Raises ``ValueError`` or ``TypeError`` for one of theirs that this release can't read.
        """
        if not isinstance(given, dict):
            return None
        body, seal = given.get("body"), given.get("seal")
        if not (isinstance(body, str) and isinstance(seal, str)):
            return None
        # What can't be encoded was never sealed, and mustn't fail here.
        text, claimed = body.encode(errors="replace"), seal.encode(errors="replace")
        if not any(compare_digest(_seal(text, key).hex().encode(), claimed) for key in self._keys):
            return None
        *parts, source, number = from_json(text)
        message = Message(*parts)
        return message if self._is_later(message, source, number) else None

    def _is_later(self, message: Message, source: str, number: int) -> bool:
        place = source, message.kind, message.about
        is_later = self._heard.get(place, 0) < number
        if is_later:
            self._heard[place] = number
            self._heard.move_to_end(place)
            if len(self._heard) > MOST_HEARD:
                self._heard.popitem(last=False)
        return is_later


class Seldom:
    """Counts what may happen often and is to be told seldom."""

    def __init__(self) -> None:
        self._number = 0
        self._tell_at = 0.0

    def count(self) -> int:
        """Count one; return how many weren't told yet if that is to be told now, else 0."""
        self._number += 1
        now = time.monotonic()
        if now < self._tell_at:
            return 0
        self._tell_at = now + TELL_INTERVAL
        number, self._number = self._number, 0
        return number


def _seal(body: bytes, key: bytes) -> bytes:
    return blake2b(body, digest_size=SEAL_BYTES, key=key, person=PERSON).digest()


def _keys() -> Iterator[bytes]:
    site = (messaging_settings.DEPLOYMENT or database_address()).encode()
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        # A key of blake2b has 64 bytes at most, and a secret any length.
        key = blake2b(force_bytes(secret), person=PERSON).digest()
        yield blake2b(site, key=key, person=PERSON).digest()
