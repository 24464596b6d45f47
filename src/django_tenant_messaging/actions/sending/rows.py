"""What is given to the statements that write messages, and what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID


class Row(NamedTuple):
    """A message about to be written. ``mentioned`` holds user keys."""

    room_id: int
    sender: Any
    client_id: UUID
    content: str
    reply_to: int | None
    mentioned: Sequence[Any]
    direct_text: str
    mention_text: str


class Outcome(NamedTuple):
    """What the statement found and wrote. ``is_busy`` says that it passed over a locked row; nothing was written."""

    is_member: bool
    is_busy: bool
    earlier_id: int | None
    reply_seq: int | None
    room_kind: str | None
    message_id: int | None
    seq: int | None
    timestamp: datetime | None
    receiver: Any
    receiver_name: str | None
    told: list[tuple[int, str]]
    """Id and user of each notification."""


class LockedRows:
    """What to do about rows that somebody else has locked: the end of a ``SELECT ... FOR``."""

    def __init__(self, clause: str) -> None:
        self.clause = clause


WAIT_FOR_LOCKED = LockedRows("")
"""Wait for them. For messages of a single room."""
PASS_OVER_LOCKED = LockedRows("SKIP LOCKED")
"""Pass over them."""
