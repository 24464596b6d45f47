"""A client of the protocol `tenant-messaging.v1`: one socket for all rooms, resumed where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Origin, Subprotocol

if TYPE_CHECKING:
    from replay.recorder import Delivery, Recorder

SUBPROTOCOL = Subprotocol("tenant-messaging.v1")
FINAL_CLOSE_CODES = frozenset({4400, 4401, 4403, 4404, 4406, 4413})
RETRIED_ERRORS = frozenset({"unavailable"})
OPEN_TIMEOUT = 30.0
REPLY_TIMEOUT = 60.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
HEAD_PATIENCE = 5.0
CLOSE_TIMEOUT = 5.0
READ_AHEAD = 256
PAGE = 100

_jitter = random.Random()  # noqa: S311 - no secret


class RefusedError(Exception):
    """The server refuses this client, and would do so again."""


class ReplyError(Exception):
    """A frame was answered with an error. `code` is the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a tenant is served: the address to dial and the domain to name."""

    host: str
    port: int
    domain: str
    cookie: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        return f"{self.domain}:{self.port}"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the tenant with a session."""

    user_id: str
    username: str
    session: str


@dataclass(slots=True)
class Position:
    """How far a client is in a room."""

    epoch: str
    seq: int

    def as_frame(self) -> dict[str, str | int]:
        """The form in which a resume sends it."""
        return {"epoch": self.epoch, "seq": self.seq}


