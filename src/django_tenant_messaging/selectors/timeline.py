"""Reading a room's timeline back from the database, for sockets that missed a part of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..events import MembersChanged, MessageChanged, MessagePosted, RoomRenamed, TimelineEvent
from ..models import Membership, Message, RoomCounter
from ..tenancy import current_schema
from .messages import load_messages
from .users import user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..types import UserRef


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a room after a position. The events bring a reader to ``seq``; ``complete`` says whether that
    is the room's head.

    ``joined`` says of the users (by id) who joined after the position when they last did so, also past ``seq``. Who was
    a member before must have left in between: of leaving and joining again only the joining is stored.
    """

    events: tuple[TimelineEvent, ...]
    seq: int
    complete: bool
    joined: Mapping[str, int] = field(default_factory=dict)


def read_changes(room_id: int, *, after: int, limit: int) -> Changes:
    """Return the current states of what changed after a position, at most ``limit`` messages; four queries at most.

    The head is read first: whatever has a number up to it is committed and visible by then, and what comes later has
    a higher number. No right is checked: the caller knows from where on its readers may see the room.
    """
    place = RoomCounter.objects.filter(room_id=room_id).values_list("last_seq", "room__changed_seq", "room__name")
    head, renamed_seq, name = place.first() or (after, 0, "")
    if head <= after:
        return Changes((), after, complete=True)
    rows = Message.objects.filter(room_id=room_id, changed_seq__gt=after, changed_seq__lte=head)
    messages = load_messages(rows.order_by("changed_seq")[: limit + 1])
    complete = len(messages) <= limit
    messages = messages[:limit]
    end = head if complete else messages[-1].changed_seq
    schema_name = current_schema()
    members = _changed_members(room_id, after)
    events: dict[int, TimelineEvent] = {
        seq: MembersChanged(schema_name, room_id, seq, seq - 1, tuple(joined), tuple(left))
        for seq, (joined, left) in _comings_and_goings(members).items()
        if seq <= end
    }
    if after < renamed_seq <= end:
        events[renamed_seq] = RoomRenamed(schema_name, room_id, renamed_seq, renamed_seq - 1, name)
    for message in messages:
        seq = message.changed_seq
        kind = MessagePosted if seq == message.seq else MessageChanged
        events[seq] = kind(schema_name, room_id, seq, seq - 1, message)
    joined = {str(row.user_id): row.joined_seq for row in members if row.joined_seq > after}
    return Changes(tuple(_chained(events, after)), end, complete, joined)


def _changed_members(room_id: int, after: int) -> list[Membership]:
    rows = Membership.objects.filter(room_id=room_id, changed_seq__gt=after).select_related("user")
    return list(rows.only("changed_seq", "joined_seq", "left_seq", f"user__{username_field()}"))


def _comings_and_goings(members: Iterable[Membership]) -> dict[int, tuple[list[UserRef], list[UserRef]]]:
    changes: dict[int, tuple[list[UserRef], list[UserRef]]] = defaultdict(lambda: ([], []))
    for row in members:
        joined, left = changes[row.changed_seq]
        (joined if row.left_seq is None else left).append(user_ref(row.user))
    return changes


def _chained(events: dict[int, TimelineEvent], after: int) -> Iterator[TimelineEvent]:
    """Yield the events in order, each following its predecessor: numbers between them were replaced since."""
    for seq in sorted(events):
        yield replace(events[seq], after=after)
        after = seq
