"""The events. Each carries its tenant's schema from the moment it is made: when it is delivered, the transaction's
tenant context may be gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from ..types import MessageData, NotificationData, UserRef


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """A change of a room's timeline.

    It takes a reader from position ``after`` to ``seq``. Live events follow their predecessor (``after = seq - 1``);
    those read back from the database may skip numbers whose state a later change replaced.
    """

    schema_name: str
    room_id: int
    seq: int
    after: int


@dataclass(frozen=True, slots=True)
class MessagePosted(TimelineEvent):
    """A message was written."""

    message: MessageData


@dataclass(frozen=True, slots=True)
class MessageChanged(TimelineEvent):
    """A message that was there before has another state now, which replaces the older one."""

    message: MessageData


@dataclass(frozen=True, slots=True)
class MessageEdited(MessageChanged):
    """Its sender changed a message's content."""


@dataclass(frozen=True, slots=True)
class MessageDeleted(MessageChanged):
    """A message was deleted for everybody."""

    deleted_by: UserRef


@dataclass(frozen=True, slots=True)
class RoomRenamed(TimelineEvent):
    """The room has another name."""

    name: str


@dataclass(frozen=True, slots=True)
class MembersChanged(TimelineEvent):
    """Users joined or left the room."""

    joined: tuple[UserRef, ...]
    left: tuple[UserRef, ...]


@dataclass(frozen=True, slots=True)
class ReadPositionMoved:
    """A member has read the room up to ``seq``."""

    schema_name: str
    room_id: int
    user: UserRef
    seq: int


@dataclass(frozen=True, slots=True)
class TypingChanged:
    """A member started or stopped typing. Never stored."""

    schema_name: str
    room_id: int
    user: UserRef
    is_typing: bool


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A user came online or went offline; of interest to the members of ``room_ids``."""

    schema_name: str
    room_ids: tuple[int, ...]
    user: UserRef
    is_online: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class NotificationCreated:
    """A notification was stored for a user."""

    schema_name: str
    notification: NotificationData


@dataclass(frozen=True, slots=True)
class RoomsChanged:
    """The rooms that a user belongs to are others now."""

    schema_name: str
    user_id: str


@dataclass(frozen=True, slots=True)
class AccessChanged:
    """A user, or every user of the tenant (``None``), may have lost the right to be connected.

    An empty ``schema_name`` means all tenants.
    """

    schema_name: str
    user_id: str | None


@dataclass(frozen=True, slots=True)
class LoginEnded:
    """A login was ended by a logout. An empty ``schema_name`` means that it is one of any tenant."""

    schema_name: str
    mark: str


Event = (
    MessagePosted
    | MessageChanged
    | RoomRenamed
    | MembersChanged
    | ReadPositionMoved
    | TypingChanged
    | PresenceChanged
    | NotificationCreated
    | RoomsChanged
    | AccessChanged
    | LoginEnded
)
