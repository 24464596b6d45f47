"""Hosts with code of their own around the socket."""

from __future__ import annotations

import os
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402 - Django first

from django_tenant_messaging.realtime import messaging_asgi  # noqa: E402
from django_tenant_messaging.realtime.asgi import MessagingWebSocket  # noqa: E402

websocket = MessagingWebSocket()
own = messaging_asgi(get_asgi_application())


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Route to the socket, beside WebSockets of the host's own; no lifespan."""
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["type"] == "lifespan":
        raise NotImplementedError


async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Look at all that comes."""

    async def seen() -> Any:
        return await receive()

    await own(scope, seen, send)
