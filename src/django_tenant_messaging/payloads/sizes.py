"""How many bytes values take in the frames that carry them, so that a frame ends before it is too large."""

from __future__ import annotations

from json.encoder import encode_basestring
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..types import MessageData, RevisionData, RoomPosition, UserRef

Value = TypeVar("Value")

#: Of each, its JSON at the longest, with the comma after it, but without texts and users.
ROOM_BYTES = 152
USER_BYTES = 22
MESSAGE_BYTES = 452
REVISION_BYTES = 126


def bytes_of_text(text: str) -> int:
    """Return the bytes of a text as JSON, in UTF-8."""
    return len(encode_basestring(text).encode())


def bytes_of_user(user: UserRef) -> int:
    """Return the bytes of a user in a frame, at most."""
    return USER_BYTES + len(user.id.encode()) + bytes_of_text(user.username)


def bytes_of_room(room: RoomPosition) -> int:
    """Return the bytes of a room in a frame, at most."""
    return ROOM_BYTES + bytes_of_text(room.name)


def bytes_of_message(message: MessageData) -> int:
    """Return the bytes of a message in a frame, at most."""
    named = (message.sender, message.receiver, *message.mentioned_users)
    users = sum(bytes_of_user(user) for user in named if user is not None)
    return MESSAGE_BYTES + bytes_of_text(message.content) + users


def bytes_of_revision(revision: RevisionData) -> int:
    """Return the bytes of an earlier version in a frame, at most."""
    return REVISION_BYTES + bytes_of_text(revision.content)


def fitting(values: Sequence[Value], size: Callable[[Value], int], most_bytes: int) -> Sequence[Value]:
    """Return the first of some values, as many as fit into so many bytes, but one at least."""
    total = 0
    for number, value in enumerate(values):
        total += size(value)
        if number and total > most_bytes:
            return values[:number]
    return values


def in_parts(values: Iterable[Value], size: Callable[[Value], int], most_bytes: int) -> Iterator[list[Value]]:
    """Divide values into parts, each of as many as fit into so many bytes, but of one at least."""
    rest: Sequence[Value] = list(values)
    while rest:
        part = fitting(rest, size, most_bytes)
        yield list(part)
        rest = rest[len(part) :]
