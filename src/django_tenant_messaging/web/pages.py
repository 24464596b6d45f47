"""What the pages have in common: who reads them, and what their modules start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import reverse

from ..selectors import list_notifications, user_ref
from .texts import page_texts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.contrib.auth.models import AbstractBaseUser

    from ..types import RoomPosition

SOCKET_PATH = "/ws/messages/"


def page_context(user: AbstractBaseUser, positions: Iterable[RoomPosition], **config: Any) -> dict[str, Any]:
    """Return the context that every page needs.

    The module resumes from the positions that were read together with what the page shows, so that nothing falls
    between the page and its stream.
    """
    me = user_ref(user)
    notifications = list_notifications(user, unread_only=True)
    return {
        "me": me,
        "notifications": notifications,
        "config": {
            "socket": SOCKET_PATH,
            "me": {"id": me.id, "username": me.username},
            "positions": {room.room_id: {"epoch": room.epoch, "seq": room.seq} for room in positions},
            "notifications": [
                {"id": told.id, "room": told.room_id, "message": told.message_id} for told in notifications
            ],
            "roomUrl": reverse("tenant_messaging:room", args=[0]),
            "texts": page_texts(),
            **config,
        },
    }
