"""What travels between processes: a frame, ready to be sent, and the little that is needed to route it.

The process that wrote a message encodes it once. All others pass the text on: they look at the envelope only. Hints of
a tenant travel together, all that wait while the channel layer takes what came before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .. import events
from ..conf import messaging_settings
from ..payloads import (
    MembersFrame,
    MessageFrame,
    MessagePayload,
    NotificationFrame,
    NotificationPayload,
    PresenceFrame,
    ReadFrame,
    RoomFrame,
    SkipFrame,
    TypingFrame,
    UserPayload,
    user_payloads,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic import BaseModel

Target = Literal["room", "user", "presence", "access", "login"]

DETAILS = ("seq", "after", "about", "author", "joined", "left", "rooms")
"""What a row of a channel-layer message holds after target, key and frame."""
OTHERS_END = '"is_own_message":false}}'
OWN_END = '"is_own_message":true}}'


class Hint:
    """An event on its way to sockets.

    ``seq`` is 0 for what isn't part of a timeline. ``author`` is the user who gets the variant of the frame that says
    ``is_own_message``. ``about`` is the place of the earlier message that has changed, else 0: who may not see the
    timeline so far back gets the position alone. There are three variants at most, each made once in a process.
    """

    __slots__ = (
        "_own",
        "_skip",
        "about",
        "after",
        "author",
        "frame",
        "joined",
        "key",
        "left",
        "rooms",
        "schema_name",
        "seq",
        "target",
    )

    def __init__(
        self,
        schema_name: str,
        target: Target,
        key: int | str,
        frame: str,
        *,
        seq: int = 0,
        after: int = 0,
        about: int = 0,
        author: str | None = None,
        joined: Iterable[str] = (),
        left: Iterable[str] = (),
        rooms: Iterable[int] = (),
    ) -> None:
        self.schema_name = schema_name
        self.target = target
        self.key = key
        self.frame = frame
        self.seq = seq
        self.after = after
        self.about = about
        self.author = author
        self.joined = tuple(joined)
        self.left = tuple(left)
        self.rooms = tuple(rooms)
        self._own: str | None = None
        self._skip: str | None = None

    def frame_for(self, user_id: str, visible_after: int = 0) -> str:
        """Return the frame as this user gets it, who sees the timeline after a position."""
        if 0 < self.about <= visible_after:
            if self._skip is None:
                self._skip = SkipFrame(room=int(self.key), after=self.after, seq=self.seq).model_dump_json()
            return self._skip
        if user_id != self.author:
            return self.frame
        if self._own is None:
            self._own = self.frame.removesuffix(OTHERS_END) + OWN_END
        return self._own

    def to_row(self) -> list[Any]:
        """Return the hint as a part of a channel-layer message."""
        return [
            self.target,
            self.key,
            self.frame,
            self.seq,
            self.after,
            self.about,
            self.author,
            list(self.joined),
            list(self.left),
            list(self.rooms),
        ]


def rows_of(hints: Iterable[Hint]) -> list[list[Any]]:
    """Return hints of a tenant as the content of a channel-layer message."""
    return [hint.to_row() for hint in hints]


def from_rows(schema_name: str, rows: Iterable[list[Any]]) -> list[Hint]:
    """Return the hints of a channel-layer message about a tenant."""
    return [Hint(schema_name, *row[:3], **dict(zip(DETAILS, row[3:], strict=True))) for row in rows]


def hints_of(batch: Iterable[events.Event]) -> Iterator[Hint]:
    """Yield the hints that events become, each encoded once."""
    for event in batch:
        yield hint_of(event)


def hint_of(event: events.Event | events.TimelineEvent) -> Hint:
    """Return the hint that an event becomes."""
    return _timeline_hint(event) if isinstance(event, events.TimelineEvent) else _passing_hint(event)


def _passing_hint(event: events.Event) -> Hint:
    match event:
        case events.ReadPositionMoved():
            read = ReadFrame(room=event.room_id, user=UserPayload.model_validate(event.user), seq=event.seq)
            return Hint(event.schema_name, "room", event.room_id, read.model_dump_json())
        case events.TypingChanged():
            typing = TypingFrame(
                room=event.room_id,
                user=UserPayload.model_validate(event.user),
                is_typing=event.is_typing,
                expires_in=messaging_settings.TYPING_TTL,
            )
            return Hint(event.schema_name, "room", event.room_id, typing.model_dump_json())
        case events.PresenceChanged():
            presence = PresenceFrame(
                user=UserPayload.model_validate(event.user), is_online=event.is_online, last_seen=event.last_seen
            )
            frame_text = presence.model_dump_json()
            return Hint(event.schema_name, "presence", "all", frame_text, rooms=event.room_ids, left=[event.user.id])
        case events.NotificationCreated(notification=notification):
            told = NotificationFrame(notification=NotificationPayload.of(notification))
            return Hint(event.schema_name, "user", notification.user_id, told.model_dump_json())
        case events.RoomsChanged():
            return Hint(event.schema_name, "user", event.user_id, "")
        case events.AccessChanged():
            return Hint(event.schema_name, "access", event.user_id or "", "")
        case events.LoginEnded():
            return Hint(event.schema_name, "login", event.mark, "")
        case _:
            raise TypeError(f"No frame for {type(event).__name__}")


def _timeline_hint(event: events.TimelineEvent) -> Hint:
    match event:
        case events.MessagePosted(message=message) | events.MessageChanged(message=message):
            author = None if message.sender is None else message.sender.id
            frame = MessageFrame(
                room=event.room_id, after=event.after, seq=event.seq, message=MessagePayload.of(message)
            )
            return _placed(event, frame, author=author, about=message.seq if message.seq < event.seq else 0)
        case events.RoomRenamed(name=name):
            return _placed(event, RoomFrame(room=event.room_id, after=event.after, seq=event.seq, name=name))
        case events.MembersChanged(joined=joined, left=left):
            members = MembersFrame(
                room=event.room_id,
                after=event.after,
                seq=event.seq,
                joined=user_payloads(joined),
                left=user_payloads(left),
            )
            return _placed(event, members, joined=[user.id for user in joined], left=[user.id for user in left])
        case _:
            raise TypeError(f"No frame for {type(event).__name__}")


def skip_to(schema_name: str, room_id: int, *, after: int, seq: int) -> Hint:
    """Return the hint that only moves a reader's position."""
    frame = SkipFrame(room=room_id, after=after, seq=seq).model_dump_json()
    return Hint(schema_name, "room", room_id, frame, seq=seq, after=after)


def _placed(event: events.TimelineEvent, frame: BaseModel, **details: Any) -> Hint:
    text = frame.model_dump_json()
    return Hint(event.schema_name, "room", event.room_id, text, seq=event.seq, after=event.after, **details)
