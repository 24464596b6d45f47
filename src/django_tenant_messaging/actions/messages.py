from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.conf import settings
from django.utils.translation import gettext, gettext_noop, override

from ..events import Event, MessagePosted, NotificationCreated, emit_on_commit
from ..exceptions import Conflict, MessagingError, NotFound
from ..models import Membership, Mention, Message, Notification
from ..models.content import clean_content, isolated
from ..models.ids import may_be_id, of_wrong_kind
from ..models.memberships import ACTIVE
from ..selectors import message_by_id, messages_by_id, user_ref, was_written_as
from ..tenancy import current_schema
from ..types import MessageData, NotificationData, ReplyRef, SentMessage, UserRef
from .mentions import resolve_mentions, resolve_mentions_of
from .rooms import announce_rooms
from .sending import PASS_OVER_LOCKED, WAIT_FOR_LOCKED, LockedRows, Outcome, Row, write_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AbstractBaseUser

RESOLVED = "_resolved_mentions"
"""The attribute of a message that is being saved in which its mentions wait."""
DIRECT = gettext_noop("You have a new message from %(sender)s")
MENTION = gettext_noop("%(sender)s mentioned you")


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that somebody wants to send: see :func:`send_message`."""

    actor: AbstractBaseUser
    room_id: int
    content: str
    client_id: UUID = field(default_factory=uuid4)
    reply_to: int | None = None

    @property
    def key(self) -> tuple[Any, UUID]:
        """What is the same in a repeated send."""
        return self.actor.pk, self.client_id


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
    message isn't in the room, ``Invalid`` for an empty or too long text and for values of a wrong kind, ``Conflict``
    when the client id was used for something else.
    """
    client_id = uuid4() if client_id is None else client_id
    (answer,) = send_messages([Draft(actor, room_id, content, client_id, reply_to)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def send_messages(drafts: Sequence[Draft]) -> list[SentMessage | Exception]:
    """Send several messages in one statement, and return for each what :func:`send_message` returns or raises.

    They are written in their order. A bad one fails alone. It waits for rooms that somebody else has locked. Two
    queries, one without mentions.
    """
    return [_written(answer) for answer in _send(drafts, WAIT_FOR_LOCKED)]


def send_messages_where_free(drafts: Sequence[Draft]) -> list[SentMessage | Exception | None]:
    """Send several messages as :func:`send_messages` does, but write nothing into rooms that somebody else has locked:
    their answer is ``None``. It waits for no row of any room.
    """
    return _send(drafts, PASS_OVER_LOCKED)


def _written(answer: SentMessage | Exception | None) -> SentMessage | Exception:
    assert answer is not None  # noqa: S101 - only what is passed over has no answer
    return answer


def _send(drafts: Sequence[Draft], locked: LockedRows) -> list[SentMessage | Exception | None]:
    answers: list[SentMessage | Exception | None] = []
    while len(answers) < len(drafts):
        if None in answers:
            # What depends on a message that was passed over can't be told from here: all that follows waits with it.
            return [*answers, *[None] * (len(drafts) - len(answers))]
        answers += _send_some(drafts[len(answers) :], locked)
    return answers


def _send_some(drafts: Sequence[Draft], locked: LockedRows) -> list[SentMessage | Exception | None]:
    """Send the first drafts in one statement, up to one whose client id another of them has."""
    cleaned: list[Draft | MessagingError] = []
    distinct: dict[tuple[Any, UUID], Draft] = {}
    for given in drafts:
        try:
            draft = _clean(given)
        except MessagingError as error:
            cleaned.append(error)
            continue
        if distinct.setdefault(draft.key, draft) != draft:
            break
        cleaned.append(draft)
    found = dict(zip(distinct, _send_distinct(list(distinct.values()), locked), strict=True)) if distinct else {}
    answers: list[SentMessage | Exception | None] = []
    for item in cleaned:
        if isinstance(item, MessagingError):
            answers.append(item)
            continue
        answer = found[item.key]
        answers.append(answer)
        if isinstance(answer, SentMessage):
            found[item.key] = SentMessage(answer.message, duplicate=True)
    return answers


def _clean(draft: Draft) -> Draft:
    if not may_be_id(draft.room_id, "room_id"):
        raise _no_such_room(draft.room_id)
    if draft.reply_to is not None and not may_be_id(draft.reply_to, "reply_to"):
        raise _no_such_reply(draft.reply_to)
    if not isinstance(draft.client_id, UUID):
        raise of_wrong_kind(draft.client_id, "client_id", "a UUID")
    content = clean_content(draft.content)
    return draft if content == draft.content else replace(draft, content=content)


def _send_distinct(drafts: Sequence[Draft], locked: LockedRows) -> list[SentMessage | Exception | None]:
    mentions = resolve_mentions_of([(draft.room_id, draft.content, draft.actor.pk) for draft in drafts])
    rows = [
        Row(
            room_id=draft.room_id,
            sender=draft.actor.pk,
            client_id=draft.client_id,
            content=draft.content,
            reply_to=draft.reply_to,
            mentioned=[key for key, _user in mentioned],
            direct_text=direct_text(draft.actor),
            mention_text=mention_text(draft.actor) if mentioned else "",
        )
        for draft, mentioned in zip(drafts, mentions, strict=True)
    ]
    outcomes = write_messages(rows, locked=locked)
    earlier = messages_by_id(
        [outcome.earlier_id for outcome in outcomes if isinstance(outcome, Outcome) and outcome.earlier_id is not None]
    )
    schema_name = current_schema()
    answers: list[SentMessage | Exception | None] = []
    events: list[Event] = []
    for draft, row, mentioned, outcome in zip(drafts, rows, mentions, outcomes, strict=True):
        if isinstance(outcome, Exception):
            answers.append(outcome)
        elif outcome.earlier_id is not None:
            answers.append(_repeated(draft, earlier[outcome.earlier_id]))
        elif outcome.is_busy:
            # Who waited for a locked row, and then didn't get it, lost it: the sender was removed at that moment.
            answers.append(None if locked is PASS_OVER_LOCKED else _no_such_room(draft.room_id))
        elif outcome.message_id is None or outcome.seq is None or outcome.timestamp is None:
            answers.append(_no_such_reply(draft.reply_to) if outcome.is_member else _no_such_room(draft.room_id))
        else:
            message = MessageData(
                id=outcome.message_id,
                room_id=draft.room_id,
                seq=outcome.seq,
                changed_seq=outcome.seq,
                client_id=str(draft.client_id),
                sender=user_ref(draft.actor),
                receiver=_receiver(outcome),
                content=draft.content,
                timestamp=outcome.timestamp,
                reply_to=_answered(draft, outcome),
                mentioned_users=tuple(user for _key, user in mentioned),
                is_broadcast=outcome.room_kind == "group" and not mentioned,
                is_read=False,
            )
            text = row.mention_text if outcome.receiver is None else row.direct_text
            notifications = [
                NotificationData(key, user_id, text, message.id, draft.room_id, message.timestamp, is_read=False)
                for key, user_id in outcome.told
            ]
            events += _announcement(schema_name, message, notifications)
            answers.append(SentMessage(message, duplicate=False))
    emit_on_commit(*events)
    return answers


def resolve_before_creation(message: Message) -> None:
    """Find out whom a message mentions that is about to be saved through the ORM, while its room isn't locked yet."""
    mentioned = resolve_mentions(message.room_id, message.content, sender_key=message.sender_id)
    setattr(message, RESOLVED, mentioned)


def complete_created_message(message: Message) -> None:
    """Add to a message that was saved through the ORM what :func:`send_message` writes with it, and announce it."""
    mentioned = _still_members(message.room_id, message.__dict__.pop(RESOLVED))
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
    told_data = [
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
    ]
    emit_on_commit(*_announcement(current_schema(), message_by_id(message.pk), told_data))


def _still_members(room_id: int, mentioned: list[tuple[Any, UserRef]]) -> list[tuple[Any, UserRef]]:
    """Leave out those who left before the room was locked."""
    if not mentioned:
        return mentioned
    keys = [key for key, _user in mentioned]
    present = set(Membership.objects.filter(ACTIVE, room_id=room_id, user__in=keys).values_list("user_id", flat=True))
    return [(key, user) for key, user in mentioned if key in present]


def _announcement(schema_name: str, message: MessageData, notifications: Sequence[NotificationData]) -> list[Event]:
    return [
        MessagePosted(schema_name, message.room_id, message.seq, message.seq - 1, message),
        *(NotificationCreated(schema_name, notification) for notification in notifications),
    ]


def direct_text(sender: AbstractBaseUser | None) -> str:
    """Return what the receiver of a direct message is told, in the site's language."""
    return _telling(DIRECT, None if sender is None else sender.get_username(), settings.LANGUAGE_CODE)


def mention_text(sender: AbstractBaseUser | None) -> str:
    """Return what a mentioned member is told, in the site's language."""
    return _telling(MENTION, None if sender is None else sender.get_username(), settings.LANGUAGE_CODE)


@lru_cache(maxsize=1024)
def _telling(text: str, username: str | None, language: str) -> str:
    with override(language):
        return gettext(text) % {"sender": gettext("deleted user") if username is None else isolated(username)}


def _receiver(outcome: Outcome) -> UserRef | None:
    if outcome.receiver is None or outcome.receiver_name is None:
        return None
    return UserRef(id=str(outcome.receiver), username=outcome.receiver_name)


def _answered(draft: Draft, outcome: Outcome) -> ReplyRef | None:
    if draft.reply_to is None or outcome.reply_seq is None:
        return None
    return ReplyRef(draft.reply_to, outcome.reply_seq)


def _repeated(draft: Draft, earlier: MessageData) -> SentMessage | Conflict:
    answered = None if earlier.reply_to is None else earlier.reply_to.id
    is_same = (earlier.room_id, answered) == (draft.room_id, draft.reply_to)
    if not is_same or not was_written_as(earlier, draft.content):
        return Conflict("This client id was already used for another message.", client_id=str(draft.client_id))
    return SentMessage(earlier, duplicate=True)


def _no_such_room(room_id: int) -> NotFound:
    return NotFound("There is no such room, or you are not a member of it.", room=room_id)


def _no_such_reply(reply_to: int | None) -> NotFound:
    return NotFound("The message replied to is not in this room.", reply_to=reply_to)
