"""How the contenders are spoken to. The generator knows nothing else of them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


class Acknowledged(NamedTuple):
    """The server took the message with this number."""

    number: int


class Delivered(NamedTuple):
    """A message came. `place` says where the server puts it in its room: a larger one has to come later."""

    room: int
    place: int
    text: str


class Refused(NamedTuple):
    """The server didn't take the message with this number; None when it doesn't say which."""

    number: int | None
    reason: str


class Ready(NamedTuple):
    """The server delivers from now on."""


class Ask(NamedTuple):
    """The client has to say this now."""

    payload: str


News = Acknowledged | Delivered | Refused | Ready | Ask


class Dialect(Protocol):
    """A contender's protocol."""

    @property
    def ready_when_open(self) -> bool:
        """Whether the server delivers as soon as the handshake is done."""

    @property
    def keepalive(self) -> str | None:
        """What a client has to say now and then to be kept."""

    def send(self, number: int, room: int, text: str) -> str:
        """The frame that sends a message."""

    def read(self, event: dict[str, Any]) -> News | None:
        """What an event of the server means, None if nothing that matters here."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What the bare servers and the hand-written consumer speak."""

    ready_when_open: bool = True
    keepalive: str | None = None

    def send(self, number: int, room: int, text: str) -> str:
        """The frame that sends a message."""
        return json.dumps({"type": "send", "id": number, "room": room, "content": text})

    def read(self, event: dict[str, Any]) -> News | None:
        """What an event of the server means."""
        match event["type"]:
            case "message":
                return Delivered(event["room"], event["id"], event["content"])
            case "ack":
                return Acknowledged(event["id"])
            case "error":
                return Refused(event.get("id"), str(event))
        return None


@dataclass(frozen=True, slots=True)
class Messaging:
    """The project's own protocol, `tenant-messaging.v1`."""

    ready_when_open: bool = False
    keepalive: str | None = json.dumps({"type": "ping", "id": "keepalive"})
    prefix: str = field(default_factory=lambda: str(uuid.uuid4())[:24])

    def send(self, number: int, room: int, text: str) -> str:
        """The frame that sends a message."""
        client_id = f"{self.prefix}{number:012x}"
        return json.dumps({"type": "send", "id": str(number), "room": room, "client_id": client_id, "content": text})

    def read(self, event: dict[str, Any]) -> News | None:
        """What an event of the server means."""
        match event["type"]:
            case "message":
                return Delivered(event["room"], event["seq"], event["message"]["content"])
            case "ok":
                return _meaning_of(event["id"])
            case "error":
                number = event["id"]
                return Refused(int(number) if number and number.isdigit() else None, event["code"])
            case "hello":
                return Ask(json.dumps({"type": "resume", "id": "resume", "positions": {}}))
        return None


def _meaning_of(answered: str) -> News | None:
    if answered == "resume":
        return Ready()
    return Acknowledged(int(answered)) if answered.isdigit() else None


def events_in(payload: bytes) -> list[dict[str, Any]]:
    """The events of a WebSocket message: one, or several in a list."""
    decoded = json.loads(payload)
    return decoded if isinstance(decoded, list) else [decoded]