class Client:
    """One user's socket. `run` keeps it connected until `stop`; the requests wait for their reply."""

    def __init__(self, number: int, account: Account, endpoint: Endpoint, recorder: Recorder, rooms: set[int]) -> None:
        self.number = number
        self.account = account
        self.positions: dict[int, Position] = {}
        self._endpoint = endpoint
        self._recorder = recorder
        self._rooms = rooms
        self._socket: ClientConnection | None = None
        self._live = asyncio.Event()
        self._live_since = 0.0
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._held: dict[int, list[Delivery]] = {}
        self._helpers: set[asyncio.Task[None]] = set()
        self._next_id = 0
        self._away = 0.0
        self._stopped = asyncio.Event()
        self._lost_track = False

    async def run(self, gate: asyncio.Semaphore) -> None:
        """Connect, receive, reconnect. Raises RefusedError when the server wants no further try."""
        failures = 0
        while not self._stopped.is_set():
            try:
                async with gate:
                    socket = await self._open()
                failures = 0
                await self._converse(socket)
            except InvalidStatus as error:
                if error.response.status_code < 500 and error.response.status_code != 429:
                    raise RefusedError(f"{self.account.username}: HTTP {error.response.status_code}") from error
                failures += 1
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                if code in FINAL_CLOSE_CODES:
                    raise RefusedError(f"{self.account.username}: closed with {code}") from error
                self._recorder.record.dropped += not (self._stopped.is_set() or self._away)
                failures += 1
            except (OSError, TimeoutError, InvalidHandshake):
                failures += 1
            finally:
                self._disconnected()
            if self._stopped.is_set():
                return
            away, self._away = self._away, 0.0
            await asyncio.sleep(away or _jitter.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 8))))

    async def wait_live(self) -> None:
        """Wait until the socket is open and resumed."""
        await self._live.wait()

    async def wait_for(self, room: int, seq: int) -> None:
        """Wait until the client's position in `room` is at least `seq`."""
        # Asked once a room, at the end: cheaper than an event to set at every delivery.
        while (position := self.positions.get(room)) is None or position.seq < seq:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Close for good."""
        self._stopped.set()
        if self._socket is not None:
            await self._socket.close()

    def drop(self, away: float) -> None:
        """Cut the connection as a lost network does and stay away for `away` seconds."""
        if self._socket is not None and self._live.is_set():
            self._away = away
            self._recorder.record.reconnects += 1
            self._socket.transport.abort()

    async def request(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Send a frame, again after a pause where it is too much at once, and return its `ok`.

        Raises ReplyError when it is answered with an error, ConnectionError or websockets' ConnectionClosed
        when the socket is lost, TimeoutError when no reply comes.
        """
        if self._socket is None:
            raise ConnectionError("not connected")
        while (reply := await self._ask(self._socket, frame))["type"] == "error":
            if reply["code"] != "rate_limited":
                raise ReplyError(reply["code"], reply["message"])
            await asyncio.sleep(reply["details"]["retry_after"])
        return reply

    async def _ask(self, socket: ClientConnection, frame: dict[str, Any]) -> dict[str, Any]:
        self._next_id += 1
        key = str(self._next_id)
        future = self._replies[key] = asyncio.get_running_loop().create_future()
        try:
            await socket.send(json.dumps({**frame, "id": key}))
            return await asyncio.wait_for(future, REPLY_TIMEOUT)
        finally:
            self._replies.pop(key, None)

    async def send_message(self, room: int, client_id: str, text: str, reply_to: int | None) -> tuple[int, int]:
        """Send a message until it is acknowledged, always with the same client id. Returns its id and seq."""
        frame = {"type": "send", "room": room, "client_id": client_id, "content": text, "reply_to": reply_to}
        while True:
            await self.wait_live()
            try:
                message = (await self.request(frame))["message"]
            except (ConnectionClosed, ConnectionError, TimeoutError):
                await asyncio.sleep(0.01)
            except ReplyError as error:
                if error.code not in RETRIED_ERRORS:
                    raise
                await asyncio.sleep(_jitter.uniform(0, FIRST_PAUSE))
            else:
                return message["id"], message["seq"]

    async def _open(self) -> ClientConnection:
        endpoint = self._endpoint
        return await connect(
            f"ws://{endpoint.authority}/ws/messages/",
            host=endpoint.host,
            port=endpoint.port,
            origin=Origin(f"http://{endpoint.authority}"),
            subprotocols=[SUBPROTOCOL],
            additional_headers={"Cookie": f"{endpoint.cookie}={self.account.session}"},
            compression=None,
            ping_interval=None,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            max_queue=READ_AHEAD,
            proxy=None,
        )

    async def _converse(self, socket: ClientConnection) -> None:
        hello = json.loads(await socket.recv())
        if hello["type"] != "hello":
            raise RefusedError(f"{self.account.username}: the first frame is {hello['type']!r}, not 'hello'")
        known = {}
        for room in hello["rooms"]:
            if room["id"] in self._rooms and room["id"] in self.positions:
                known[str(room["id"])] = self.positions[room["id"]].as_frame()
            else:
                self.positions[room["id"]] = Position(room["epoch"], room["seq"])
        await socket.send(json.dumps({"type": "resume", "id": "resume", "positions": known}))
        early: list[bytes] = []
        while not _is_resumed(frame := json.loads(raw := await socket.recv(decode=False))):
            early.append(raw)
        self._socket = socket
        self._resumed(frame)
        cached = self._recorder.cached
        for raw in early:
            self._event(raw)
        while not self._lost_track:
            raw = await socket.recv(decode=False)
            delivery = cached(raw)
            if delivery is None:
                self._event(raw)
            else:
                self._deliver(delivery)

    def _resumed(self, reply: dict[str, Any]) -> None:
        if reply["type"] == "error":
            raise RefusedError(f"{self.account.username}: resume answered {reply['code']}: {reply['message']}")
        for key, state in reply["rooms"].items():
            match state["status"]:
                case "ok":
                    pass
                case "limited":
                    self._held[int(key)] = []
                    task = asyncio.create_task(self._page(int(key), state["seq"]))
                    self._helpers.add(task)
                    task.add_done_callback(self._helpers.discard)
                case status:
                    raise RefusedError(f"{self.account.username}: room {key} can't be resumed: {status}")
        self._live_since = perf_counter()
        self._live.set()

    async def _page(self, room: int, head: int) -> None:
        """Fetch what lies between the own position and `head`, then take the events that came meanwhile."""
        self._recorder.record.pages += 1
        position = self.positions[room]
        more = True
        try:
            while more:
                page = await self.request({"type": "history", "room": room, "after": position.seq, "limit": PAGE})
                for message in page["messages"]:
                    if message["seq"] <= head:
                        self._take(self._recorder.decode({"room": room, "seq": message["seq"], "message": message}))
                more = page["has_after"] and page["messages"][-1]["seq"] < head
        except (ConnectionClosed, ConnectionError, TimeoutError, ReplyError):
            self._resync()
            return
        position.seq = max(position.seq, head)
        for delivery in self._held.pop(room):
            self._deliver(delivery)

    def _event(self, raw: bytes) -> None:
        frames = json.loads(raw)
        if isinstance(frames, list):
            for frame in frames:
                self._frame(frame)
        else:
            self._frame(frames, raw)

    def _frame(self, frame: dict[str, Any], raw: bytes | None = None) -> None:
        match frame["type"]:
            case "message":
                self._deliver(self._recorder.decode(frame, raw))
            case "ok" | "error":
                future = self._replies.get(frame["id"] or "")
                if future is not None and not future.done():
                    future.set_result(frame)
            case "members" | "skip":
                self._advance(frame["room"], frame.get("after", frame["seq"] - 1), frame["seq"])
            case "room_added":
                room = frame["room"]
                self.positions[room["id"]] = Position(room["epoch"], room["seq"])
            case "heartbeat":
                self._heartbeat(frame["heads"])

    def _deliver(self, delivery: Delivery) -> None:
        held = self._held.get(delivery.room)
        if held is not None:
            held.append(delivery)
            return
        position = self.positions.get(delivery.room)
        if (
            position is None
            or delivery.seq <= position.seq
            or self._advance(delivery.room, delivery.after, delivery.seq)
        ):
            self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        self._recorder.note(self.number, self.account.user_id, delivery, self._live_since)
        position = self.positions.get(delivery.room)
        if position is not None and delivery.seq > position.seq:
            position.seq = delivery.seq

    def _advance(self, room: int, after: int, seq: int) -> bool:
        """Move the position of a room. A frame that doesn't join on to it means loss: the client resumes."""
        position = self.positions.get(room)
        if position is None or seq <= position.seq:
            return True
        if after != position.seq:
            self._recorder.record.gaps += 1
            self._resync()
            return False
        position.seq = seq
        return True

    def _heartbeat(self, heads: dict[str, int]) -> None:
        loop = asyncio.get_running_loop()
        for key, head in heads.items():
            position = self.positions.get(int(key))
            if position is not None and head > position.seq:
                loop.call_later(HEAD_PATIENCE, self._expect, self._socket, position, head)
        task = asyncio.create_task(self._ping())
        self._helpers.add(task)
        task.add_done_callback(self._helpers.discard)

    def _expect(self, socket: ClientConnection | None, position: Position, head: int) -> None:
        if socket is self._socket and position.seq < head:
            self._recorder.record.gaps += 1
            self._resync()

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionClosed, ConnectionError, TimeoutError, ReplyError):
            await self.request({"type": "ping"})

    def _resync(self) -> None:
        self._lost_track = True
        if self._socket is not None:
            self._socket.transport.abort()

    def _disconnected(self) -> None:
        self._lost_track = False
        self._live.clear()
        self._socket = None
        self._held.clear()
        for task in self._helpers:
            task.cancel()
        for future in self._replies.values():
            if not future.done():
                future.set_exception(ConnectionError("the connection was lost"))


def _is_resumed(frame: dict[str, Any] | list[dict[str, Any]]) -> bool:
    return isinstance(frame, dict) and frame.get("id") == "resume"
