"""Sends on their way to the database: what comes while a commit runs goes into the next statement."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..actions import send_messages, send_messages_where_free
from ..exceptions import Unavailable
from ..tenancy import run_in_tenant
from .gathering import gathered_hints
from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ..actions import Draft
    from ..types import SentMessage
    from .hints import Hint
    from .turns import Turns

logger = logging.getLogger(__name__)

MAX_BATCH = 100
"""Most messages of one statement. Larger ones gain nothing: at 100 the commit is a hundredth of the cost."""
MAX_BATCH_CHARACTERS = 1_000_000
ROOM_SHARE = 8
"""Messages that a room may have in a statement, however many other rooms wait. What is committed together is one frame
for each client, and the clients' next messages come together too. With more a room would wait longer for its turn."""
MAX_PASSED_OVER = 4
"""Statements that may find a room locked, one after the other, before one waits for it alone."""
MAX_STATEMENTS = 2
"""Most statements of one tenant that run at a time."""

Answered = Callable[["SentMessage | Exception"], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A draft, and what to do with its answer, which comes after the commit."""

    draft: Draft
    answered: Answered


class Sends:
    """The sends of a process: a lane for each tenant that has any on their way."""

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        publish: Callable[[list[Hint]], None],
        turns: Turns,
    ) -> None:
        self._spawn = spawn
        self._publish = publish
        self._turns = turns
        self._lanes: dict[str, Lane] = {}
        self._lane_ended: asyncio.Event | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._lanes

    async def finished(self, patience: float) -> None:
        """Wait, at most so many seconds, until nothing is on its way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._lanes:
                    self._lane_ended = asyncio.Event()
                    await self._lane_ended.wait()

    def submit(self, schema_name: str, draft: Draft, answered: Answered) -> None:
        """Send a message; ``answered`` is called with what :func:`~..actions.send_message` returns or raises."""
        lane = self._lanes.get(schema_name)
        if lane is None:
            end = partial(self._end_lane, schema_name)
            lane = self._lanes[schema_name] = Lane(schema_name, self._spawn, self._publish, self._turns, end)
        lane.submit(Request(draft, answered))

    def _end_lane(self, schema_name: str) -> None:
        self._lanes.pop(schema_name, None)
        if self._lane_ended is not None:
            self._lane_ended.set()


class Lane:
    """The sends of a tenant.

    Up to ``MAX_STATEMENTS`` run at a time, so that the database writes while the next is prepared, but never two for
    the same room: its messages are written in the order in which they came, and nobody waits for a lock of our own.
    What comes meanwhile shares the next statement, some of each room's; what is left of a room's waits for its next
    turn. A room that is met locked, as another process just writes to it, is tried again with the next statements; one
    that somebody keeps locked gets a task of its own that waits for it.
    """

    def __init__(
        self,
        schema_name: str,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        publish: Callable[[list[Hint]], None],
        turns: Turns,
        on_end: Callable[[], None],
    ) -> None:
        self._schema_name = schema_name
        self._spawn = spawn
        self._publish = publish
        self._turns = turns
        self._on_end = on_end
        self._pending: dict[int, deque[Request]] = {}
        """What waits, by room."""
        self._taken: dict[int, deque[Request]] = {}
        """The same of rooms that something is being written to."""
        self._met_locked: dict[int, int] = {}
        """How often each room was met locked in a row."""
        self._statements = 0

    def submit(self, request: Request) -> None:
        """Send a message, with the next statement."""
        room_id = request.draft.room_id
        waiting = self._taken.get(room_id)
        if waiting is None:
            waiting = self._pending.setdefault(room_id, deque())
        waiting.append(request)
        self._go_on()

    def _go_on(self) -> None:
        while self._pending and self._statements < MAX_STATEMENTS:
            self._statements += 1
            self._spawn(self._write(self._take()))
        if not self._pending and not self._taken:
            self._on_end()

    def _take(self) -> list[Request]:
        """Return what goes into the next statement, of each room in turn."""
        batch: list[Request] = []
        characters = 0
        share = max(ROOM_SHARE, MAX_BATCH // len(self._pending))
        while self._pending and len(batch) < MAX_BATCH and characters < MAX_BATCH_CHARACTERS:
            room_id = next(iter(self._pending))
            waiting = self._taken[room_id] = self._pending.pop(room_id)
            for _ in range(min(share, len(waiting), MAX_BATCH - len(batch))):
                batch.append(waiting.popleft())
                characters += len(batch[-1].draft.content)
                if characters >= MAX_BATCH_CHARACTERS:
                    break
        return batch

    async def _write(self, batch: list[Request]) -> None:
        locked: dict[int, list[Request]] = {}
        answers, hints = await self._asked(send_messages_where_free, batch)
        for request, answer in zip(batch, answers, strict=True):
            if answer is None:
                locked.setdefault(request.draft.room_id, []).append(request)
        self._hand_out(batch, answers, hints)
        self._statements -= 1
        rooms = {request.draft.room_id for request in batch}
        for room_id in rooms:
            if room_id not in locked:
                self._met_locked.pop(room_id, None)
                self._release(room_id)
                continue
            self._taken[room_id].extendleft(reversed(locked[room_id]))
            # Alone there is nobody else to keep waiting.
            if len(rooms) == 1 or self._is_still_locked(room_id):
                self._spawn(self._write_locked(room_id))
            else:
                self._release(room_id)
        self._go_on()

    def _is_still_locked(self, room_id: int) -> bool:
        """Say whether a room was met locked so often that it isn't just being written to by another process."""
        times = self._met_locked.pop(room_id, 0) + 1
        if times == MAX_PASSED_OVER:
            return True
        self._met_locked[room_id] = times
        return False

    async def _write_locked(self, room_id: int) -> None:
        """Write to a room that somebody else has locked, waiting for it.

        One statement, then it takes its turn among the others again: a busy room that is written to by several
        processes is often met locked, and mustn't keep a place from other rooms for as long as it is busy.
        """
        waiting = self._taken[room_id]
        have_waited = len(waiting)
        try:
            async with self._turns.of_room(self._schema_name, room_id):
                batch = [waiting.popleft() for _ in range(min(MAX_BATCH, len(waiting)))]
                answers, hints = await self._asked(send_messages, batch)
                self._hand_out(batch, answers, hints)
        except Unavailable as error:
            batch = [waiting.popleft() for _ in range(have_waited)]
            self._hand_out(batch, [error] * have_waited, [])
        except asyncio.CancelledError:
            self._give_up([])
            raise
        self._release(room_id)
        self._go_on()

    async def _asked(
        self, send: Callable[[Sequence[Draft]], Sequence[Any]], batch: list[Request]
    ) -> tuple[Sequence[SentMessage | Exception | None], list[Hint]]:
        """Return the answers to a batch, and what to tell the members; whatever kept all of it from being sent is the
        answer to each.
        """
        hints: list[Hint] = []
        try:
            with gathered_hints() as hints:
                answers = await run_in_tenant(self._schema_name, partial(send, [request.draft for request in batch]))
        except asyncio.CancelledError:
            self._give_up(batch)
            raise
        except Exception as error:  # noqa: BLE001 - handed on to whoever is answered
            answers = [error] * len(batch)
        return answers, hints

    def _give_up(self, batch: list[Request]) -> None:
        """The server stops: say so to all who wait. What was on its way may be written or not."""
        given_up = [
            *batch,
            *(request for queue in (self._taken, self._pending) for of in queue.values() for request in of),
        ]
        self._taken.clear()
        self._pending.clear()
        for request in given_up:
            _answer(request, Unavailable("The server is being restarted; try again."))
        self._on_end()

    def _hand_out(
        self, batch: Sequence[Request], answers: Sequence[SentMessage | Exception | None], hints: list[Hint]
    ) -> None:
        """Tell the members and the senders, each client at once."""
        with Outbox.together():
            try:
                self._publish(hints)
            except Exception:
                logger.exception("[%s] What was sent couldn't be handed out.", self._schema_name)
            for request, answer in zip(batch, answers, strict=True):
                if answer is not None:
                    _answer(request, answer)

    def _release(self, room_id: int) -> None:
        waiting = self._taken.pop(room_id)
        if waiting:
            self._pending[room_id] = waiting


def _answer(request: Request, answer: SentMessage | Exception) -> None:
    try:
        request.answered(answer)
    except Exception:
        logger.exception("An answer to a send couldn't be given.")
