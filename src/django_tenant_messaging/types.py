"""Values that cross the layers: what selectors and actions return and what events carry."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
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

    ``seq`` is its place in the room's timeline, ``changed_seq`` that of its last change. Once it was deleted its
    ``content`` is empty and nobody is mentioned.
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
    edited_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RevisionData:
    """What a message said from one moment to another, before an edit."""

    id: int
    content: str
    written_at: datetime
    replaced_at: datetime


@dataclass(frozen=True, slots=True)
class RevisionPage:
    """A page of what a message said before its edits, oldest first."""

    revisions: tuple[RevisionData, ...]
    has_before: bool


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
class LeftRoom:
    """A group that the user left and can come back to. ``name`` is ``None`` when it was renamed since."""

    room_id: int
    name: str | None
    left_at: datetime


@dataclass(frozen=True, slots=True)
class Conversation:
    """A line of the conversation list. ``unread_count`` stops at ``UNREAD_COUNT_LIMIT``, the text of ``last_message``
    after 201 characters.
    """

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


class SchemaState(StrEnum):
    """What one schema is, compared with the migrations of the code that runs."""

    OK = "ok"
    """Every migration is recorded, every table and column is there."""
    MISSING = "missing"
    """There is no such schema."""
    BEHIND = "behind"
    """Migrations of the code aren't applied."""
    AHEAD = "ahead"
    """Migrations are applied that the code doesn't know: a newer release ran here. It may be served."""
    DRIFTED = "drifted"
    """All migrations are recorded, but what they make isn't there, or isn't as they make it."""
    ERROR = "error"
    """It couldn't be found out. What isn't known to be ready isn't served."""


FEW = 5
"""Of a list of what isn't there, so many are told."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a schema may be served, and if not, why.

    Migrations are named as ``app.name``, relations as ``table`` or ``table.column``. ``differences`` say in words what
    isn't as this app's migrations make it, such as a constraint that is gone. ``apps`` are those that what is missing
    belongs to, and ``tolerated`` is what others lack for which ``REQUIRED_APPS`` refuses no tenant.
    """

    schema_name: str
    state: SchemaState
    missing_migrations: tuple[str, ...] = ()
    unknown_migrations: tuple[str, ...] = ()
    missing_relations: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    tolerated: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    error: str = ""
    is_shared: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether the schema may be served."""
        return self.state in {SchemaState.OK, SchemaState.AHEAD}

    @property
    def reason(self) -> str:
        """What is the case, in English, for logs and terminals: of each list the first five."""
        return self._told(FEW)

    @property
    def full_reason(self) -> str:
        """The same with all of each list."""
        return self._told(None)

    def _told(self, limit: int | None) -> str:
        spared = f"; not required, and not there: {_some(self.tolerated, limit)}" if self.tolerated else ""
        return self._finding(limit) + spared

    def _finding(self, limit: int | None) -> str:
        match self.state:
            case SchemaState.OK:
                return "migrated as far as is required" if self.tolerated else "fully migrated"
            case SchemaState.MISSING:
                return "the schema does not exist"
            case SchemaState.BEHIND:
                return f"not applied: {_some(self.missing_migrations, limit)}"
            case SchemaState.AHEAD:
                return f"applied but unknown to this code: {_some(self.unknown_migrations, limit)}"
            case SchemaState.DRIFTED:
                return self._drift(limit)
            case SchemaState.ERROR:
                return self.error

    def _drift(self, limit: int | None) -> str:
        gone = f"recorded as migrated, but not there: {_some(self.missing_relations, limit)}"
        changed = f"not as the migrations make it: {_some(self.differences, limit, '; ')}"
        return "; ".join([gone] * bool(self.missing_relations) + [changed] * bool(self.differences))

    @property
    def remedy(self) -> str:
        """The command for an administrator; empty when nothing has to be done."""
        name = shlex.quote(self.schema_name)
        match self.state:
            case SchemaState.OK | SchemaState.AHEAD:
                return ""
            case SchemaState.BEHIND if self.is_shared:
                return "python manage.py migrate_schemas --shared"
            case SchemaState.BEHIND:
                return f"python manage.py migrate_schemas --schema={name}"
            case SchemaState.MISSING | SchemaState.DRIFTED:
                return f"python manage.py verify_tenant_migrations --fix --schema={name}"
            case SchemaState.ERROR:
                return f"python manage.py verify_tenant_migrations --schema={name}"


def printable(text: str) -> str:
    """Return a text that moves no terminal's cursor and stays in its line, whatever a schema is called."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _some(names: tuple[str, ...], limit: int | None, separator: str = ", ") -> str:
    rest = 0 if limit is None else len(names) - limit
    return separator.join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
