"""The server's frames as a client reads them, written from the protocol's documentation alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A message as a client is shown it."""

    id: int
    place: int
    client_id: str
    sender: str | None
    content: str
    deleted: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A frame that takes a client from the position `after` to `seq`."""

    room: int
    after: int
    seq: int
    kind: str
    message: Shown | None = None
    joined: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    name: str | None = None
    """The room's, when that changed."""


Frame = Entry | dict[str, Any]


class Decoder:
    """Reads what servers send. Many sockets get the same bytes, which are read once."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Frame, ...]] = {}

    def read(self, raw: bytes) -> tuple[Frame, ...]:
        """The frames of one WebSocket frame, which is a JSON object or an array of them."""
        found = self._known.get(raw)
        if found is None:
            value = json.loads(raw)
            found = tuple(_frame(item) for item in (value if isinstance(value, list) else [value]))
            if all(isinstance(frame, Entry) for frame in found):
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[raw] = found
        return found


def shown(message: dict[str, Any]) -> Shown:
    """The message of a frame or of a page."""
    sender = message["sender"]
    return Shown(
        id=message["id"],
        place=message["seq"],
        client_id=message["client_id"],
        sender=None if sender is None else sender["username"],
        content=message["content"],
        deleted=message["deleted_at"] is not None,
        own=message["is_own_message"],
    )


def _frame(value: dict[str, Any]) -> Frame:
    if not ("room" in value and "after" in value and "seq" in value):
        return value
    kind = value["type"]
    return Entry(
        room=value["room"],
        after=value["after"],
        seq=value["seq"],
        kind=kind,
        message=shown(value["message"]) if kind == "message" else None,
        joined=frozenset(user["username"] for user in value.get("joined", ())),
        left=frozenset(user["username"] for user in value.get("left", ())),
        name=value.get("name"),
    )
