"""What a server can do at all: a broadcast over ASGI and nothing else, with a commit for each message if told so.

No sessions, no rights, no history, no second process. With `BARE_DATABASE_URL` each message is committed to PostgreSQL
before it is acknowledged and broadcast, by one statement that finds repetitions and numbers the room's messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from psycopg_pool import AsyncConnectionPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Send = Callable[[dict[str, Any]], Awaitable[None]]

TABLES = """
CREATE TABLE IF NOT EXISTS room (id bigint PRIMARY KEY, last_seq bigint NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id bigint NOT NULL REFERENCES room,
    seq bigint NOT NULL,
    sender_id bigint NOT NULL,
    client_id bigint NOT NULL,
    content text NOT NULL,
    timestamp timestamptz NOT NULL DEFAULT now(),
    UNIQUE (room_id, seq),
    UNIQUE (sender_id, client_id)
)
"""
WRITE = """
WITH earlier AS (
    SELECT seq FROM message WHERE sender_id = %(sender)s AND client_id = %(client_id)s
), place AS (
    UPDATE room SET last_seq = last_seq + 1 WHERE id = %(room)s AND NOT EXISTS (SELECT FROM earlier) RETURNING last_seq
), written AS (
    INSERT INTO message (room_id, seq, sender_id, client_id, content)
    SELECT %(room)s, last_seq, %(sender)s, %(client_id)s, %(content)s FROM place
    RETURNING seq
)
SELECT seq FROM written UNION ALL SELECT seq FROM earlier
"""
CONNECTIONS = 8


class Room:
    """Who is in a room. The lock keeps its messages in one order for all."""

    def __init__(self) -> None:
        self.sends: dict[Send, None] = {}
        self.lock = asyncio.Lock()
        self.last_seq = 0


rooms: defaultdict[int, Room] = defaultdict(Room)
pools: list[AsyncConnectionPool[Any]] = []


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    query = parse_qs(scope["query_string"].decode())
    sender = int(query["user"][0])
    joined = [rooms[int(number)] for number in query["rooms"][0].split(",")]
    await receive()
    await send({"type": "websocket.accept"})
    for room in joined:
        room.sends[send] = None
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await take(sender, json.loads(event["text"]), send)
    finally:
        for room in joined:
            del room.sends[send]


async def take(sender: int, frame: dict[str, Any], reply: Send) -> None:
    """Give a message its number, send it to all in its room, and tell its sender."""
    room = rooms[frame["room"]]
    async with room.lock:
        if pools:
            room.last_seq = await commit(sender, frame)
        else:
            room.last_seq += 1
        message = {
            "type": "message",
            "id": room.last_seq,
            "room": frame["room"],
            "sender": sender,
            "content": frame["content"],
            "timestamp": time.time(),
        }
        event = {"type": "websocket.send", "text": json.dumps(message)}
        await reply({"type": "websocket.send", "text": json.dumps({"type": "ack", "id": frame["id"]})})
        for send in list(room.sends):
            await send(event)


async def commit(sender: int, frame: dict[str, Any]) -> int:
    """Write the message; its place in the room."""
    values = {"sender": sender, "client_id": frame["id"], "room": frame["room"], "content": frame["content"]}
    async with pools[0].connection() as connection:
        row = await (await connection.execute(WRITE, values)).fetchone()
        assert row is not None
        seq: int = row[0]
        return seq


async def lifespan(receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
    """Open the database's connections before the first client, and close them after the last."""
    await receive()
    if url := os.environ.get("BARE_DATABASE_URL"):
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs={"autocommit": True}, open=False
        )
        await pool.open(wait=True)
        pools.append(pool)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    for pool in pools:
        await pool.close()
    await send({"type": "lifespan.shutdown.complete"})
