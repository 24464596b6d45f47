"""The shortest connection there is."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.client import Entrance


async def visit(entrance: Entrance, *, polite: bool) -> None:
    """Open a WebSocket, see the server's first frame, and go: with a close frame or by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", entrance.port)
    try:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET /ws/messages/ HTTP/1.1",
            f"Host: {entrance.authority}",
            f"Origin: http://{entrance.authority}",
            f"Cookie: {entrance.cookie}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        writer.write("\r\n".join((*lines, "", "")).encode())
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        if polite:
            writer.write(b"\x88\x80\0\0\0\0")
            await writer.drain()
    finally:
        writer.transport.abort()
