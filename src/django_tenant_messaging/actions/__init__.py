"""Every write. The acting user comes first; the right to write is checked in the write itself.

Call them in the tenant's schema: in a view of the tenant, in ``with activated(schema_name)``, or from a coroutine
through :func:`~django_tenant_messaging.tenancy.run_in_tenant`.
"""

from __future__ import annotations

from .access import end_login, end_replaced_login, recheck_access
from .allowances import look_up_users, unlimited
from .deleting import delete_message
from .editing import edit_message
from .memberships import add_members, leave_room, rejoin_room, remove_member
from .messages import Draft, send_message, send_messages, send_messages_where_free
from .notifications import mark_notifications_read
from .reading import mark_read, mark_read_where_free
from .renaming import rename_room
from .room_deletion import delete_room
from .rooms import create_room, open_direct_room
from .statuses import (
    ensure_userstatus_exists,
    expire_connections,
    renew_connections,
    renew_connections_of,
    store_connections,
)
from .typing import set_typing

__all__ = [
    "Draft",
    "add_members",
    "create_room",
    "delete_message",
    "delete_room",
    "edit_message",
    "end_login",
    "end_replaced_login",
    "ensure_userstatus_exists",
    "expire_connections",
    "leave_room",
    "look_up_users",
    "mark_notifications_read",
    "mark_read",
    "mark_read_where_free",
    "open_direct_room",
    "recheck_access",
    "rejoin_room",
    "remove_member",
    "rename_room",
    "renew_connections",
    "renew_connections_of",
    "send_message",
    "send_messages",
    "send_messages_where_free",
    "set_typing",
    "store_connections",
    "unlimited",
]
