"""What a client's frames do: one action or selector each, in the tenant, and one reply."""

from __future__ import annotations

import logging
from functools import partial
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
from .changes import carry_out_change, move_read_position, read_revisions

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..types import SentMessage
    from .hub import Hub
    from .socket import Socket
    from .turns import Turns

logger = logging.getLogger(__name__)

MAX_UNANSWERED = 32
"""Most sends of one socket that are on their way at once; the next frame is read when one of them is answered."""


_Carried = Edit | Delete | Revisions | Rename | Read | Typing | History | Ping


class Commands:
    """Carries out the frames of one socket, in their order.

    Sends follow each other without waiting for the answer, so that they share a commit. Any other frame waits until
    all sends before it are answered.
    """

    def __init__(self, socket: Socket, hub: Hub) -> None:
        self._socket = socket
        self._hub = hub
        self._unanswered = socket.unanswered

    async def carry_out(self, frame: ClientFrame) -> None:
        """Carry out a frame and queue its reply."""
        if self._socket.rooms_limited:
            await self._hub.following.use(self._socket, getattr(frame, "room", 0))
        if isinstance(frame, Send):
            await self._unanswered.at_most(MAX_UNANSWERED - 1)
            await self._socket.outbox.wait_for_room()
            self._send(frame)
            return
        await self._unanswered.at_most(0)
        if isinstance(frame, History | Revisions):
            async with self._socket.outbox.turn_to_read():
                if (page := await self._answer(frame)) is not None:
                    self._socket.tell(page)
            return
        # Before the work: what it returns would wait here all the same.
        await self._socket.outbox.wait_for_room()
        if (reply := await self._answer(frame)) is not None:
            await self._socket.reply(reply)

    async def _answer(self, frame: Resume | _Carried) -> BaseModel | None:
        """Carry out a frame and return its reply, unless that is queued already."""
        try:
            if isinstance(frame, Resume):
                await _resume(self._socket, frame)
                return None
            return await _carry_out(self._socket, frame, self._hub.turns)
        except Exception as error:  # noqa: BLE001 - the answer says what it was
            return _answer_to(self._socket, frame, error)

    async def refuse(self, frame_id: str | None, error: MessagingError) -> None:
        """Answer a frame that can't be read."""
        await self._unanswered.at_most(0)
        await self._socket.reply(refusal(frame_id, error))

    def _send(self, frame: Send) -> None:
        draft = actions.Draft(self._socket.user, frame.room, frame.content, frame.client_id, frame.reply_to)
        self._unanswered.began()
        self._hub.sends.submit(self._socket.schema_name, draft, partial(self._sent, frame))

    def _sent(self, frame: Send, answer: SentMessage | Exception) -> None:
        self._unanswered.ended()
        if isinstance(answer, Exception):
            self._socket.tell(_answer_to(self._socket, frame, answer))
        else:
            self._socket.tell(
                SendReply(
                    id=frame.id,
                    room=frame.room,
                    message=SentPayload.model_validate(answer.message, from_attributes=True),
                    duplicate=answer.duplicate,
                )
            )


def refusal(frame_id: str | None, error: MessagingError) -> ErrorFrame:
    """Return the frame that tells a client what was wrong."""
    return ErrorFrame(id=frame_id, code=error.code, message=error.message, details=error.details)


def _answer_to(socket: Socket, frame: ClientFrame, error: Exception) -> ErrorFrame:
    if isinstance(error, MessagingError):
        return refusal(frame.id, error)
    logger.error("[%s] A %s frame of user %r failed.", socket.schema_name, frame.type, socket.user_id, exc_info=error)
    return ErrorFrame(id=frame.id, code="internal", message="Something went wrong here; try again.", details={})


async def _carry_out(socket: Socket, frame: _Carried, turns: Turns) -> BaseModel:
    schema_name, user = socket.schema_name, socket.user
    match frame:
        case Edit() | Delete() | Rename():
            return await carry_out_change(socket, frame, turns)
        case Revisions():
            return await read_revisions(socket, frame)
        case Read():
            return await move_read_position(socket, frame, turns)
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
    socket.stream_from({int(key): status.seq for key, status in statuses.items() if int(key) in socket.seats})


def _status(socket: Socket, room_id: int, position: Position) -> ResumeStatus:
    seat = socket.seats.get(room_id)
    if seat is None:
        return ResumeStatus(status="unfollowed" if socket.rooms_limited else "gone", seq=0)
    room = seat.room
    head = max(room.seq, seat.feed.head or 0)
    if position["epoch"] != room.epoch or position["seq"] > head:
        return ResumeStatus(status="reset", seq=room.seq)
    start = max(position["seq"], room.visible_after_seq)
    if head - start > messaging_settings.RESUME_LIMIT:
        return ResumeStatus(status="limited", seq=room.seq)
    return ResumeStatus(status="ok", seq=start)
