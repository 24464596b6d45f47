from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import connections

from ..conf import messaging_settings
from ..models import Message
from ..tenancy import TENANT_DATABASE, table_of
from ..types import Conversation
from .messages import previews_by_id
from .positions import COLUMNS, NEWEST_ACTIVITY, as_other, as_position, of_newest_activity, with_room_and_other
from .users import user_key_type

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


def list_conversations(user: AbstractBaseUser, *, limit: int = 50) -> list[Conversation]:
    """Return the user's rooms with the newest activity first, each with its unread count and last message.

    Of that message's text the first 201 characters are read. Three queries. The cost grows with ``limit`` (at most 200)
    and the user's number of rooms, not with the history: counting stops at ``UNREAD_COUNT_LIMIT``. A user's own
    messages are never unread, nor are deleted ones.
    """
    values = {"user": user.pk, "limit": min(limit, 200), "most": messaging_settings.UNREAD_COUNT_LIMIT}
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_conversations(), values)
        rows = cursor.fetchall()
    messages = previews_by_id([last_id for last_id, *_rest in rows if last_id is not None])
    return [
        Conversation(
            room=as_position(row),
            unread_count=unread,
            last_message=messages.get(last_id),
            other_user=as_other(row),
        )
        for last_id, unread, *row in rows
    ]


@lru_cache(maxsize=1)
def _conversations() -> str:
    message = table_of(Message)
    # Without an order the planner may read all messages of a large room to find the few that follow a position.
    return f"""
SELECT (SELECT id FROM {message} m WHERE m.room_id = mine.room_id AND m.seq > mine.visible_after_seq
        ORDER BY m.seq DESC LIMIT 1),
       (SELECT count(*) FROM (
           SELECT FROM {message} m
           WHERE m.room_id = mine.room_id AND m.seq > greatest(mine.last_read_seq, mine.visible_after_seq)
                 AND m.sender_id IS DISTINCT FROM who.key AND m.deleted_at IS NULL
           ORDER BY m.seq LIMIT %(most)s
       ) unread),
       {COLUMNS}
FROM (SELECT %(user)s::{user_key_type()} AS key) who
CROSS JOIN LATERAL {of_newest_activity()}
{with_room_and_other()}
ORDER BY {NEWEST_ACTIVITY}
"""
