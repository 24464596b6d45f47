from __future__ import annotations

from typing import TYPE_CHECKING

from ..models import Notification
from ..types import NotificationData

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


def list_notifications(user: AbstractBaseUser, *, unread_only: bool = False, limit: int = 50) -> list[NotificationData]:
    """Return the user's notifications, newest first, at most 200; one query."""
    # Ordered by the user too, whom a range doesn't fix: else the planner may look for them among everybody's newest.
    found = Notification.objects.filter(user_id__gte=user.pk, user_id__lte=user.pk)
    if unread_only:
        found = found.filter(is_read=False)
    newest = found.select_related("message").order_by("user_id", "-pk")[: min(limit, 200)]
    return [notification_data(row) for row in newest]


def notification_data(row: Notification) -> NotificationData:
    """Return a notification with its message loaded as a value."""
    return NotificationData(
        id=row.pk,
        user_id=str(row.user_id),
        text=row.notification_text,
        message_id=row.message_id,
        room_id=None if row.message is None else row.message.room_id,
        created_at=row.created_at,
        is_read=row.is_read,
    )
