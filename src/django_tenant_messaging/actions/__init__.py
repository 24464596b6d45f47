"""Every write. The acting user comes first; the right to write is checked in the write itself.

Call them in the tenant's schema: in a view of the tenant, in ``with activated(schema_name)``, or from a coroutine
through :func:`~django_tenant_messaging.tenancy.run_in_tenant`.
"""

from __future__ import annotations

from .deleting import delete_message
from .editing import edit_message
from .memberships import add_members, leave_room, remove_member
from .messages import send_message
from .notifications import mark_notifications_read
from .reading import mark_read
from .renaming import rename_room
from .rooms import create_room, open_direct_room
from .statuses import (
    connection_closed,
    connection_opened,
    ensure_userstatus_exists,
    expire_connections,
    renew_connections,
)
from .typing import set_typing

__all__ = [
    "add_members",
    "connection_closed",
    "connection_opened",
    "create_room",
    "delete_message",
    "edit_message",
    "ensure_userstatus_exists",
    "expire_connections",
    "leave_room",
    "mark_notifications_read",
    "mark_read",
    "open_direct_room",
    "remove_member",
    "rename_room",
    "renew_connections",
    "send_message",
    "set_typing",
]
