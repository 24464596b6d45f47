"""Reads what a run left in the database, past the library: plain SQL, each schema by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from tests.chaos.checker.truth import RoomRows, Row, Truth

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

APP = "django_tenant_messaging"


def read_truth(connection: psycopg.Connection[Any], tenants: Iterable[str]) -> Truth:
    """Every room of the tenants with its messages."""
    truth: Truth = {}
    for tenant in tenants:
        rooms: dict[int, list[Row]] = {}
        heads = _select(
            connection,
            tenant,
            "SELECT room_id, last_seq, name, changed_seq FROM {roomcounter} JOIN {chatroom} room ON room.id = room_id",
        )
        for room, *columns in _select(
            connection,
            tenant,
            "SELECT room_id, message.id, seq, changed_seq, client_id::text, username, content, deleted_at IS NOT NULL"
            " FROM {message} message LEFT JOIN {user} sender ON sender.id = sender_id ORDER BY room_id, seq",
        ):
            rooms.setdefault(room, []).append(Row(*columns))
        for room, head, name, name_seq in heads:
            truth[tenant, room] = RoomRows(head, tuple(rooms.get(room, ())), name, name_seq)
    return truth


def changed_seq(connection: psycopg.Connection[Any], tenant: str, room: int, username: str) -> int:
    """The place in the timeline of a user's last coming or going."""
    query = "SELECT changed_seq FROM {membership} JOIN {user} u ON u.id = user_id WHERE room_id = %s AND username = %s"
    ((seq,),) = _select(connection, tenant, query, room, username)
    return int(seq)


def _select(connection: psycopg.Connection[Any], tenant: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    names = {
        name: sql.Identifier(tenant, f"{APP}_{name}") for name in ("roomcounter", "chatroom", "message", "membership")
    }
    return connection.execute(
        sql.SQL(query).format(**names, user=sql.Identifier(tenant, "auth_user")), values
    ).fetchall()
