from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import OperationalError, connections, transaction

from ..events import ReadPositionMoved, emit_on_commit
from ..exceptions import Invalid
from ..models import ChatRoom, Membership, Message, Notification
from ..models.ids import MAX_ID, whole_number
from ..selectors import access_membership, user_ref
from ..tenancy import TENANT_DATABASE, current_schema, table_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

BATCH = 1_000
"""Messages or notifications that one transaction looks at and marks; it lasts some 25 ms, for which the actor's own
sends wait."""
LOCK_NOT_AVAILABLE = "55P03"
SHORTLY = "5ms"
"""How long to wait for the rest when the membership is free: nobody but a host locks notifications for longer."""


class _Locked(Exception):
    """Others keep the membership locked, be it by a message of the actor's own that is on its way."""


def mark_read(actor: AbstractBaseUser, *, room_id: int, seq: int) -> int:
    """Say that the actor has read a room up to ``seq``, and return how far that is now: it never goes back.

    Direct messages up to there become ``is_read``, as do the actor's notifications about what is in the room. Much of
    it is done in steps, each committed: a direct room's by 1,000 messages, with the position up to which the step went;
    a group's by 1,000 of all the actor's unread notifications, and the last step moves the position. Interrupted, it is
    done to the end by the next call. Two queries, one when nothing new was read, one more for each further step. Raises
    ``NotFound`` when the actor isn't a member, ``Invalid`` for a ``seq`` below 0 or past the room's head.
    """
    return _mark_read(actor, room_id, seq)


def mark_read_where_free(actor: AbstractBaseUser, *, room_id: int, seq: int) -> int | None:
    """Do the same without waiting for others; return ``None``, having done a part of it or nothing, when they keep
    locked what it would write. One query more for each step.
    """
    try:
        return _mark_read(actor, room_id, seq, waits=False)
    except _Locked:
        return None
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        return None


def _mark_read(actor: AbstractBaseUser, room_id: int, seq: int, *, waits: bool = True) -> int:
    membership = access_membership(actor, room_id)
    head = membership.room.counter.last_seq
    if not 0 <= whole_number(seq, "seq") <= head:
        raise Invalid.field("seq", f"must be 0 to {head}, is {seq}")
    position, passed = membership.last_read_seq, None
    while position < seq:
        with transaction.atomic(using=TENANT_DATABASE):
            if not waits:
                _lock_where_free(membership)
            reached, passed = _step(membership, seq, passed)
            if reached == seq:
                emit_on_commit(ReadPositionMoved(current_schema(), room_id, user_ref(actor), seq))
        if reached is None:
            break  # The actor has left meanwhile.
        position = reached
    return max(seq, membership.last_read_seq)


def _step(membership: Membership, seq: int, passed: int | None) -> tuple[int | None, int | None]:
    """Mark what comes next after what earlier steps passed; one query.

    Return the position, ``None`` when the actor is no member any more, and what is passed now: in a direct room the
    messages up to a place in it, for a group the notifications from an id on.
    """
    is_direct = membership.room.kind == ChatRoom.Kind.DIRECT
    values = {
        "place": membership.pk,
        "user": membership.user_id,
        "room": membership.room_id,
        "position": membership.last_read_seq,
        "seq": seq,
        "after": passed or 0,
        "before": passed or MAX_ID,
        "is_short": _is_short(membership, seq),
        "batch": BATCH,
    }
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_direct_statement() if is_direct else _group_statement(), values)
        reached, passed = cursor.fetchone()
        return reached, passed


def _is_short(membership: Membership, seq: int) -> bool:
    """Say whether all that may be unread is about few messages: those after the position, and those edited since.

    Joining moves a position past older messages, of which notifications may be left from an earlier stay.
    """
    has_just_joined = 0 < membership.joined_seq == membership.last_read_seq
    return seq - membership.last_read_seq <= BATCH and not has_just_joined


