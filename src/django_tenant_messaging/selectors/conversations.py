from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models import OuterRef, Q, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils.translation import gettext

from ..conf import messaging_settings
from ..models import ChatRoom, Membership, Message, RoomCounter
from ..tenancy import TENANT_DATABASE, column_of, table_of
from ..types import Conversation, RoomPosition
from .heads import RECENT_JOIN_SECONDS
from .messages import load_messages
from .rooms import memberships_of, other_of, position_of
from .users import user_key_type, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.contrib.auth.models import AbstractBaseUser

NEWEST_ACTIVITY = ("-room__counter__last_activity_at", "-room_id")


def room_positions(user: AbstractBaseUser, *, limit: int) -> list[RoomPosition]:
    """Return the user's rooms as :func:`room_positions_of` does."""
    return room_positions_of([user], limit=limit)[0]


def room_positions_of(users: Sequence[AbstractBaseUser], *, limit: int) -> list[list[RoomPosition]]:
    """Return for each user the rooms with their heads, ``limit`` at most, those with the newest activity first; read in
    one statement and so of one moment.
    """
    found: list[list[RoomPosition]] = [[] for _ in users]
    with connections[TENANT_DATABASE].cursor() as cursor:
        cursor.execute(_room_positions(), [[user.pk for user in users], limit])
        for place, room_id, kind, name, epoch, last_seq, read_seq, visible_after_seq, joined_seq, other_name in cursor:
            position = RoomPosition(
                room_id=room_id,
                kind=kind,
                name=name if kind == "group" else other_name or gettext("deleted user"),
                epoch=epoch.hex,
                seq=last_seq,
                read_seq=read_seq,
                visible_after_seq=visible_after_seq,
                joined_seq=joined_seq,
            )
            found[place - 1].append(position)
    return found


@lru_cache(maxsize=1)
def _room_positions() -> str:
    # Written out, as every connection asks: building the query took longer than running it.
    user = get_user_model()
    member, room, counter = table_of(Membership), table_of(ChatRoom), table_of(RoomCounter)
    return f"""
SELECT who.place, room.id, room.kind, room.name, room.epoch, mine.last_seq, mine.last_read_seq, mine.visible_after_seq,
       mine.joined_seq,
       CASE room.kind WHEN 'direct' THEN (
           SELECT u.{column_of(user, username_field())} FROM {member} other
           JOIN {table_of(user)} u ON u.{column_of(user, "pk")} = other.user_id
           WHERE other.room_id = room.id AND other.user_id <> who.key LIMIT 1
       ) END
FROM unnest(%s::{user_key_type()}[]) WITH ORDINALITY who(key, place)
CROSS JOIN LATERAL (
    SELECT m.*, counter.last_seq, counter.last_activity_at
    FROM {member} m JOIN {counter} counter ON counter.room_id = m.room_id
    WHERE m.user_id = who.key AND m.left_seq IS NULL
    ORDER BY counter.last_activity_at DESC, m.room_id DESC LIMIT %s
) mine JOIN {room} room ON room.id = mine.room_id
ORDER BY who.place, mine.last_activity_at DESC, room.id DESC
"""


def rooms_among(user: AbstractBaseUser, room_ids: Collection[int]) -> list[RoomPosition]:
    """Return those of some rooms that the user is in, and those joined of late; one statement."""
    of_late = Now() - timedelta(seconds=2 * RECENT_JOIN_SECONDS)
    found = memberships_of(user).filter(Q(room_id__in=room_ids) | Q(joined_at__gt=of_late))
    return [position_of(membership) for membership in found]


def list_conversations(user: AbstractBaseUser, *, limit: int = 50) -> list[Conversation]:
    """Return the user's rooms with the newest activity first, each with its unread count and last message.

    Three queries. The cost grows with ``limit`` (at most 200) and the user's number of rooms, not with the history:
    counting stops at ``UNREAD_COUNT_LIMIT``. A user's own messages are never unread,
    nor are deleted ones.
    """
    last = Message.objects.filter(room=OuterRef("room"), seq__gt=OuterRef("visible_after_seq")).order_by("-seq")
    memberships = list(
        memberships_of(user)
        .annotate(unread=_unread_count(user), last_id=Subquery(last.values("pk")[:1]))
        .order_by(*NEWEST_ACTIVITY)[: min(limit, 200)]
    )
    last_ids = [membership.last_id for membership in memberships if membership.last_id is not None]
    messages = {message.id: message for message in load_messages(Message.objects.filter(pk__in=last_ids))}
    return [
        Conversation(
            room=position_of(membership),
            unread_count=membership.unread,
            last_message=messages.get(membership.last_id),
            other_user=other_of(membership),
        )
        for membership in memberships
    ]


def _unread_count(user: AbstractBaseUser) -> RawSQL:
    member, message = table_of(Membership), table_of(Message)
    return RawSQL(  # noqa: S611 - values are parameters
        f"(SELECT count(*) FROM (SELECT 1 FROM {message} AS m WHERE m.room_id = {member}.room_id"
        f" AND m.seq > greatest({member}.last_read_seq, {member}.visible_after_seq)"
        " AND m.sender_id IS DISTINCT FROM %s AND m.deleted_at IS NULL LIMIT %s) AS unread)",
        [user.pk, messaging_settings.UNREAD_COUNT_LIMIT],
    )
