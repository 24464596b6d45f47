from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .users import user_key


class UserStatus(models.Model):
    """Whether a user is online.

    ``connections`` maps each server process in which the user has a socket to the time (seconds since 1970) until
    which that counts without renewal. A process that dies takes nobody's status along for longer than that.
    """

    user = user_key(models.OneToOneField, related_name="chat_status", verbose_name=_("user"))
    is_online = models.BooleanField(_("online"), default=False)
    last_seen = models.DateTimeField(_("last seen"), null=True, blank=True)
    connections = models.JSONField(default=dict, editable=False)
    online_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("user status")
        verbose_name_plural = _("user statuses")
        indexes = [
            # Finding those whose process died, among all who are online. Not by the time itself: a renewal, which is
            # by far the most frequent write, would have to write every index of the table.
            models.Index(fields=["id"], condition=models.Q(is_online=True), name="messaging_status_online"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {'online' if self.is_online else 'offline'}"
