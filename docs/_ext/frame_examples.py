"""An example of each frame, by the name of its class. The tests check them against the classes."""

from __future__ import annotations

from typing import Any

EPOCH = "0b6a5b0e4c1d4a2f9d7e3c8f1a2b4c6d"
CLIENT_ID = "6f1c6dd8-7a4f-4f8e-9d43-0d2f6a1b5c11"
TIME = "2026-11-20T13:00:00.123456Z"
LATER = "2026-11-20T13:02:00.654321Z"
ALICE = {"id": "1", "username": "alice"}
BOB = {"id": "2", "username": "bob"}
ROOM = {"id": 7, "kind": "group", "name": "general", "epoch": EPOCH, "seq": 41, "read_seq": 40}
MESSAGE = {
    "id": 991,
    "seq": 42,
    "changed_seq": 42,
    "client_id": CLIENT_ID,
    "sender": ALICE,
    "receiver": None,
    "content": "Hello team",
    "timestamp": TIME,
    "reply_to": None,
    "mentioned_users": [],
    "is_broadcast": True,
    "is_read": False,
    "edited_at": None,
    "deleted_at": None,
    "is_own_message": False,
}

EXAMPLES: dict[str, dict[str, Any]] = {
    "Resume": {"type": "resume", "id": "1", "positions": {"7": {"epoch": EPOCH, "seq": 41}}},
    "Send": {"type": "send", "id": "2", "room": 7, "client_id": CLIENT_ID, "content": "Hello team", "reply_to": None},
    "Edit": {"type": "edit", "id": "7", "room": 7, "message_id": 980, "content": "Good morning, team"},
    "Delete": {"type": "delete", "id": "8", "room": 7, "message_id": 980},
    "Revisions": {"type": "revisions", "id": "9", "room": 7, "message_id": 980, "limit": 50},
    "Rename": {"type": "rename", "id": "10", "room": 7, "name": "everybody"},
    "Read": {"type": "read", "id": "3", "room": 7, "seq": 42},
    "Typing": {"type": "typing", "id": "4", "room": 7, "is_typing": True},
    "History": {"type": "history", "id": "5", "room": 7, "before": 42, "limit": 50},
    "Ping": {"type": "ping", "id": "6"},
    "OkFrame": {"type": "ok", "id": "6"},
    "ErrorFrame": {
        "type": "error",
        "id": "2",
        "code": "invalid",
        "message": "content: must not be empty",
        "details": {"errors": [{"field": "content", "reason": "must not be empty"}]},
    },
    "ResumeReply": {"type": "ok", "id": "1", "rooms": {"7": {"status": "ok", "seq": 41}}},
    "SendReply": {
        "type": "ok",
        "id": "2",
        "room": 7,
        "message": {"id": 991, "seq": 42, "client_id": CLIENT_ID, "timestamp": TIME},
        "duplicate": False,
    },
    "ChangeReply": {
        "type": "ok",
        "id": "7",
        "room": 7,
        "message": {"id": 980, "seq": 41, "changed_seq": 46, "edited_at": LATER, "deleted_at": None},
    },
    "RevisionsReply": {
        "type": "ok",
        "id": "9",
        "room": 7,
        "message_id": 980,
        "revisions": [{"id": 3, "content": "Good morning", "written_at": TIME, "replaced_at": LATER}],
        "has_before": False,
    },
    "RenameReply": {"type": "ok", "id": "10", "room": 7, "name": "everybody"},
    "ReadReply": {"type": "ok", "id": "3", "room": 7, "seq": 42},
    "HistoryReply": {
        "type": "ok",
        "id": "5",
        "room": 7,
        "epoch": EPOCH,
        "seq": 42,
        "messages": [{**MESSAGE, "id": 980, "seq": 41, "changed_seq": 41, "content": "Good morning"}],
        "has_before": True,
        "has_after": True,
    },
    "HelloFrame": {
        "type": "hello",
        "protocol": "tenant-messaging.v1",
        "user": BOB,
        "heartbeat_interval": 25.0,
        "max_content_length": 10000,
        "rooms": [ROOM],
        "rooms_limited": False,
        "online": [ALICE],
        "online_limited": False,
    },
    "MessageFrame": {"type": "message", "room": 7, "after": 41, "seq": 42, "message": MESSAGE},
    "MembersFrame": {"type": "members", "room": 7, "after": 42, "seq": 43, "joined": [BOB], "left": []},
    "RoomFrame": {"type": "room", "room": 7, "after": 46, "seq": 47, "name": "everybody"},
    "SkipFrame": {"type": "skip", "room": 7, "after": 43, "seq": 45},
    "ReadFrame": {"type": "read", "room": 7, "user": ALICE, "seq": 42},
    "TypingFrame": {"type": "typing", "room": 7, "user": ALICE, "is_typing": True, "expires_in": 6.0},
    "PresenceFrame": {"type": "presence", "user": ALICE, "is_online": False, "last_seen": TIME},
    "NotificationFrame": {
        "type": "notification",
        "notification": {
            "id": 17,
            "text": "alice mentioned you",
            "room": 7,
            "message_id": 991,
            "created_at": TIME,
            "is_read": False,
        },
    },
    "RoomAddedFrame": {"type": "room_added", "room": ROOM},
    "RoomRemovedFrame": {"type": "room_removed", "room": 7},
    "HeartbeatFrame": {"type": "heartbeat", "heads": {"7": 45}},
}
