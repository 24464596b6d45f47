from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .users import user_key


class DailyAllowance(models.Model):
    """What a user has used of an allowance that is given for each day.

    As a token bucket it is kept as the time at which it will be full again, so that it fills without being touched. A
    user who never used an allowance has no row.
    """

    class Kind(models.TextChoices):
        ROOMS = "rooms", _("rooms made")
        MEMBERS = "members", _("members added")
        LOOKUPS = "lookups", _("names looked up")

    # The unique key begins with the user: it is the database's own look-up when the user is deleted.
    user = user_key(related_name="+", db_index=False, verbose_name=_("user"))
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    full_at = models.DateTimeField(_("full again at"))

    class Meta:
        verbose_name = _("daily allowance")
        verbose_name_plural = _("daily allowances")
        constraints = [
            models.UniqueConstraint(fields=["user", "kind"], name="messaging_allowance_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.kind}"
