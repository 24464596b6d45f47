"""Turning message rows into values."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models.functions import Left

from ..models import Mention, Message
from ..tenancy import TENANT_DATABASE, column_of, table_of
from ..types import MessageData, ReplyRef, UserRef
from .users import user_ref, username_field

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.models import QuerySet


PREVIEW_CHARACTERS = 201
"""Of a text in a list of conversations: one more than the page shows, so that it shows that there are more."""


def load_messages(queryset: QuerySet[Message]) -> list[MessageData]:
    """Return the messages of a query as values, in its order; two queries, one when it is empty."""
    return _as_values(list(_with_relations(queryset, "content")))


def _with_relations(queryset: QuerySet[Message], *others: str) -> QuerySet[Message]:
    """Let a query read what a message is shown with, and those other columns."""
    name = username_field()
    return queryset.select_related("room", "sender", "receiver", "reply_to").only(
        *others,
        "room__kind",
        "seq",
        "changed_seq",
        "timestamp",
        "edited_at",
        "deleted_at",
        "is_read",
        "client_id",
        "reply_to__seq",
        f"sender__{name}",
        f"receiver__{name}",
    )


def _as_values(rows: Collection[Message]) -> list[MessageData]:
    mentions = _mentions(row.pk for row in rows)
    return [as_data(row, mentions[row.pk]) for row in rows]


def as_data(message: Message, mentioned: Iterable[UserRef]) -> MessageData:
    """Return a message with its related objects loaded as a value."""
    mentioned_users = tuple(mentioned)
    answered = message.reply_to
    return MessageData(
        id=message.pk,
        room_id=message.room_id,
        seq=message.seq,
        changed_seq=message.changed_seq,
        client_id=str(message.client_id),
        sender=user_ref(message.sender),
        receiver=user_ref(message.receiver),
        content=message.content,
        timestamp=message.timestamp,
        reply_to=None if answered is None else ReplyRef(id=answered.pk, seq=answered.seq),
        mentioned_users=mentioned_users,
        is_broadcast=message.room.kind == "group" and not mentioned_users and message.deleted_at is None,
        is_read=message.is_read,
        edited_at=message.edited_at,
        deleted_at=message.deleted_at,
    )


def _mentions(message_ids: Iterable[int]) -> defaultdict[int, list[UserRef]]:
    found: defaultdict[int, list[UserRef]] = defaultdict(list)
    ids = list(message_ids)
    if ids:
        with connections[TENANT_DATABASE].cursor() as cursor:
            cursor.execute(_mention_statement(), [ids])
            for message_id, key, name in cursor:
                found[message_id].append(UserRef(str(key), name))
    return found


@lru_cache(maxsize=1)
def _mention_statement() -> str:
    user = get_user_model()
    # Message by message: without statistics the planner would read all mentions, of the whole tenant.
    return f"""
SELECT asked.id, mention.user_id, (SELECT {column_of(user, username_field())} FROM {table_of(user)}
                                   WHERE {column_of(user, "pk")} = mention.user_id)
FROM unnest(%s::bigint[]) asked(id)
CROSS JOIN LATERAL (SELECT id, user_id FROM {table_of(Mention)} WHERE message_id = asked.id OFFSET 0) mention
ORDER BY mention.id
"""


def message_by_id(message_id: int) -> MessageData:
    """Return a message by its id; two queries. No right is checked: for the code that has just written it."""
    return messages_by_id([message_id])[message_id]


def messages_by_id(message_ids: Collection[int]) -> dict[int, MessageData]:
    """Return messages by their ids; two queries, none for no ids. No right is checked."""
    if not message_ids:
        return {}
    return {message.id: message for message in load_messages(Message.objects.filter(pk__in=message_ids))}


def previews_by_id(message_ids: Collection[int]) -> dict[int, MessageData]:
    """Return messages by their ids, each with the first ``PREVIEW_CHARACTERS`` of its text; two queries, none for no
    ids. No right is checked.
    """
    if not message_ids:
        return {}
    found: Any = Message.objects.filter(pk__in=message_ids).annotate(preview=Left("content", PREVIEW_CHARACTERS))
    rows: list[Any] = list(_with_relations(found))
    for row in rows:
        row.content = row.preview
    return {message.id: message for message in _as_values(rows)}
