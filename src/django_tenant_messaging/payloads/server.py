"""The frames that clients get. The protocol reference is made from these classes."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..types import MessageData, NotificationData, RevisionData, RoomPosition, UserRef


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True)


class UserPayload(_Payload):
    """A user."""

    id: str = Field(description="The key, always a string: the host's user model decides its type.")
    username: str


class ReplyPayload(_Payload):
    """The message that is answered."""

    id: int
    seq: int


class MessagePayload(_Payload):
    """A message."""

    id: int
    seq: int = Field(description="Its place in the room's timeline.")
    changed_seq: int = Field(description="The position of its last change; its own `seq` when it never changed.")
    client_id: str
    sender: UserPayload | None = Field(description="`null` when the user was deleted.")
    receiver: UserPayload | None = Field(description="The other one, in a direct conversation.")
    content: str = Field(description="Empty once it was deleted.")
    timestamp: datetime = Field(description="ISO 8601, UTC.")
    reply_to: ReplyPayload | None
    mentioned_users: list[UserPayload]
    is_broadcast: bool = Field(description="Addressed to the whole group: nobody is mentioned.")
    is_read: bool = Field(description="Whether the receiver of a direct message has read it.")
    edited_at: datetime | None = Field(description="When its text was last changed.")
    deleted_at: datetime | None = Field(description="When it was deleted for everybody.")
    is_own_message: bool = Field(default=False, description="Whether the socket's user sent it.")

    @classmethod
    def of(cls, message: MessageData, *, reader_id: str | None = None) -> MessagePayload:
        """Make the payload as a user sees it."""
        payload = cls.model_validate(message)
        if message.sender is not None and message.sender.id == reader_id:
            payload = payload.model_copy(update={"is_own_message": True})
        return payload


class RevisionPayload(_Payload):
    """What a message said from one moment to another."""

    id: int
    content: str
    written_at: datetime
    replaced_at: datetime

    @classmethod
    def of(cls, revision: RevisionData) -> RevisionPayload:
        """Make the payload from a revision."""
        return cls.model_validate(revision)


class RoomPayload(_Payload):
    """A room of the user, with the position from which its events follow."""

    id: int
    kind: Literal["direct", "group"]
    name: str = Field(description="In a direct conversation the other's username.")
    epoch: str = Field(description="Identifies the room's history; a position counts within it only.")
    seq: int = Field(description="The position from which events follow.")
    read_seq: int = Field(description="How far the user has read.")

    @classmethod
    def of(cls, room: RoomPosition) -> RoomPayload:
        """Make the payload from a room's position."""
        return cls(
            id=room.room_id, kind=room.kind, name=room.name, epoch=room.epoch, seq=room.seq, read_seq=room.read_seq
        )


class NotificationPayload(_Payload):
    """A notification."""

    id: int
    text: str
    room: int | None = Field(description="The room of the message.")
    message_id: int | None = Field(description="The message it is about.")
    created_at: datetime
    is_read: bool

    @classmethod
    def of(cls, notification: NotificationData) -> NotificationPayload:
        """Make the payload from a notification."""
        return cls(
            id=notification.id,
            text=notification.text,
            room=notification.room_id,
            message_id=notification.message_id,
            created_at=notification.created_at,
            is_read=notification.is_read,
        )


class HelloFrame(_Payload):
    """The first frame. Events follow once the client has sent `resume`."""

    type: Literal["hello"] = "hello"
    protocol: str
    user: UserPayload = Field(description="Whose socket it is.")
    heartbeat_interval: float = Field(description="Seconds.")
    max_content_length: int = Field(description="Characters of the longest message.")
    rooms: list[RoomPayload]
    rooms_limited: bool = Field(
        description="Whether the user is in more rooms than these, which have the latest activity. Another one's events"
        " come once a frame names it, such as `history`: its `room_added` comes before the reply."
    )
    online: list[UserPayload] = Field(description="Who is online among those who share a room with the user.")
    online_limited: bool = Field(description="Whether more of those are online than these.")


class OkFrame(_Payload):
    """The answer to a frame that has no result of its own."""

    type: Literal["ok"] = "ok"
    id: str


class ErrorFrame(_Payload):
    """The answer to a refused frame. Nothing was changed; only `unavailable` and `internal` leave that open."""

    type: Literal["error"] = "error"
    id: str | None = Field(description="`null` when the frame had none that could be read.")
    code: str = Field(description="What is wrong; one of the error codes.")
    message: str = Field(description="For people.")
    details: dict[str, Any] = Field(
        description="For programs; `invalid` lists `errors`, each a `field` and a `reason`."
    )


class ResumeStatus(_Payload):
    """What a position was worth."""

    status: Literal["ok", "limited", "reset", "gone", "unfollowed"] = Field(
        description="`ok`: all that was missed follows. `limited`: too much was missed, the stream starts at `seq`;"
        " read what lies before it by `history`. `reset`: the position isn't of this history; drop what you hold, read"
        " it again by `history`. `gone`: the user isn't in the room. `unfollowed`: hello says `rooms_limited`, and"
        " doesn't name the room."
    )
    seq: int = Field(description="Events follow from here.")


