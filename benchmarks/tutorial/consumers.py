"""A consumer as the Channels tutorial writes it, with rights, tenants, and one socket for all rooms of a client."""

from __future__ import annotations

from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django_tenants.utils import schema_context

from benchmarks.tutorial.models import Message


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """One client, in all rooms that its user is in."""

    async def connect(self) -> None:
        """Let members in and join their rooms' groups."""
        self.user, self.schema = self.scope["user"], self.scope["schema"]
        self.rooms: set[int] = set()
        if not self.user.is_authenticated:
            await self.close(code=4401)
            return
        self.rooms = await self.load_rooms()
        for room_id in self.rooms:
            await self.channel_layer.group_add(self.group_of(room_id), self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:  # noqa: ARG002 - Channels' signature
        """Leave the groups."""
        for room_id in self.rooms:
            await self.channel_layer.group_discard(self.group_of(room_id), self.channel_name)

    async def receive_json(self, content: dict[str, Any]) -> None:
        """Store a message, send it to its room, tell its sender."""
        room_id = content["room"]
        if room_id not in self.rooms:
            await self.send_json({"type": "error", "id": content["id"], "code": "forbidden"})
            return
        message = await self.save(room_id, content["content"])
        await self.channel_layer.group_send(self.group_of(room_id), {"type": "chat.message", "message": message})
        await self.send_json({"type": "ack", "id": content["id"]})

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Pass a message on to the client."""
        await self.send_json({"type": "message", **event["message"]})

    def group_of(self, room_id: int) -> str:
        """The name of a room's group."""
        return f"chat.{self.schema}.{room_id}"

    # The tenant is entered in the function that asks: all consumers share the thread that these run in.

    @database_sync_to_async
    def load_rooms(self) -> set[int]:
        """The user's rooms."""
        with schema_context(self.schema):
            return set(self.user.rooms.values_list("id", flat=True))

    @database_sync_to_async
    def save(self, room_id: int, content: str) -> dict[str, Any]:
        """Store a message."""
        with schema_context(self.schema):
            message = Message.objects.create(room_id=room_id, sender=self.user, content=content)
        return {
            "id": message.pk,
            "room": room_id,
            "sender": {"id": self.user.pk, "username": self.user.username},
            "content": content,
            "timestamp": message.timestamp.isoformat(),
        }
