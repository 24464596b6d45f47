"""Reading, with the right to read checked in the same call. Everything runs in the current tenant's schema."""

from __future__ import annotations

from .conversations import list_conversations
from .heads import Heads, read_heads, read_joins
from .history import room_history
from .left_rooms import left_rooms
from .logins import LoginsAsked, read_logins
from .members import MAX_CONTACTS, count_members, list_members, mentioned_members, online_contacts_of
from .messages import message_by_id, messages_by_id
from .notifications import list_notifications
from .positions import room_positions, room_positions_of, rooms_among
from .revisions import list_revisions, was_written_as
from .rooms import access_membership, access_quietness, access_room, owns_room, quiet_room_ids
from .timeline import Changes, read_changes, read_returns
from .users import find_users, user_key_type, user_ref, username_field

__all__ = [
    "MAX_CONTACTS",
    "Changes",
    "Heads",
    "LoginsAsked",
    "access_membership",
    "access_quietness",
    "access_room",
    "count_members",
    "find_users",
    "left_rooms",
    "list_conversations",
    "list_members",
    "list_notifications",
    "list_revisions",
    "mentioned_members",
    "message_by_id",
    "messages_by_id",
    "online_contacts_of",
    "owns_room",
    "quiet_room_ids",
    "read_changes",
    "read_heads",
    "read_joins",
    "read_logins",
    "read_returns",
    "room_history",
    "room_positions",
    "room_positions_of",
    "rooms_among",
    "user_key_type",
    "user_ref",
    "username_field",
    "was_written_as",
]
