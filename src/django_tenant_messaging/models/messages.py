from __future__ import annotations

import uuid
from typing import Any, cast

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.dispatch import Signal
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..exceptions import Invalid
from ..tenancy import TENANT_DATABASE
from .content import clean_content
from .rooms import ChatRoom, RoomCounter
from .users import user_key

message_begins = Signal()
"""Sent with ``message`` before a new message takes its place, which locks the room: what only reads is done now."""


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages, written one by one."""

    def bulk_create(self, *_args: Any, **_kwargs: Any) -> list[Message]:
        """Not offered: each message takes the room's next ``seq`` and is announced."""
        raise TypeError("Messages can't be created in bulk; use Message.objects.create() or actions.send_message().")


class Message(models.Model):
    """A message in a room's timeline.

    ``Message.objects.create(sender=a, receiver=b, content="...")`` is enough: the direct room is found or made, the
    receiver is notified, and connected members get the message after the commit. With ``room=`` it goes to a group.
    Trusted code calls this; who acts for a user calls :func:`~django_tenant_messaging.actions.send_message`.

    Saving an existing message again tells nobody. It is changed by
    :func:`~django_tenant_messaging.actions.edit_message` and
    :func:`~django_tenant_messaging.actions.delete_message`.
    """

    room = models.ForeignKey(
        ChatRoom, on_delete=models.CASCADE, related_name="messages", db_index=False, verbose_name=_("room")
    )
    seq = models.BigIntegerField(editable=False)
    """The place in the room's timeline, without gaps, in the order of the commits."""
    changed_seq = models.BigIntegerField(editable=False)
    """The ``seq`` of the last change; the message's own when it never changed."""
    sender = user_key(null=True, blank=True, related_name="sent_messages", db_index=False, verbose_name=_("sender"))
    receiver = user_key(
        null=True, blank=True, related_name="received_messages", db_index=False, verbose_name=_("receiver")
    )
    content = models.TextField(_("content"))
    """Empty once the message was deleted."""
    timestamp = models.DateTimeField(_("time"), default=timezone.now)
    edited_at = models.DateTimeField(_("edited at"), null=True, blank=True, editable=False)
    """When the content was last changed by its sender."""
    deleted_at = models.DateTimeField(_("deleted at"), null=True, blank=True, editable=False)
    """When it was deleted for everybody. The row stays in its place."""
    is_read = models.BooleanField(_("read"), default=False)
    """Whether the receiver of a direct message has read it."""
    reply_to = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="replies",
        db_index=False,
        verbose_name=_("reply to"),
    )
    client_id = models.UUIDField(default=uuid.uuid4, editable=False)
    """The sender's own id for the message, unique for ever: a repeated send doesn't write twice."""
    mentioned_users: models.ManyToManyField[Any, Any] = models.ManyToManyField(
        settings.AUTH_USER_MODEL, through="Mention", related_name="+", verbose_name=_("mentioned users")
    )

    objects = MessageQuerySet.as_manager()

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        constraints = [
            # Also serves history pages, catching up, and unread counts. What is unread was written of late and is
            # rarely all-visible: to hold more columns here would not spare the look at the table.
            models.UniqueConstraint(fields=["room", "seq"], name="messaging_message_seq"),
            models.UniqueConstraint(fields=["sender", "client_id"], name="messaging_message_client_id"),
        ]
        indexes = [
            # What was written or changed after a position: catching up.
            models.Index(fields=["room", "changed_seq"], name="messaging_message_changed"),
            # Marking a direct conversation as read.
            models.Index(
                fields=["room", "receiver", "seq"],
                # Without the messages to groups, which are never marked.
                condition=Q(is_read=False, receiver__isnull=False),
                name="messaging_message_to_read",
            ),
            # The messages a user received; the database's own look-up when the user is deleted.
            models.Index(fields=["receiver"], condition=Q(receiver__isnull=False), name="messaging_message_receiver"),
            # The database's own look-up when an answered message is deleted.
            models.Index(fields=["reply_to"], condition=Q(reply_to__isnull=False), name="messaging_message_reply"),
        ]

    def __str__(self) -> str:
        return f"{self.room_id}:{self.seq}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write the message; a new one takes its place in the room's timeline in the same transaction."""
        if not self._state.adding:
            super().save(*args, **kwargs)
            return
        self.content = clean_content(self.content)
        with transaction.atomic(using=TENANT_DATABASE):
            self._find_room()
            message_begins.send(type(self), message=self)
            self.seq = self.changed_seq = RoomCounter.objects.advance(self.room_id)
            super().save(*args, **kwargs)

    def _find_room(self) -> None:
        if cast("int | None", self.room_id) is None:
            if self.sender is None or self.receiver is None:
                raise Invalid("A message needs a room, or a sender and a receiver.")
            self.room, _created = ChatRoom.objects.direct(self.sender, self.receiver)
        elif self.room.kind == ChatRoom.Kind.DIRECT:
            self.receiver = self.room.members.exclude(pk=self.sender_id).first()
        elif self.receiver is not None:
            raise Invalid.field("receiver", "a message to a group has none; mention the user instead")


class MessageRevision(models.Model):
    """What a message said before an edit. The deletion of the message takes its revisions along."""

    # The index serves reading a message's revisions, and finding them when it is deleted.
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="revisions", verbose_name=_("message"))
    content = models.TextField(_("content"))
    written_at = models.DateTimeField(_("written at"))
    replaced_at = models.DateTimeField(_("replaced at"))

    class Meta:
        verbose_name = _("earlier version")
        verbose_name_plural = _("earlier versions")

    def __str__(self) -> str:
        return f"{self.message_id} until {self.replaced_at:%Y-%m-%d %H:%M:%S}"


class Mention(models.Model):
    """A user mentioned in a message."""

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="mentions", db_index=False)
    user = user_key(related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["message", "user"], name="messaging_mention_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.message_id}"
