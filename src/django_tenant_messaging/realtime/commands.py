"""What a client's frames do: one action or selector each, in the tenant, and one reply."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .. import actions, selectors
from ..conf import messaging_settings
from ..exceptions import Conflict, MessagingError
from ..payloads import (
    ClientFrame,
    Delete,
    Edit,
    ErrorFrame,
    History,
    HistoryReply,
    MessagePayload,
    OkFrame,
    Ping,
    Position,
    Read,
    ReadReply,
    Rename,
    Resume,
    ResumeReply,
    ResumeStatus,
    Revisions,
    Send,
    SendReply,
    SentPayload,
    Typing,
)
from ..tenancy import run_in_tenant
from .changes import carry_out_change

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .socket import Socket

logger = logging.getLogger(__name__)


async def answer(socket: Socket, frame: ClientFrame) -> None:
    """Carry out a frame and queue its reply."""
    try:
        if isinstance(frame, Resume):
            await _resume(socket, frame)
            return
        reply = await _carry_out(socket, frame)
    except MessagingError as error:
        reply = refusal(frame.id, error)
    except Exception:
        logger.exception("[%s] A %s frame of user %s failed.", socket.schema_name, frame.type, socket.user_id)
        reply = ErrorFrame(id=frame.id, code="internal", message="Something went wrong here; try again.", details={})
    await socket.reply(reply)


def refusal(frame_id: str | None, error: MessagingError) -> ErrorFrame:
    """Return the frame that tells a client what was wrong."""
    return ErrorFrame(id=frame_id, code=error.code, message=error.message, details=error.details)


async def _carry_out(
    socket: Socket, frame: Send | Edit | Delete | Revisions | Rename | Read | Typing | History | Ping
) -> BaseModel:
    schema_name, user = socket.schema_name, socket.user
    match frame:
        case Send():
            sent = await run_in_tenant(
                schema_name,
                actions.send_message,
                user,
                room_id=frame.room,
                content=frame.content,
                client_id=frame.client_id,
                reply_to=frame.reply_to,
            )
            return SendReply(
                id=frame.id,
                room=frame.room,
                message=SentPayload.model_validate(sent.message, from_attributes=True),
                duplicate=sent.duplicate,
            )
        case Edit() | Delete() | Revisions() | Rename():
            return await carry_out_change(socket, frame)
        case Read():
            seq = await run_in_tenant(schema_name, actions.mark_read, user, room_id=frame.room, seq=frame.seq)
            return ReadReply(id=frame.id, room=frame.room, seq=seq)
        case Typing():
            await run_in_tenant(schema_name, actions.set_typing, user, room_id=frame.room, is_typing=frame.is_typing)
            return OkFrame(id=frame.id)
        case History():
            page = await run_in_tenant(
                schema_name,
                selectors.room_history,
                user,
                room_id=frame.room,
                before=frame.before,
                after=frame.after,
                around=frame.around,
                limit=frame.limit,
            )
            return HistoryReply(
                id=frame.id,
                room=frame.room,
                epoch=page.room.epoch,
                seq=page.room.seq,
                messages=[MessagePayload.of(message, reader_id=socket.user_id) for message in page.messages],
                has_before=page.has_before,
                has_after=page.has_after,
            )
        case Ping():
            return OkFrame(id=frame.id)


async def _resume(socket: Socket, frame: Resume) -> None:
    if socket.is_streaming:
        raise Conflict("The stream was started already; resume once, as the first frame of a socket.")
    statuses = {key: _status(socket, int(key), position) for key, position in frame.positions.items()}
    # The reply goes first: the client knows then where the events that follow begin.
    await socket.reply(ResumeReply(id=frame.id, rooms=statuses))
    socket.stream_from(
        {
            int(key): status.seq
            for key, status in statuses.items()
            if status.status != "gone" and int(key) in socket.rooms
        }
    )


def _status(socket: Socket, room_id: int, position: Position) -> ResumeStatus:
    room = socket.rooms.get(room_id)
    if room is None:
        return ResumeStatus(status="gone", seq=0)
    head = max(room.seq, socket.feeds[room_id].head or 0)
    if position.epoch != room.epoch or position.seq > head:
        return ResumeStatus(status="reset", seq=room.seq)
    start = max(position.seq, room.visible_after_seq)
    if head - start > messaging_settings.RESUME_LIMIT:
        return ResumeStatus(status="limited", seq=room.seq)
    return ResumeStatus(status="ok", seq=start)
