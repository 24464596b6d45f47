"""What is on its way to one client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from sys import getsizeof
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..conf import messaging_settings
from .close_codes import CloseCode

if TYPE_CHECKING:
    from .backlog import Backlog

AsgiSend = Callable[[dict[str, Any]], Awaitable[None]]

JOINED_FRAMES = 64
JOINED_CHARACTERS = 65_536


class Waiting(NamedTuple):
    """A text that waits to be written; ``room_id`` is 0 for what isn't part of a timeline."""

    text: str
    room_id: int
    after: int


class Outbox:
    """Writes to a client without ever making anybody else wait.

    As long as the server takes what it is given, a text is written in the very call that brings it. When it doesn't,
    because the client reads slowly, a task takes over, and what comes until it is through waits in a bounded queue.
    Texts that waited are joined: see :func:`joined`. They count by the memory that they take.
    """

    _held: ClassVar[list[Outbox] | None] = None
    """Those whose writes are held back at the moment."""

    __slots__ = (
        "_backlog",
        "_close_code",
        "_has_room",
        "_max_bytes",
        "_max_texts",
        "_on_end",
        "_patience",
        "_queue",
        "_queued_bytes",
        "_send",
        "is_broken",
        "writer",
    )

    def __init__(self, send: AsgiSend, on_end: Callable[[], None], backlog: Backlog) -> None:
        self._send = send
        self._on_end = on_end
        self._backlog = backlog
        self._queue: deque[Waiting] = deque()
        self._queued_bytes = 0
        self._has_room: asyncio.Event | None = None
        self._close_code: CloseCode | None = None
        # Asked at every delivery: looking the settings up each time took a quarter of the loop's time.
        self._max_texts = messaging_settings.SOCKET_QUEUE_EVENTS
        self._max_bytes = messaging_settings.SOCKET_QUEUE_BYTES
        self._patience = messaging_settings.SOCKET_STUCK_TIMEOUT
        self.writer: asyncio.Task[None] | None = None
        """Runs while the client makes the server wait."""
        self.is_broken = False
        """Whether the server refused a write: the client is gone."""

    def put(self, text: str, room_id: int = 0, after: int = 0) -> None:
        """Write a text, or queue it behind what waits, however much that is. Nothing follows a close."""
        if self._close_code is not None or self.is_broken:
            return
        if self.writer is None:
            if Outbox._held is None:
                self._write({"type": "websocket.send", "text": text})
                return
            if not self._queue:
                Outbox._held.append(self)
        self._queue.append(Waiting(text, room_id, after))
        size = getsizeof(text)
        self._queued_bytes += size
        self._backlog.bytes += size

    @staticmethod
    @contextmanager
    def together() -> Iterator[None]:
        """Write what is put into any outbox in the body after it, joined: one write for each client.

        The body must not wait for anything.
        """
        held: list[Outbox] = []
        Outbox._held = held
        try:
            yield
        finally:
            Outbox._held = None
            for outbox in held:
                while outbox._queue and outbox.writer is None:
                    outbox._write({"type": "websocket.send", "text": outbox._take()})

    @property
    def is_full(self) -> bool:
        """Whether more waits than a client may be behind."""
        return len(self._queue) >= self._max_texts or self._queued_bytes >= self._max_bytes

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits that nothing should be added that may be left out."""
        return len(self._queue) >= self._max_texts // 2 or self._queued_bytes >= self._max_bytes // 2

    @property
    def is_closing(self) -> bool:
        """Whether the socket is being closed from this side."""
        return self._close_code is not None

    async def wait_for_room(self) -> None:
        """Wait until the queue has room, and those of the user's other sockets have, or the socket is closed."""
        while self._must_wait():
            if self._has_room is None:
                self._has_room = asyncio.Event()
            self._backlog.wakes(self)
            try:
                await self._has_room.wait()
            finally:
                self._backlog.forget(self)

    @asynccontextmanager
    async def turn_to_read(self) -> AsyncIterator[None]:
        """Enter when there is room, and none of the user's other sockets reads.

        What is read in the body is to be put into the outbox there: then the next one sees how much waits.
        """
        while True:
            await self.wait_for_room()
            async with self._backlog.reading:
                if not self._must_wait():
                    yield
                    return

    def _must_wait(self) -> bool:
        return (self.is_full or self._backlog.is_full) and self._close_code is None and not self.is_broken

    def give_up_events(self) -> dict[int, int]:
        """Drop the events of timelines that wait; return for each room from which position on they were dropped."""
        positions: dict[int, int] = {}
        kept: deque[Waiting] = deque()
        for waiting in self._queue:
            if waiting.room_id:
                positions.setdefault(waiting.room_id, waiting.after)
            else:
                kept.append(waiting)
        self._queue = kept
        self._count_out(self._queued_bytes - sum(getsizeof(waiting.text) for waiting in kept))
        # The writer says so of what it takes only, and may find nothing more to take.
        self.tell_room()
        return positions

    def close(self, code: CloseCode) -> None:
        """Close the socket, leaving out what still waits."""
        if self._close_code is None:
            self._close_code = code
            self._empty()
            if self.writer is None and not self.is_broken:
                self._write(self._close_message())

    def reading_ended(self) -> None:
        """Nobody reads from the client any more, so nobody is told of the end of writing."""
        # A connection's objects are freed at once if they don't hold each other in a circle; else a server whose
        # clients come and go stops, the longer the more there are, for Python to look through all it holds.
        self._on_end = _nobody_is_told

    def _close_message(self) -> dict[str, Any]:
        return {"type": "websocket.close", "code": int(self._close_code or 0)}

    def _write(self, message: dict[str, Any]) -> None:
        steps = self._send(message).__await__()
        try:
            waited_for = next(steps)
        except StopIteration:
            if self._close_code is not None:
                self._on_end()
        except Exception:  # noqa: BLE001 - a client that vanished raises the server's own class
            self._break()
        else:
            size = getsizeof(message.get("text", ""))
            self._backlog.bytes += size
            self.writer = asyncio.get_running_loop().create_task(self._write_on(_Begun(steps, waited_for), size))

    async def _write_on(self, begun: Awaitable[None], size: int) -> None:
        try:
            try:
                await self._in_time(begun, size)
                while self._queue:
                    text = self._take()
                    self.tell_room()
                    self._backlog.bytes += getsizeof(text)
                    await self._in_time(self._send({"type": "websocket.send", "text": text}), getsizeof(text))
            except TimeoutError:
                # If it reads on after all, it hears why.
                self.close(CloseCode.TOO_SLOW)
            if self._close_code is not None:
                await self._in_time(self._send(self._close_message()))
                self._on_end()
        except Exception:  # noqa: BLE001 - a client that vanished raises the server's own class
            self._break()
        finally:
            self.writer = None

    async def _in_time(self, writing: Awaitable[None], size: int = 0) -> None:
        """Wait for a write, but not for ever, and count its bytes out of the backlog. Raises ``TimeoutError``."""
        try:
            async with asyncio.timeout(self._patience):
                await writing
        finally:
            self._backlog.freed(size)

    def _take(self) -> str:
        texts: list[str] = []
        characters = size = 0
        while self._queue and len(texts) < JOINED_FRAMES and characters < JOINED_CHARACTERS:
            text = self._queue.popleft().text
            characters += len(text)
            size += getsizeof(text)
            texts.append(text)
        self._count_out(size)
        return joined(texts)

    def _count_out(self, size: int) -> None:
        self._queued_bytes -= size
        self._backlog.freed(size)

    def _empty(self) -> None:
        self._queue.clear()
        self._count_out(self._queued_bytes)
        self.tell_room()

    def tell_room(self) -> None:
        """Let those look again who wait for room."""
        if self._has_room is not None:
            self._has_room.set()
            self._has_room = None

    def _break(self) -> None:
        self.is_broken = True
        self._empty()
        self._on_end()


