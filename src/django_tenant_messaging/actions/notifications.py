from __future__ import annotations

from typing import TYPE_CHECKING

from ..models import Notification

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.contrib.auth.models import AbstractBaseUser


def mark_notifications_read(actor: AbstractBaseUser, *, notification_ids: Collection[int] | None = None) -> int:
    """Mark the actor's notifications as read, all or those named, and return how many were unread; one query.

    Ids of others' notifications have no effect.
    """
    mine = Notification.objects.filter(user_id=actor.pk, is_read=False)
    if notification_ids is not None:
        mine = mine.filter(pk__in=notification_ids)
    return mine.update(is_read=True)
