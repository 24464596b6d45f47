"""A host that routes to the socket by itself, beside WebSockets of its own."""

from __future__ import annotations

import os
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django_tenant_messaging.realtime.asgi import MessagingWebSocket  # noqa: E402 - Django first

websocket = MessagingWebSocket()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve sockets alone, and no lifespan."""
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["type"] == "lifespan":
        raise NotImplementedError