class ResumeReply(OkFrame):
    """The answer to `resume`, by room id for the named rooms."""

    rooms: dict[str, ResumeStatus]


class SentPayload(_Payload):
    """What the server gave the message."""

    id: int
    seq: int
    client_id: str
    timestamp: datetime


class SendReply(OkFrame):
    """The answer to `send`: the message is committed."""

    room: int
    message: SentPayload
    duplicate: bool = Field(description="The message was there already: an earlier send had succeeded.")


class ChangedPayload(_Payload):
    """Where a change put the message."""

    id: int
    seq: int = Field(description="Its place in the room's timeline, which stays.")
    changed_seq: int = Field(description="The position of its last change.")
    edited_at: datetime | None
    deleted_at: datetime | None


class ChangeReply(OkFrame):
    """The answer to `edit` and `delete`: the change is committed."""

    room: int
    message: ChangedPayload


class RevisionsReply(OkFrame):
    """The answer to `revisions`, oldest first; empty for a message that never changed or was deleted."""

    room: int
    message_id: int
    revisions: list[RevisionPayload]
    has_before: bool = Field(description="Whether there are older versions.")


class RenameReply(OkFrame):
    """The answer to `rename`: the name is committed."""

    room: int
    name: str


class ReadReply(OkFrame):
    """The answer to `read`."""

    room: int
    seq: int = Field(description="How far the user has read now; it never goes back.")


class HistoryReply(OkFrame):
    """The answer to `history`, oldest first."""

    room: int
    epoch: str
    seq: int = Field(description="The room's head when the page was read.")
    messages: list[MessagePayload]
    has_before: bool = Field(description="Whether there are older messages.")
    has_after: bool = Field(description="Whether there are newer ones.")


class _TimelineFrame(_Payload):
    room: int
    after: int = Field(description="The position that this frame follows.")
    seq: int = Field(description="The position that it leads to.")


class MessageFrame(_TimelineFrame):
    """A message was written, or one that was there before has changed.

    A message whose own `seq` is not above `after` replaces the state that the client has of it, if it has one.
    """

    type: Literal["message"] = "message"
    message: MessagePayload


class MembersFrame(_TimelineFrame):
    """Users joined or left the room."""

    type: Literal["members"] = "members"
    joined: list[UserPayload]
    left: list[UserPayload]


class RoomFrame(_TimelineFrame):
    """The room has another name."""

    type: Literal["room"] = "room"
    name: str


class SkipFrame(_TimelineFrame):
    """Nothing to show: later changes replaced what was here, or it is about what the user may not see."""

    type: Literal["skip"] = "skip"


class ReadFrame(_Payload):
    """A member has read the room up to `seq`."""

    type: Literal["read"] = "read"
    room: int
    user: UserPayload
    seq: int


class TypingFrame(_Payload):
    """A member types, or stopped."""

    type: Literal["typing"] = "typing"
    room: int
    user: UserPayload
    is_typing: bool
    expires_in: float = Field(description="Seconds after which it no longer holds.")


class PresenceFrame(_Payload):
    """Someone who shares a room with the user came online or went offline."""

    type: Literal["presence"] = "presence"
    user: UserPayload
    is_online: bool
    last_seen: datetime | None = Field(description="`null` while online.")


class NotificationFrame(_Payload):
    """The user has a new notification."""

    type: Literal["notification"] = "notification"
    notification: NotificationPayload


class RoomAddedFrame(_Payload):
    """The user is in a room that `hello` didn't name. Its events follow from its `seq`."""

    type: Literal["room_added"] = "room_added"
    room: RoomPayload


class RoomRemovedFrame(_Payload):
    """The user is no longer in the room."""

    type: Literal["room_removed"] = "room_removed"
    room: int


class HeartbeatFrame(_Payload):
    """Sent once in each interval. A head above the client's position that doesn't arrive soon was lost."""

    type: Literal["heartbeat"] = "heartbeat"
    heads: dict[str, int] = Field(description="By room id the position up to which the server has served the room.")


def heartbeat(heads: Mapping[int, int]) -> str:
    """Return the text of a heartbeat: numbers alone, which need no encoder."""
    rooms = ",".join([f'"{room_id}":{head}' for room_id, head in heads.items()])
    return f'{{"type":"heartbeat","heads":{{{rooms}}}}}'


ServerFrame = (
    HelloFrame
    | OkFrame
    | ErrorFrame
    | ResumeReply
    | SendReply
    | ChangeReply
    | RevisionsReply
    | RenameReply
    | ReadReply
    | HistoryReply
    | MessageFrame
    | MembersFrame
    | RoomFrame
    | SkipFrame
    | ReadFrame
    | TypingFrame
    | PresenceFrame
    | NotificationFrame
    | RoomAddedFrame
    | RoomRemovedFrame
    | HeartbeatFrame
)


def user_payloads(users: Iterable[UserRef]) -> list[UserPayload]:
    """Make the payloads of several users."""
    return [UserPayload.model_validate(user) for user in users]