@lru_cache(maxsize=1)
def _direct_statement() -> str:
    message, notification = table_of(Message), table_of(Notification)
    # The first step looks from the beginning, for what was made unread again. The others don't: while an old snapshot
    # is in use elsewhere, the index holds what the steps before marked.
    return f"""
WITH read_now AS MATERIALIZED (
    SELECT id, seq FROM {message}
    WHERE room_id = %(room)s AND receiver_id = %(user)s AND NOT is_read AND seq > %(after)s AND seq <= %(seq)s
    -- So few are asked for as there are numbers: else the planner may sort all that the user was ever sent.
    ORDER BY seq LIMIT least(%(batch)s, %(seq)s - %(after)s)
), reached AS (
    SELECT CASE WHEN count(*) < %(batch)s THEN %(seq)s ELSE max(seq) END AS seq FROM read_now
), found AS (
    SELECT mine.id FROM read_now CROSS JOIN LATERAL (
        SELECT id FROM {notification} WHERE user_id = %(user)s AND message_id = read_now.id LIMIT 1
    ) mine
), {_moved_and_told()}, read AS (
    UPDATE {message} SET is_read = true
    WHERE id = ANY(ARRAY(SELECT id FROM read_now WHERE EXISTS (SELECT FROM moved)))
)
SELECT max(seq), max(seq) FROM moved
"""


@lru_cache(maxsize=1)
def _group_statement() -> str:
    message, notification = table_of(Message), table_of(Notification)
    # By a range of one and ordered by the user too: else the planner may look for them among everybody's newest.
    # The user's unread notifications are few, as a rule. Where they aren't, what is new in the room may be fewer.
    # Otherwise the steps go through all of them, the newest first: what comes meanwhile is newer still. The position
    # moves last, as nobody would look for what is left before it.
    return f"""
WITH unread AS MATERIALIZED (
    SELECT id, message_id FROM {notification}
    WHERE user_id BETWEEN %(user)s AND %(user)s AND NOT is_read AND id < %(before)s
    ORDER BY user_id, id DESC LIMIT %(batch)s
), chosen AS MATERIALIZED (
    SELECT count(*) = %(batch)s AND %(is_short)s AS is_by_room, count(*) < %(batch)s OR %(is_short)s AS is_last,
           min(id) AS passed
    FROM unread
), reached AS (
    SELECT CASE WHEN is_last THEN %(seq)s ELSE %(position)s END AS seq FROM chosen
), fresh AS MATERIALIZED (
    -- Ordered, and at most as many as there are numbers: else the planner may read all of the room.
    (SELECT id FROM {message}
     WHERE room_id = %(room)s AND seq > %(position)s AND seq <= %(seq)s AND (SELECT is_by_room FROM chosen)
     ORDER BY seq LIMIT %(seq)s - %(position)s)
    UNION ALL
    (SELECT id FROM {message}
     WHERE room_id = %(room)s AND changed_seq > %(position)s AND changed_seq <= %(seq)s AND seq <= %(position)s
           AND (SELECT is_by_room FROM chosen)
     ORDER BY changed_seq LIMIT %(seq)s - %(position)s)
), found AS (
    SELECT unread.id FROM unread CROSS JOIN LATERAL (
        SELECT room_id, seq FROM {message} WHERE id = unread.message_id LIMIT 1
    ) message
    WHERE room_id = %(room)s AND seq <= %(seq)s AND NOT (SELECT is_by_room FROM chosen)
    UNION ALL
    SELECT mine.id FROM fresh CROSS JOIN LATERAL (
        SELECT id FROM {notification} WHERE user_id = %(user)s AND message_id = fresh.id LIMIT 1
    ) mine
), {_moved_and_told()}
SELECT (SELECT max(seq) FROM moved), (SELECT passed FROM chosen)
"""


def _moved_and_told() -> str:
    """Return the parts that move the position and mark the notifications that were found.

    Each of those is looked up by itself, and not among all the unread ones, of which there may be many.
    """
    return f"""moved AS (
    UPDATE {table_of(Membership)} place SET last_read_seq = greatest(last_read_seq, reached.seq) FROM reached
    WHERE place.id = %(place)s AND left_seq IS NULL
    RETURNING reached.seq
), told AS (
    UPDATE {table_of(Notification)} SET is_read = true
    WHERE NOT coalesce(is_read, false) AND id = ANY(ARRAY(SELECT id FROM found WHERE EXISTS (SELECT FROM moved)))
)"""


def _lock_where_free(membership: Membership) -> None:
    """Lock the membership, and wait for nothing long until the transaction ends; one query.

    Passing over what is locked, instead of giving up waiting for it, leaves no error in PostgreSQL's log.
    """
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(
            f"SELECT set_config('lock_timeout', '{SHORTLY}', true) FROM {table_of(Membership)}"
            " WHERE id = %s FOR NO KEY UPDATE SKIP LOCKED",
            [membership.pk],
        )
        if cursor.fetchone() is None:
            raise _Locked
