"""Which rooms each socket follows: those that its user is in, up to a bound."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..conf import messaging_settings
from ..exceptions import MessagingError
from ..payloads.sizes import bytes_of_room, bytes_of_user, fitting
from ..selectors import (
    MAX_CONTACTS,
    access_room,
    online_contacts_of,
    room_positions,
    room_positions_of,
    rooms_among,
)
from ..tenancy import run_in_tenant
from .batching import Batches
from .close_codes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.contrib.auth.models import AbstractBaseUser

    from ..types import RoomPosition, UserRef
    from .hub import Hub
    from .socket import Socket

logger = logging.getLogger(__name__)


class Online(NamedTuple):
    """The online users who share a room with a user, and whether there are more than these."""

    users: Sequence[UserRef]
    is_limited: bool


class _Welcome(NamedTuple):
    """What a fresh socket starts with."""

    rooms: list[RoomPosition]
    is_limited: bool
    passed_over: set[int]
    online: Online


class Following:
    """Keeps sockets in line with the rooms that their users are in.

    A socket starts with ``MAX_ROOMS_PER_SOCKET`` rooms at most, those with the latest activity, and with no more than
    its hello has the bytes for. Rooms that its user joins or uses later come on top. At twice as many it is closed for
    a fresh start, with the latest of that moment.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._welcomes: Batches[AbstractBaseUser, _Welcome] = Batches(hub.spawn, _read_welcomes)
        self._refreshing: set[tuple[str, str]] = set()
        self._stale: set[tuple[str, str]] = set()

    async def enter(self, socket: Socket) -> Online:
        """Read a fresh socket's rooms; return who is online among those that its user shares a room with."""
        with self._hub.listening():
            welcome = await self._welcomes.ask(socket.schema_name, socket.user)
            socket.rooms_limited, socket.passed_over = welcome.is_limited, welcome.passed_over
            for room in welcome.rooms:
                socket.enter_room(room, self._hub.feed_at(socket.schema_name, room))
        return welcome.online

    async def use(self, socket: Socket, room_id: int) -> None:
        """Follow a room that the client of a limited socket uses, if the user is in it."""
        if not room_id or room_id in socket.seats:
            return
        with self._hub.listening():
            try:
                room = await run_in_tenant(socket.schema_name, access_room, socket.user, room_id)
            except MessagingError:
                return  # what the client wants of the room will fail as well, and say why
            if room_id not in socket.seats and self._has_place(socket, len(socket.seats) + 1):
                socket.add_room(room, self._hub.feed_at(socket.schema_name, room))

    async def refresh(self, schema_name: str, user_id: str) -> None:
        """Bring the sockets of a user in line with the rooms that the user is in.

        One at a time for a user: of two at once, the one that read earlier could have the last word.
        """
        key = schema_name, user_id
        self._stale.add(key)
        if key in self._refreshing:
            return
        self._refreshing.add(key)
        try:
            while key in self._stale:
                self._stale.discard(key)
                await self._refresh(schema_name, user_id)
        except MessagingError as error:
            logger.warning("[%s] The rooms of user %r couldn't be read: %s", schema_name, user_id, error)
        finally:
            self._refreshing.discard(key)
            self._stale.discard(key)

    async def _refresh(self, schema_name: str, user_id: str) -> None:
        sockets = list(self._hub.sockets.get((schema_name, user_id), ()))
        for socket in sockets:
            socket.rooms_changed = not socket.is_welcomed
        if not any(socket.is_welcomed for socket in sockets):
            return
        with self._hub.listening():
            rooms = {room.room_id: room for room in await self._read_rooms(schema_name, sockets)}
            for socket in self._hub.welcomed_sockets(schema_name, user_id):
                self._bring_in_line(socket, rooms)

    async def _read_rooms(self, schema_name: str, sockets: list[Socket]) -> list[RoomPosition]:
        user = sockets[0].user
        if any(socket.rooms_limited for socket in sockets):
            followed = {room_id for socket in sockets for room_id in socket.seats}
            return await run_in_tenant(schema_name, rooms_among, user, followed)
        # One more than there is a place for says that there are too many.
        limit = 2 * messaging_settings.MAX_ROOMS_PER_SOCKET + 1
        return await run_in_tenant(schema_name, partial(room_positions, user, limit=limit))

    def _bring_in_line(self, socket: Socket, found: dict[int, RoomPosition]) -> None:
        rooms = {
            room_id: room
            for room_id, room in found.items()
            if room_id in socket.seats or room_id not in socket.passed_over
        }
        if not self._has_place(socket, len(rooms)):
            return
        for room_id in socket.seats.keys() - rooms.keys():
            socket.drop_room(room_id)
        for room_id in sorted(rooms.keys() - socket.seats.keys()):
            room = rooms[room_id]
            if room.seq - room.joined_seq <= messaging_settings.RESUME_LIMIT:
                room = replace(room, seq=room.joined_seq)
            socket.add_room(room, self._hub.feed_at(socket.schema_name, rooms[room_id]))

    def _has_place(self, socket: Socket, number: int) -> bool:
        """Say whether a socket can follow so many rooms; else let its client start afresh."""
        if number <= 2 * messaging_settings.MAX_ROOMS_PER_SOCKET:
            return True
        socket.close(CloseCode.RESTART)
        return False


def _read_welcomes(_schema_name: str, users: Sequence[AbstractBaseUser]) -> list[_Welcome]:
    """Read what fresh sockets of these users start with; two statements, and more for who is in very many rooms."""
    most = messaging_settings.MAX_ROOMS_PER_SOCKET
    rooms_of_each = room_positions_of(users, limit=most + 1)
    online_of_each = online_contacts_of(users, limit=MAX_CONTACTS + 1)
    welcomes: list[_Welcome] = []
    for user, found, online in zip(users, rooms_of_each, online_of_each, strict=True):
        rooms, passed_over = _told(found), set[int]()
        is_limited = len(rooms) < len(found)
        if is_limited:
            # Before the rooms: what is joined in between is among the latest, or is noticed as new.
            passed_over = {room.room_id for room in rooms_among(user, ())}
            rooms = _told(room_positions(user, limit=most))
            passed_over.difference_update(room.room_id for room in rooms)
        by_id = sorted(rooms, key=lambda room: room.room_id)
        welcomes.append(_Welcome(by_id, is_limited, passed_over, _told_online(online)))
    return welcomes


def _told(rooms: Sequence[RoomPosition]) -> Sequence[RoomPosition]:
    """Return those rooms that a hello names."""
    some = rooms[: messaging_settings.MAX_ROOMS_PER_SOCKET]
    return fitting(some, bytes_of_room, messaging_settings.HISTORY_PAGE_BYTES * 3 // 4)


def _told_online(users: Sequence[UserRef]) -> Online:
    told = fitting(users[:MAX_CONTACTS], bytes_of_user, messaging_settings.HISTORY_PAGE_BYTES // 4)
    return Online(told, len(told) < len(users))
