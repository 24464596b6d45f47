from __future__ import annotations

from django.db import models
from django.db.models.expressions import RawSQL
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .rooms import ChatRoom
from .users import user_key

ACTIVE = models.Q(left_seq__isnull=True)
EVER_CHANGED = models.Q(changed_seq__gt=RawSQL("0", []))
"""Those whose ``changed_seq`` isn't 0. A parameter in place of the 0 would keep the planner from the index of these."""


class Membership(models.Model):
    """A user's place in a room. A user who left keeps the row; coming back reuses it.

    ``changed_seq`` is the room's ``seq`` of the last join or leave, 0 for the room's first members.
    """

    class Role(models.TextChoices):
        OWNER = "owner", _("owner")
        MEMBER = "member", _("member")

    room = models.ForeignKey(
        ChatRoom, on_delete=models.CASCADE, related_name="memberships", db_index=False, verbose_name=_("room")
    )
    user = user_key(related_name="chat_memberships", db_index=False, verbose_name=_("user"))
    role = models.CharField(_("role"), max_length=10, choices=Role.choices, default=Role.MEMBER)
    last_read_seq = models.BigIntegerField(default=0)
    visible_after_seq = models.BigIntegerField(default=0)
    joined_seq = models.BigIntegerField(default=0)
    joined_at = models.DateTimeField(_("joined at"), default=timezone.now)
    left_seq = models.BigIntegerField(null=True, blank=True)
    left_at = models.DateTimeField(_("left at"), null=True, blank=True)
    # A server of the release before knows nothing of it and writes rows meanwhile.
    left_by_choice = models.BooleanField(_("left by choice"), default=False, db_default=False)
    """Whether the user left by themselves. Nobody else can bring them back."""
    changed_seq = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [
            # Also serves the members of a room, and the database's own look-up when the room is deleted.
            models.UniqueConstraint(fields=["room", "user"], name="messaging_member_unique"),
        ]
        indexes = [
            # The rooms of a user: conversation list, hello; the database's own look-up when the user is deleted.
            models.Index(fields=["user"], name="messaging_member_user"),
            # Joins and leaves after a position: catching up.
            models.Index(
                fields=["room", "changed_seq"],
                # See EVER_CHANGED.
                condition=models.Q(changed_seq__gt=0),
                name="messaging_member_changed",
            ),
            # The longest member, who becomes the owner when the last one leaves; how many there are. Every one joined
            # at 0 or later: only a query that says so gets this index, by which no single member must be looked up.
            models.Index(
                fields=["room", "joined_seq", "id"],
                condition=models.Q(left_seq__isnull=True, joined_seq__gte=0),
                name="messaging_member_active",
            ),
            # Whether a group has an owner left.
            models.Index(fields=["room"], condition=models.Q(role="owner"), name="messaging_member_owner"),
            # The rooms that a user can come back to.
            models.Index(
                fields=["user", "-left_at"],
                condition=models.Q(left_by_choice=True),
                name="messaging_member_left",
            ),
            # Recent joins of connected users: reconciling.
            models.Index(fields=["joined_at"], name="messaging_member_joined"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.room_id}"
