from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import override

from ..events import Event, MessagePosted, NotificationCreated, emit_on_commit
from ..exceptions import Conflict, NotFound
from ..models import Mention, Message, Notification
from ..models.content import clean_content
from ..selectors import message_by_id, user_ref, was_written_as
from ..tenancy import current_schema
from ..types import MessageData, NotificationData, ReplyRef, SentMessage, UserRef
from .mentions import resolve_mentions
from .rooms import announce_rooms
from .sending import Draft, Outcome, write_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AbstractBaseUser

MAX_ID = 2**63 - 1


def send_message(
    actor: AbstractBaseUser,
    *,
    room_id: int,
    content: str,
    client_id: UUID | None = None,
    reply_to: int | None = None,
) -> SentMessage:
    """Write a message into a room that the actor is a member of; committed when this returns outside a transaction.

    ``client_id`` is the sender's own id for the message. A repeat with the same id, room, content and reply returns
    the first message with ``duplicate`` set; it writes and announces nothing. ``reply_to`` is the id of a message in
    the same room. One query, one more for a text with mentions.

    Raises :class:`~django_tenant_messaging.exceptions.NotFound` when the actor isn't a member or the answered
    message isn't in the room, ``Invalid`` for an empty or too long text, ``Conflict`` when the client id was used for
    something else.
    """
    content = clean_content(content)
    if not 0 < room_id <= MAX_ID:
        raise NotFound("There is no such room, or you are not a member of it.", room=room_id)
    if reply_to is not None and not 0 < reply_to <= MAX_ID:
        raise _no_such_reply(reply_to)
    mentioned = resolve_mentions(room_id, content, sender_key=actor.pk)
    draft = Draft(
        room_id=room_id,
        sender=actor.pk,
        client_id=client_id or uuid4(),
        content=content,
        reply_to=reply_to,
        mentioned=[key for key, _user in mentioned],
        direct_text=direct_text(actor),
        mention_text=mention_text(actor),
    )
    outcome = write_message(draft)
    if outcome.earlier_id is not None:
        return _repeated(draft, message_by_id(outcome.earlier_id))
    if not outcome.is_member:
        raise NotFound("There is no such room, or you are not a member of it.", room=room_id)
    if outcome.message_id is None or outcome.seq is None or outcome.timestamp is None:
        raise _no_such_reply(reply_to)
    message = MessageData(
        id=outcome.message_id,
        room_id=room_id,
        seq=outcome.seq,
        changed_seq=outcome.seq,
        client_id=str(draft.client_id),
        sender=user_ref(actor),
        receiver=_receiver(outcome),
        content=content,
        timestamp=outcome.timestamp,
        reply_to=None if reply_to is None or outcome.reply_seq is None else ReplyRef(reply_to, outcome.reply_seq),
        mentioned_users=tuple(user for _key, user in mentioned),
        is_broadcast=outcome.room_kind == "group" and not mentioned,
        is_read=False,
    )
    announce(
        message,
        [
            NotificationData(
                row["id"], row["user_id"], row["text"], message.id, room_id, message.timestamp, is_read=False
            )
            for row in outcome.notifications
        ],
    )
    return SentMessage(message, duplicate=False)


def complete_created_message(message: Message) -> None:
    """Add to a message that was saved through the ORM what :func:`send_message` writes with it, and announce it."""
    sender_key = message.sender_id
    mentioned = resolve_mentions(message.room_id, message.content, sender_key=sender_key)
    Mention.objects.bulk_create(Mention(message=message, user_id=key) for key, _user in mentioned)
    if message.receiver_id is not None:
        told = [(message.receiver_id, direct_text(message.sender))]
    else:
        told = [(key, mention_text(message.sender)) for key, _user in mentioned]
    notifications = Notification.objects.bulk_create(
        Notification(user_id=key, message=message, notification_text=text) for key, text in told
    )
    if message.seq == 1 and message.sender is not None and message.receiver is not None:
        # The room was made for this message.
        announce_rooms(message.sender, message.receiver)
    announce(
        message_by_id(message.pk),
        [
            NotificationData(
                row.pk,
                str(row.user_id),
                row.notification_text,
                message.pk,
                message.room_id,
                row.created_at,
                is_read=False,
            )
            for row in notifications
        ],
    )


def announce(message: MessageData, notifications: Sequence[NotificationData]) -> None:
    """Tell the sinks about a new message after its commit."""
    schema_name = current_schema()
    events: list[Event] = [
        MessagePosted(schema_name, message.room_id, message.seq, message.seq - 1, message),
        *(NotificationCreated(schema_name, notification) for notification in notifications),
    ]
    emit_on_commit(*events)


def direct_text(sender: AbstractBaseUser | None) -> str:
    """Return what the receiver of a direct message is told, in the site's language."""
    with override(settings.LANGUAGE_CODE):
        return _("You have a new message from %(sender)s") % {"sender": _name(sender)}


def mention_text(sender: AbstractBaseUser | None) -> str:
    """Return what a mentioned member is told, in the site's language."""
    with override(settings.LANGUAGE_CODE):
        return _("%(sender)s mentioned you") % {"sender": _name(sender)}


def _name(sender: AbstractBaseUser | None) -> str:
    return _("deleted user") if sender is None else sender.get_username()


def _receiver(outcome: Outcome) -> UserRef | None:
    if outcome.receiver is None or outcome.receiver_name is None:
        return None
    return UserRef(id=str(outcome.receiver), username=outcome.receiver_name)


def _repeated(draft: Draft, earlier: MessageData) -> SentMessage:
    answered = None if earlier.reply_to is None else earlier.reply_to.id
    is_same = (earlier.room_id, answered) == (draft.room_id, draft.reply_to)
    if not is_same or not was_written_as(earlier, draft.content):
        raise Conflict("This client id was already used for another message.", client_id=str(draft.client_id))
    return SentMessage(earlier, duplicate=True)


def _no_such_reply(reply_to: int | None) -> NotFound:
    return NotFound("The message replied to is not in this room.", reply_to=reply_to)
