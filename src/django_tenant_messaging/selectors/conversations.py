from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import OuterRef, Q, Subquery
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from ..conf import messaging_settings
from ..models import Membership, Message
from ..types import Conversation, RoomPosition
from .messages import load_messages
from .rooms import memberships_of, other_of, position_of
from .timeline import RECENT_JOIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser

NEWEST_ACTIVITY = ("-room__counter__last_activity_at", "-room_id")


def room_positions(user: AbstractBaseUser, *, limit: int) -> list[RoomPosition]:
    """Return the user's rooms with their heads, those with the newest activity first; read in one statement and so of
    one moment.
    """
    return [position_of(membership) for membership in memberships_of(user).order_by(*NEWEST_ACTIVITY)[:limit]]


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
    member, message = Membership._meta.db_table, Message._meta.db_table
    return RawSQL(  # noqa: S611 - values are parameters
        f"(SELECT count(*) FROM (SELECT 1 FROM {message} AS m WHERE m.room_id = {member}.room_id"
        f" AND m.seq > greatest({member}.last_read_seq, {member}.visible_after_seq)"
        " AND m.sender_id IS DISTINCT FROM %s AND m.deleted_at IS NULL LIMIT %s) AS unread)",
        [user.pk, messaging_settings.UNREAD_COUNT_LIMIT],
    )
