"""What a client's frames do to what is there already: edit, delete, rename, mark as read; and what was before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import actions, selectors
from ..payloads import (
    ChangedPayload,
    ChangeReply,
    Delete,
    Edit,
    Read,
    ReadReply,
    Rename,
    RenameReply,
    RevisionPayload,
    Revisions,
    RevisionsReply,
)
from ..tenancy import run_in_tenant

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .socket import Socket
    from .turns import Turns


async def read_revisions(socket: Socket, frame: Revisions) -> RevisionsReply:
    """Read what a message was before, and return the reply."""
    page = await run_in_tenant(
        socket.schema_name,
        selectors.list_revisions,
        socket.user,
        room_id=frame.room,
        message_id=frame.message_id,
        before=frame.before,
        limit=frame.limit,
    )
    return RevisionsReply(
        id=frame.id,
        room=frame.room,
        message_id=frame.message_id,
        revisions=[RevisionPayload.of(revision) for revision in page.revisions],
        has_before=page.has_before,
    )


async def move_read_position(socket: Socket, frame: Read, turns: Turns) -> ReadReply:
    """Mark a room as read and return the reply; when it is the room's turn only if somebody keeps locked what that
    writes: members read at the same time, and mustn't wait for each other.
    """
    schema_name, read = socket.schema_name, {"room_id": frame.room, "seq": frame.seq}
    seq = await run_in_tenant(schema_name, actions.mark_read_where_free, socket.user, **read)
    if seq is None:
        async with turns.of_room(schema_name, frame.room):
            seq = await run_in_tenant(schema_name, actions.mark_read, socket.user, **read)
    return ReadReply(id=frame.id, room=frame.room, seq=seq)


async def carry_out_change(socket: Socket, frame: Edit | Delete | Rename, turns: Turns) -> BaseModel:
    """Carry out a frame when it is its room's turn, and return its reply."""
    async with turns.of_room(socket.schema_name, frame.room):
        return await _carry_out(socket, frame)


async def _carry_out(socket: Socket, frame: Edit | Delete | Rename) -> BaseModel:
    schema_name, user = socket.schema_name, socket.user
    match frame:
        case Edit():
            edited = await run_in_tenant(
                schema_name,
                actions.edit_message,
                user,
                room_id=frame.room,
                message_id=frame.message_id,
                content=frame.content,
            )
            return ChangeReply(id=frame.id, room=frame.room, message=ChangedPayload.model_validate(edited))
        case Delete():
            deleted = await run_in_tenant(
                schema_name, actions.delete_message, user, room_id=frame.room, message_id=frame.message_id
            )
            return ChangeReply(id=frame.id, room=frame.room, message=ChangedPayload.model_validate(deleted))
        case Rename():
            room = await run_in_tenant(schema_name, actions.rename_room, user, room_id=frame.room, name=frame.name)
            return RenameReply(id=frame.id, room=frame.room, name=room.name)
