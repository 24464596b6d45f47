"""Reading from the database what single sockets missed: after a resume, or when they read too slowly."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..conf import messaging_settings
from ..exceptions import MessagingError, NotFound
from ..selectors import Changes, access_membership, read_changes
from ..tenancy import run_in_tenant
from .close_codes import CloseCode
from .hints import hint_of, skip_to

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from django.contrib.auth.models import AbstractBaseUser

    from .socket import Socket

logger = logging.getLogger(__name__)

PAGE = 200


class CatchUp:
    """Runs at most one task for a socket, which goes through the rooms that are behind.

    ``on_return`` is called for a socket that was found to follow a room by what it no longer may.
    """

    def __init__(self, on_return: Callable[[Socket], None]) -> None:
        self._running: set[Socket] = set()
        self._on_return = on_return

    def start(self, socket: Socket, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """See to it that a socket's rooms are being caught up."""
        if socket not in self._running:
            self._running.add(socket)
            spawn(self._run(socket))

    async def _run(self, socket: Socket) -> None:
        try:
            while socket.behind and not socket.is_closing:
                await self._catch_up(socket, next(iter(socket.behind)))
        except MessagingError as error:
            logger.warning("[%s] A socket couldn't be caught up: %s", socket.schema_name, error)
            socket.close(CloseCode.UNAVAILABLE)
        except Exception:
            logger.exception("[%s] A socket couldn't be caught up.", socket.schema_name)
            socket.close(CloseCode.UNAVAILABLE)
        finally:
            self._running.discard(socket)

    async def _catch_up(self, socket: Socket, room_id: int) -> None:
        """Bring a room to its feed's head. It ends in the very step in which it sees that they are equal, so that
        no live event can fall between.
        """
        while room_id in socket.behind:
            seat = socket.seats[room_id]
            head, position = seat.feed.head or 0, seat.position
            if position >= head:
                socket.caught_up(room_id)
                return
            try:
                async with socket.outbox.turn_to_read():
                    changes = await run_in_tenant(socket.schema_name, _read, socket.user, room_id, position)
            except NotFound:
                socket.drop_room(room_id)
                self._on_return(socket)
                return
            if changes.seq <= position:
                # The feed is ahead of the database, which so holds another history now. The client finds out.
                socket.close(CloseCode.RESTART)
                return
            for event in changes.events:
                await socket.outbox.wait_for_room()
                if room_id not in socket.behind or socket.is_closing or socket.seats[room_id] is not seat:
                    break
                if seat.position != position:
                    # Another room's flood made the socket give up what waited; it has to be read again.
                    break
                socket.put_event(seat, hint_of(event))
                position = event.seq
            if socket.seats.get(room_id) is seat and seat.position == position < changes.seq:
                socket.put_event(seat, skip_to(socket.schema_name, room_id, after=position, seq=changes.seq))


def _read(user: AbstractBaseUser, room_id: int, after: int) -> Changes:
    changes = read_changes(room_id, after=after, limit=PAGE, most_bytes=messaging_settings.HISTORY_PAGE_BYTES)
    # Asked last: a member after the reading was one when everything that was read happened, unless they left and came
    # back. What they may see begins later then.
    if access_membership(user, room_id).visible_after_seq > after:
        raise NotFound("The user has left the room and joined it again.", room=room_id)
    return changes