def _nobody_is_told() -> None:
    pass


def joined(texts: list[str]) -> str:
    """Return several frames as one text: a JSON array of them. Arrays of frames may be among the texts."""
    if len(texts) == 1:
        return texts[0]
    return f"[{','.join(text[1:-1] if text[0] == '[' else text for text in texts)}]"


def joined_in_parts(texts: Iterable[str]) -> Iterator[str]:
    """Yield several frames as texts of a bounded size, each of one or more of them."""
    part: list[str] = []
    characters = 0
    for text in texts:
        part.append(text)
        characters += len(text)
        if len(part) == JOINED_FRAMES or characters >= JOINED_CHARACTERS:
            yield joined(part)
            part, characters = [], 0
    if part:
        yield joined(part)


class _Begun:
    """The rest of an awaitable whose first step was taken outside of any task."""

    __slots__ = ("_steps", "_waited_for")

    def __init__(self, steps: Generator[Any, Any, None], waited_for: Any) -> None:
        self._steps = steps
        self._waited_for = waited_for

    def __await__(self) -> Generator[Any, Any, None]:
        waited_for = self._waited_for
        while True:
            step = partial(self._steps.send, None)
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001 - it is handed on, a cancellation too
                step = partial(self._steps.throw, error)
            try:
                waited_for = step()
            except StopIteration:
                return
