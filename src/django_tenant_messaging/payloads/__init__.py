"""The protocol's frames: what clients may send, what they get, and how both are read and written."""

from __future__ import annotations

from .client import ClientFrame, History, Ping, Position, Read, Resume, Send, Typing
from .parsing import parse_frame
from .server import (
    ErrorFrame,
    HeartbeatFrame,
    HelloFrame,
    HistoryReply,
    MembersFrame,
    MessageFrame,
    MessagePayload,
    NotificationFrame,
    NotificationPayload,
    OkFrame,
    PresenceFrame,
    ReadFrame,
    ReadReply,
    ResumeReply,
    ResumeStatus,
    RoomAddedFrame,
    RoomPayload,
    RoomRemovedFrame,
    SendReply,
    SentPayload,
    ServerFrame,
    SkipFrame,
    TypingFrame,
    UserPayload,
    user_payloads,
)

PROTOCOL = "tenant-messaging.v1"
"""The WebSocket subprotocol."""

__all__ = [
    "PROTOCOL",
    "ClientFrame",
    "ErrorFrame",
    "HeartbeatFrame",
    "HelloFrame",
    "History",
    "HistoryReply",
    "MembersFrame",
    "MessageFrame",
    "MessagePayload",
    "NotificationFrame",
    "NotificationPayload",
    "OkFrame",
    "Ping",
    "Position",
    "PresenceFrame",
    "Read",
    "ReadFrame",
    "ReadReply",
    "Resume",
    "ResumeReply",
    "ResumeStatus",
    "RoomAddedFrame",
    "RoomPayload",
    "RoomRemovedFrame",
    "Send",
    "SendReply",
    "SentPayload",
    "ServerFrame",
    "SkipFrame",
    "Typing",
    "TypingFrame",
    "UserPayload",
    "parse_frame",
    "user_payloads",
]
