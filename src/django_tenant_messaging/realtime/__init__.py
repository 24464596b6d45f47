"""The WebSocket face: the only package, besides the test kit, that imports channels."""

from __future__ import annotations

from .asgi import MessagingWebSocket, messaging_asgi

__all__ = ["MessagingWebSocket", "messaging_asgi"]
