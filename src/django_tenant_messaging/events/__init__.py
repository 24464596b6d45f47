"""What happened, as values, and the one way to announce it: after the commit."""

from __future__ import annotations

from .bus import connect_sink, emit_on_commit
from .kinds import (
    AccessChanged,
    Event,
    LoginEnded,
    MembersChanged,
    MessageChanged,
    MessageDeleted,
    MessageEdited,
    MessagePosted,
    NotificationCreated,
    PresenceChanged,
    ReadPositionMoved,
    RoomRenamed,
    RoomsChanged,
    TimelineEvent,
    TypingChanged,
)

__all__ = [
    "AccessChanged",
    "Event",
    "LoginEnded",
    "MembersChanged",
    "MessageChanged",
    "MessageDeleted",
    "MessageEdited",
    "MessagePosted",
    "NotificationCreated",
    "PresenceChanged",
    "ReadPositionMoved",
    "RoomRenamed",
    "RoomsChanged",
    "TimelineEvent",
    "TypingChanged",
    "connect_sink",
    "emit_on_commit",
]
