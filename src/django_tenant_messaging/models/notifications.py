from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .messages import Message
from .users import user_key


class Notification(models.Model):
    """Something a user is told about: a direct message or a mention."""

    user = user_key(related_name="notifications", db_index=False, verbose_name=_("user"))
    message = models.ForeignKey(
        Message,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="notifications",
        verbose_name=_("message"),
    )
    notification_text = models.CharField(_("text"), max_length=500)
    is_read = models.BooleanField(_("read"), default=False)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        constraints = [
            # Each user is told once about a message; the order serves look-ups by user.
            models.UniqueConstraint(fields=["user", "message"], name="messaging_notification_once"),
        ]
        indexes = [
            # The newest notifications of a user.
            models.Index(fields=["user", "-id"], name="messaging_notification_user"),
            # The newest unread ones, which every page shows; marking them.
            models.Index(fields=["user", "-id"], condition=Q(is_read=False), name="messaging_notification_to_read"),
        ]

    def __str__(self) -> str:
        return self.notification_text
