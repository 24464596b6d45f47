"""Reading a room's timeline back from the database, for sockets that missed a part of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..events import MembersChanged, MessageChanged, MessagePosted, RoomRenamed, TimelineEvent
from ..models import Membership, Message, RoomCounter
from ..tenancy import current_schema
from .messages import load_messages
from .users import user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..types import UserRef


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in a room after a position. The events bring a reader to ``seq``; ``complete`` says whether that
    is the room's head.
    """

    events: tuple[TimelineEvent, ...]
    seq: int
    complete: bool


def read_changes(room_id: int, *, after: int, limit: int) -> Changes:
    """Return the current states of what changed after a position, at most ``limit`` messages and as many members, those
    of one change all together; four queries, five for a change of more members than that.

    The head is read first: whatever has a number up to it is committed and visible by then, and what comes later has
    a higher number. No right is checked: the caller knows from where on its readers may see the room.
    """
    place = RoomCounter.objects.filter(room_id=room_id).values_list("last_seq", "room__changed_seq", "room__name")
    head, renamed_seq, name = place.first() or (after, 0, "")
    if head <= after:
        return Changes((), after, complete=True)
    rows = Message.objects.filter(room_id=room_id, changed_seq__gt=after, changed_seq__lte=head)
    messages = load_messages(rows.order_by("changed_seq")[: limit + 1])
    end = head if len(messages) <= limit else messages[limit - 1].changed_seq
    members, end = _changed_members(room_id, after, end, limit)
    schema_name = current_schema()
    events: dict[int, TimelineEvent] = {
        seq: MembersChanged(schema_name, room_id, seq, seq - 1, tuple(joined), tuple(left))
        for seq, (joined, left) in _comings_and_goings(members).items()
    }
    if after < renamed_seq <= end:
        events[renamed_seq] = RoomRenamed(schema_name, room_id, renamed_seq, renamed_seq - 1, name)
    for message in messages:
        seq = message.changed_seq
        if seq <= end:
            kind = MessagePosted if seq == message.seq else MessageChanged
            events[seq] = kind(schema_name, room_id, seq, seq - 1, message)
    return Changes(tuple(_chained(events, after)), end, complete=end == head)


def read_returns(room_id: int, *, after: int) -> dict[str, int]:
    """Return of the users (by id) who joined after a position when they last did so; one query.

    Who was a member before must have left in between: of leaving and joining again only the joining is stored.
    """
    rows = Membership.objects.filter(room_id=room_id, changed_seq__gt=after, joined_seq__gt=after)
    return {str(key): seq for key, seq in rows.values_list("user_id", "joined_seq")}


def _changed_members(room_id: int, after: int, end: int, limit: int) -> tuple[list[Membership], int]:
    """Return the members who came or went up to a position, and the position up to which these are all."""
    changed = Membership.objects.filter(room_id=room_id, changed_seq__gt=after, changed_seq__lte=end)
    about = changed.select_related("user").only("changed_seq", "left_seq", f"user__{username_field()}")
    rows = about.order_by("changed_seq")
    members = list(rows[: limit + 1])
    if len(members) <= limit:
        return members, end
    over = members[limit].changed_seq
    if over == members[0].changed_seq:
        return list(rows.filter(changed_seq=over)), over
    return [member for member in members if member.changed_seq < over], over - 1


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
