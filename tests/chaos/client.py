"""A client of the protocol `tenant-messaging.v1`, written from its documentation, that records all it gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.chaos.chance import chance
from tests.chaos.frames import Entry, shown
from tests.chaos.history import Answer, Ended, Got, Page, Sign, Started, Told

if TYPE_CHECKING:
    from tests.chaos.frames import Decoder, Frame, Shown
    from tests.chaos.history import Event, Receiver, Write

SUBPROTOCOL = Subprotocol("tenant-messaging.v1")
FINAL_CODES = frozenset({4400, 4401, 4403, 4404, 4406, 4413})
OPEN_ENDED = frozenset({"unavailable", "internal"})
"""Errors that leave open whether something was changed."""
PASSING = frozenset({"rate_limited", "tenant_not_ready"}) | OPEN_ENDED
"""Errors after which the same may be asked again."""
OPEN_TIMEOUT = 10.0
HEAD_PATIENCE = 6.0
PAGE = 200
RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a tenant is served, and the session that opens it."""

    host: str
    port: int
    cookie: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Place:
    """How far a client has a room."""

    epoch: str
    seq: int
    behind_since: float | None = None


class LostError(Exception):
    """The connection ended before the reply."""


class RefusedError(Exception):
    """A frame was answered with an error."""

    def __init__(self, code: str, details: dict[str, Any]) -> None:
        super().__init__(code)
        self.code = code
        self.retry_after = float(details.get("retry_after") or 0)


