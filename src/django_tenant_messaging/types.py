"""Values that cross the layers: what selectors and actions return and what events carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

RoomKind = Literal["direct", "group"]
MemberRole = Literal["owner", "member"]


@dataclass(frozen=True, slots=True)
class UserRef:
    """A user as others see them. ``id`` is a string because the host's user model decides the key's type."""

    id: str
    username: str


@dataclass(frozen=True, slots=True)
class ReplyRef:
    """The message that another one answers."""

    id: int
    seq: int


@dataclass(frozen=True, slots=True)
class MessageData:
    """A message with everything needed to show it. ``sender`` is ``None`` once that user was deleted.

    ``seq`` is its place in the room's timeline, ``changed_seq`` that of its last change.
    """

    id: int
    room_id: int
    seq: int
    changed_seq: int
    client_id: str
    sender: UserRef | None
    receiver: UserRef | None
    content: str
    timestamp: datetime
    reply_to: ReplyRef | None
    mentioned_users: tuple[UserRef, ...]
    is_broadcast: bool
    is_read: bool


@dataclass(frozen=True, slots=True)
class SentMessage:
    """The outcome of a send. ``duplicate`` says that an earlier send with the same client id was repeated."""

    message: MessageData
    duplicate: bool


@dataclass(frozen=True, slots=True)
class RoomPosition:
    """A room as one member sees it.

    ``seq`` is the head of its timeline, ``read_seq`` how far the member has read.
    The member came at ``joined_seq`` and sees what comes after ``visible_after_seq``. In a direct room
    ``name`` is the other's username.
    """

    room_id: int
    kind: RoomKind
    name: str
    epoch: str
    seq: int
    read_seq: int
    visible_after_seq: int
    joined_seq: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """A line of the conversation list. ``unread_count`` stops at ``UNREAD_COUNT_LIMIT``."""

    room: RoomPosition
    unread_count: int
    last_message: MessageData | None
    other_user: UserRef | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of messages, oldest first, read together with the room's position."""

    room: RoomPosition
    messages: tuple[MessageData, ...]
    has_before: bool
    has_after: bool


@dataclass(frozen=True, slots=True)
class MemberData:
    """A member of a room with their online status."""

    user: UserRef
    role: MemberRole
    is_online: bool
    last_seen: datetime | None
    read_seq: int


@dataclass(frozen=True, slots=True)
class NotificationData:
    """A notification as its owner sees it."""

    id: int
    user_id: str
    text: str
    message_id: int | None
    room_id: int | None
    created_at: datetime
    is_read: bool
