from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import OperationalError, connections, transaction

from ..events import ReadPositionMoved, emit_on_commit
from ..exceptions import Invalid
from ..models import ChatRoom, Membership, Message, Notification
from ..models.ids import whole_number
from ..selectors import access_membership, user_ref
from ..tenancy import TENANT_DATABASE, current_schema, table_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

BATCH = 1_000
"""Messages that become read in one transaction; it lasts some 25 ms, for which the actor's own sends wait."""
LOCK_NOT_AVAILABLE = "55P03"
SHORTLY = "5ms"
"""How long to wait for the rest when the membership is free: nobody but a host locks notifications for longer."""


class _Locked(Exception):
    """Others keep the membership locked, be it by a message of the actor's own that is on its way."""


def mark_read(actor: AbstractBaseUser, *, room_id: int, seq: int) -> int:
    """Say that the actor has read a room up to ``seq``, and return how far that is now: it never goes back.

    Direct messages up to there become ``is_read``, as do the actor's notifications about what is in the room. Much of
    it is done in steps of 1,000 messages, each committed with the position up to which it went. Two queries, one when
    nothing new was read. Raises ``NotFound`` when the actor isn't a member, ``Invalid`` for a ``seq`` below 0 or past
    the room's head.
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
    position = membership.last_read_seq
    while position < seq:
        with transaction.atomic(using=TENANT_DATABASE):
            if not waits:
                _lock_where_free(membership)
            reached = _step(membership, position, seq)
            if reached == seq:
                emit_on_commit(ReadPositionMoved(current_schema(), room_id, user_ref(actor), seq))
        position = reached
    return max(seq, membership.last_read_seq)


def _step(membership: Membership, position: int, seq: int) -> int:
    """Mark what comes next after a position, and return how far that went; one query."""
    is_direct = membership.room.kind == ChatRoom.Kind.DIRECT
    values = {
        "place": membership.pk,
        "user": membership.user_id,
        "room": membership.room_id,
        "position": position,
        "seq": seq,
        "batch": BATCH,
    }
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_direct_statement() if is_direct else _group_statement(), values)
        (reached,) = cursor.fetchone()
        return seq if reached is None else int(reached)


@lru_cache(maxsize=1)
def _direct_statement() -> str:
    message = table_of(Message)
    return f"""
WITH found AS MATERIALIZED (
    SELECT id, seq FROM {message}
    WHERE room_id = %(room)s AND receiver_id = %(user)s AND NOT is_read AND seq <= %(seq)s
    ORDER BY seq LIMIT %(batch)s
), reached AS (
    SELECT CASE WHEN count(*) < %(batch)s THEN %(seq)s ELSE max(seq) END AS seq FROM found
), {_moved_and_told()}, read AS (
    UPDATE {message} SET is_read = true WHERE id = ANY(ARRAY(SELECT id FROM found WHERE EXISTS (SELECT FROM moved)))
)
SELECT max(seq) FROM moved
"""


@lru_cache(maxsize=1)
def _group_statement() -> str:
    message = table_of(Message)
    # By a range of one and ordered by the user too: else the planner may look for them among everybody's newest.
    # The user's unread notifications are few, as a rule. Where they aren't, what comes next in the room is less, with
    # what was written before and edited since: that may mention the user too.
    return f"""
WITH unread AS MATERIALIZED (
    SELECT message_id FROM {table_of(Notification)}
    WHERE user_id BETWEEN %(user)s AND %(user)s AND NOT is_read ORDER BY user_id, id DESC LIMIT %(batch)s
), few AS MATERIALIZED (
    SELECT count(*) < %(batch)s AS are_all FROM unread
), reached AS (
    SELECT CASE WHEN are_all THEN %(seq)s ELSE least(%(seq)s, %(position)s + %(batch)s) END AS seq FROM few
), found AS MATERIALIZED (
    SELECT id FROM unread CROSS JOIN LATERAL (
        SELECT id, room_id, seq FROM {message} WHERE id = unread.message_id LIMIT 1
    ) message
    WHERE room_id = %(room)s AND seq <= %(seq)s AND (SELECT are_all FROM few)
    UNION ALL
    SELECT id FROM {message}
    WHERE room_id = %(room)s AND seq > %(position)s AND seq <= (SELECT seq FROM reached)
          AND NOT (SELECT are_all FROM few)
    UNION ALL
    SELECT id FROM {message}
    WHERE room_id = %(room)s AND changed_seq > %(position)s AND changed_seq <= (SELECT seq FROM reached)
          AND seq <= %(position)s AND NOT (SELECT are_all FROM few)
), {_moved_and_told()}
SELECT max(seq) FROM moved
"""


def _moved_and_told() -> str:
    """Return the parts that move the position and mark the notifications about what was found.

    Each notification is looked up by itself, and not among all the unread ones, of which there may be many.
    """
    notification = table_of(Notification)
    return f"""moved AS (
    UPDATE {table_of(Membership)} place SET last_read_seq = greatest(last_read_seq, reached.seq) FROM reached
    WHERE place.id = %(place)s AND left_seq IS NULL
    RETURNING reached.seq
), told AS (
    UPDATE {notification} SET is_read = true
    WHERE NOT coalesce(is_read, false) AND id = ANY(ARRAY(
        SELECT mine.id FROM found CROSS JOIN LATERAL (
            SELECT id FROM {notification} WHERE user_id = %(user)s AND message_id = found.id LIMIT 1
        ) mine WHERE EXISTS (SELECT FROM moved)
    ))
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