class Client:
    """One device of a user. `run` keeps it connected until it is stopped; `perform` sees a write through."""

    def __init__(self, entrance: Entrance, receiver: Receiver, decoder: Decoder, *, longest_pause: float = 2.0) -> None:
        self.receiver = receiver
        self.rooms: dict[int, Place] = {}
        self.live = asyncio.Event()
        self.longest_pause = longest_pause
        self.is_patient = False
        """Whether a connection is kept on which nothing comes."""
        self.entrance = entrance
        self._decoder = decoder
        self._socket: ClientConnection | None = None
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._ids = count(1)
        self._unread: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._interval = 25.0
        self._heard = 0.0
        self._out_of_step = ""

    # Being connected

    async def run(self) -> None:
        """Connect, listen and reconnect, until `stop` or until the server refuses for good."""
        failures = 0
        while not (self._stopping or self.receiver.refused):
            try:
                socket = await self._connect()
            except InvalidStatus as error:
                if error.response.status_code < 500:
                    self.receiver.refused = f"HTTP {error.response.status_code}"
                failures += 1
            except (OSError, TimeoutError, EOFError, InvalidHandshake):
                failures += 1
            else:
                how = await self._listen(socket)
                failures = 0 if self.live.is_set() else failures + 1
                self._forget_connection(how)
            if not self._stopping:
                await asyncio.sleep(chance.uniform(0, min(self.longest_pause, 0.25 * 2 ** min(failures, 8))))

    async def stop(self) -> None:
        """Disconnect for good."""
        self._stopping = True
        if self._socket is not None:
            await self._socket.close()
            self.drop()
        for task in list(self._tasks):
            task.cancel()

    def drop(self) -> None:
        """Cut the connection, as a network does."""
        if self._socket is not None:
            self._socket.transport.abort()

    @property
    def port(self) -> int:
        """The own port of the connection, 0 without one."""
        return 0 if self._socket is None else int(self._socket.local_address[1])

    async def _connect(self) -> ClientConnection:
        return await connect(
            f"ws://{self.entrance.authority}/ws/messages/",
            host="127.0.0.1",
            port=self.entrance.port,
            origin=Origin(f"http://{self.entrance.authority}"),
            subprotocols=[SUBPROTOCOL],
            additional_headers={"Cookie": self.entrance.cookie},
            compression=None,
            ping_interval=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=1,
            max_size=None,
            max_queue=256,
            proxy=None,
        )

    async def _listen(self, socket: ClientConnection) -> str:
        """Take what comes until the connection ends; say how it did."""
        self._socket, self._heard, self._out_of_step = socket, monotonic(), ""
        keeper = asyncio.create_task(self._keep_alive(socket))
        try:
            while not self._out_of_step:
                raw = await socket.recv(decode=False)
                self._heard = monotonic()
                for frame in self._decoder.read(raw):
                    self._take(frame)
            socket.transport.abort()
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            if code in FINAL_CODES:
                self.receiver.refused = f"closed with {code}"
            return f"{code}"
        finally:
            keeper.cancel()
        return self._out_of_step

    def _forget_connection(self, how: str) -> None:
        self.receiver.lost.append((monotonic(), how))
        self._socket = None
        self.live.clear()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(LostError(how))
        self._replies.clear()

    async def _keep_alive(self, socket: ClientConnection) -> None:
        """Show that the client is there; give up a connection on which nothing comes."""
        pinged = monotonic()
        while True:
            await asyncio.sleep(min(1.0, self._interval / 4))
            now = monotonic()
            if now - self._heard > 3 * self._interval and not self.is_patient:
                socket.transport.abort()
            if self.live.is_set() and now - pinged >= self._interval:
                pinged = now
                await self._say({"type": "ping", "id": f"ping{next(self._ids)}"})

    # Taking what comes

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, Entry):
            self._entry(frame)
            return
        match frame["type"]:
            case "ok" | "error" if frame["id"] == RESUME:
                self._resumed(frame)
            case "ok" | "error":
                self._reply(frame)
            case "heartbeat":
                self._compare(frame["heads"])
            case "hello":
                self._hello(frame)
            case "room_added":
                room = frame["room"]
                self._start(room["id"], room["epoch"], room["seq"], "added")
                self._catch_up()
            case "room_removed":
                self._end(frame["room"])
            case _:
                self._pass_by(frame)

    def _pass_by(self, frame: dict[str, Any]) -> None:
        """Take what isn't part of a timeline."""
        match frame["type"]:
            case "presence" if frame["is_online"]:
                self.receiver.online.add(frame["user"]["username"])
            case "notification":
                told = frame["notification"]
                self._note(Told(monotonic(), told["room"], told["message_id"], told["text"]))
            case "typing" | "read":
                self._note(Sign(monotonic(), frame["type"], frame["room"], frame["user"]["username"]))

    def _note(self, event: Event) -> None:
        self.receiver.events.append(event)

    def _entry(self, entry: Entry) -> None:
        self._note(Got(self._heard, entry))
        place = self.rooms.get(entry.room)
        if place is None or entry.after != place.seq:
            self._out_of_step = f"room {entry.room}: {place and place.seq} is followed by {entry.after}-{entry.seq}"
        else:
            place.seq = entry.seq

    def _hello(self, frame: dict[str, Any]) -> None:
        self._interval = frame["heartbeat_interval"]
        self.receiver.online.update(user["username"] for user in frame["online"])
        named = {room["id"]: room for room in frame["rooms"]}
        for room_id in set(self.rooms) - set(named):
            self._end(room_id)
        known = {key: place for key, place in self.rooms.items() if place.epoch == named[key]["epoch"]}
        for room_id, room in named.items():
            if room_id not in known:
                self._start(room_id, room["epoch"], room["seq"], "hello")
        positions = {str(key): {"epoch": place.epoch, "seq": place.seq} for key, place in known.items()}
        self._spawn(self._say({"type": "resume", "id": RESUME, "positions": positions}))

    async def _say(self, frame: dict[str, Any]) -> None:
        if self._socket is not None:
            with contextlib.suppress(ConnectionClosed):
                await self._socket.send(json.dumps(frame))

    def _resumed(self, reply: dict[str, Any]) -> None:
        """Take the answer to a resume at once, as events may follow in the next frame."""
        if reply["type"] == "error":
            self._out_of_step = f"resume: {reply['code']}"
            return
        for key, state in reply["rooms"].items():
            room_id = int(key)
            match state["status"]:
                case "gone":
                    self._end(room_id)
                case how if room_id in self.rooms:
                    self._start(room_id, self.rooms[room_id].epoch, state["seq"], how)
        self.receiver.resumed.append(monotonic())
        self.live.set()
        self._catch_up()

    def _start(self, room_id: int, epoch: str, seq: int, how: Any) -> None:
        self.rooms[room_id] = Place(epoch, seq)
        self._note(Started(monotonic(), room_id, epoch, seq, how))
        if how != "ok" and seq:
            self._unread.add(room_id)

    def _end(self, room_id: int) -> None:
        self._unread.discard(room_id)
        if self.rooms.pop(room_id, None) is not None:
            self._note(Ended(monotonic(), room_id))

    def _compare(self, heads: dict[str, int]) -> None:
        """Reconnect when the server says that there is more than it sends."""
        now = monotonic()
        for key, head in heads.items():
            place = self.rooms.get(int(key))
            if place is None or not self.live.is_set() or place.seq >= head:
                if place is not None:
                    place.behind_since = None
            elif place.behind_since is None:
                place.behind_since = now
            elif now - place.behind_since > HEAD_PATIENCE:
                self._out_of_step = f"room {key}: {place.seq} stays behind {head}"

    # Reading pages

    def _catch_up(self) -> None:
        if self.live.is_set():
            for room_id in list(self._unread):
                self._spawn(self._read_missed(room_id))

    async def _read_missed(self, room_id: int) -> None:
        with contextlib.suppress(LostError, RefusedError):
            page = await self.read_history(room_id)
            self._unread.discard(room_id)
            self._note(page)

    async def read_history(self, room_id: int, *, final: bool = False) -> Page:
        """All that may be seen of a room. Raises LostError or RefusedError."""
        found: list[Shown] = []
        after, head = 0, None
        while True:
            frame = {"type": "history", "room": room_id, "after": after, "limit": PAGE}
            reply = await self._patiently(frame)
            # What the first page shows is as of its head at least; changes after that come as events.
            head = reply["seq"] if head is None else head
            found += map(shown, reply["messages"])
            if not (reply["has_after"] and reply["messages"]):
                return Page(monotonic(), room_id, head, tuple(found), final)
            after = found[-1].place

    async def _patiently(self, frame: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                return await self._ask(frame)
            except RefusedError as error:
                if error.code not in PASSING:
                    raise
                await asyncio.sleep(error.retry_after + chance.uniform(0.1, 0.5))

    # Asking

    async def perform(self, write: Write, *, once: bool = False) -> None:
        """Ask for a write until it is answered; with `once` try a single time."""
        while not self._stopping:
            await self.live.wait()
            write.unsettled += 1
            pause = 0.0
            try:
                reply = await self._ask(_frame_of(write))
            except LostError:
                pass
            except RefusedError as error:
                write.unsettled -= error.code not in OPEN_ENDED
                if error.code not in PASSING:
                    write.refusals.append(error.code)
                    return
                write.postponed.append(error.code)
                pause = error.retry_after + chance.uniform(0.05, 0.4)
            else:
                write.unsettled -= 1
                write.answers.append(_answer(write, reply))
                return
            if once:
                return
            await asyncio.sleep(pause)

    async def tell(self, frame: dict[str, Any]) -> None:
        """Ask for something that may be lost."""
        with contextlib.suppress(LostError, RefusedError):
            await self._ask(frame)

    async def _ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        socket = self._socket
        if socket is None:
            raise LostError("not connected")
        frame_id = str(next(self._ids))
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._replies[frame_id] = reply
        try:
            await socket.send(json.dumps({**frame, "id": frame_id}))
            return await reply
        except ConnectionClosed as error:
            raise LostError(str(error)) from error
        finally:
            self._replies.pop(frame_id, None)
            if reply.done() and not reply.cancelled():
                reply.exception()

    def _reply(self, frame: dict[str, Any]) -> None:
        reply = self._replies.get(frame["id"] or "")
        if reply is None or reply.done():
            return
        if frame["type"] == "error":
            reply.set_exception(RefusedError(frame["code"], frame["details"]))
        else:
            reply.set_result(frame)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _frame_of(write: Write) -> dict[str, Any]:
    match write.kind:
        case "send":
            return {"type": "send", "room": write.room, "client_id": write.client_id, "content": write.text}
        case "edit":
            return {"type": "edit", "room": write.room, "message_id": write.message_id, "content": write.text}
        case "rename":
            return {"type": "rename", "room": write.room, "name": write.text}
        case _:
            return {"type": "delete", "room": write.room, "message_id": write.message_id}


def _answer(write: Write, reply: dict[str, Any]) -> Answer:
    if write.kind == "rename":
        return Answer(0, 0, monotonic())
    message = reply["message"]
    seq = message["seq"] if write.kind == "send" else message["changed_seq"]
    return Answer(message["id"], seq, monotonic())
