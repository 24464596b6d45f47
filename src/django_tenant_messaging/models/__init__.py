"""The tables of a tenant."""

from __future__ import annotations

from .allowances import DailyAllowance
from .memberships import Membership
from .messages import Mention, Message, MessageRevision
from .notifications import Notification
from .rooms import ChatRoom, RoomCounter
from .statuses import UserStatus

__all__ = [
    "ChatRoom",
    "DailyAllowance",
    "Membership",
    "Mention",
    "Message",
    "MessageRevision",
    "Notification",
    "RoomCounter",
    "UserStatus",
]
