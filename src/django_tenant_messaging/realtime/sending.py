"""Sends on their way to the database: what comes while a commit runs goes into the next statement."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..actions import send_messages, send_messages_where_free
from ..conf import messaging_settings
from ..tenancy import run_in_tenant

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from ..actions import Draft
    from ..types import SentMessage

logger = logging.getLogger(__name__)

MAX_BATCH = 100
"""Most messages of one statement. Larger ones gain nothing: at 100 the commit is a hundredth of the cost."""
MAX_BATCH_CHARACTERS = 1_000_000

Answered = Callable[["SentMessage | Exception"], None]


@dataclass(frozen=True, slots=True)
class Request:
    """A draft, and what to do with its answer, which comes after the commit."""

    draft: Draft
    answered: Answered


class Sends:
    """The sends of a process: one lane for each tenant, and one for each room that somebody else keeps locked.

    A lane runs one statement at a time. What is alone goes at once. Messages of one sender to one room are written in
    the order in which they came.
    """

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._lanes: dict[str, deque[Request]] = {}
        self._rooms: dict[tuple[str, int], deque[Request]] = {}
        # Each waits in a thread of its own, of which there are few.
        self._waiting_rooms = asyncio.Semaphore(max(1, messaging_settings.DATABASE_THREADS // 4))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._lanes and not self._rooms

    def submit(self, schema_name: str, draft: Draft, answered: Answered) -> None:
        """Send a message; ``answered`` is called with what :func:`~..actions.send_message` returns or raises."""
        request = Request(draft, answered)
        lane = self._lanes.get(schema_name)
        if lane is not None:
            lane.append(request)
        else:
            self._lanes[schema_name] = deque([request])
            self._spawn(self._run(schema_name))

    async def _run(self, schema_name: str) -> None:
        lane = self._lanes[schema_name]
        try:
            while lane:
                batch = [request for request in _take(lane) if not self._joins_room(schema_name, request)]
                if not batch:
                    continue
                answers = await _ask(schema_name, send_messages_where_free, batch)
                for request, answer in zip(batch, answers, strict=True):
                    if answer is None:
                        self._wait_for_room(schema_name, request)
                    else:
                        _answer(request, answer)
        finally:
            del self._lanes[schema_name]

    def _joins_room(self, schema_name: str, request: Request) -> bool:
        """Let a message wait behind those that wait for its room already; say whether there are any."""
        waiting = self._rooms.get((schema_name, request.draft.room_id))
        if waiting is None:
            return False
        waiting.append(request)
        return True

    def _wait_for_room(self, schema_name: str, request: Request) -> None:
        if not self._joins_room(schema_name, request):
            key = schema_name, request.draft.room_id
            self._rooms[key] = deque([request])
            self._spawn(self._run_room(key))

    async def _run_room(self, key: tuple[str, int]) -> None:
        waiting = self._rooms[key]
        try:
            async with self._waiting_rooms:
                while waiting:
                    batch = _take(waiting)
                    answers = await _ask(key[0], send_messages, batch)
                    for request, answer in zip(batch, answers, strict=True):
                        _answer(request, answer)
        finally:
            del self._rooms[key]


def _take(waiting: deque[Request]) -> list[Request]:
    batch: list[Request] = []
    characters = 0
    while waiting and len(batch) < MAX_BATCH and characters < MAX_BATCH_CHARACTERS:
        request = waiting.popleft()
        characters += len(request.draft.content)
        batch.append(request)
    return batch


def _answer(request: Request, answer: SentMessage | Exception) -> None:
    try:
        request.answered(answer)
    except Exception:
        logger.exception("An answer to a send couldn't be given.")


async def _ask(schema_name: str, send: Callable[[Sequence[Draft]], Any], batch: Sequence[Request]) -> Any:
    """Return the answers to a batch; whatever kept all of it from being sent is the answer to each."""
    try:
        return await run_in_tenant(schema_name, partial(send, [request.draft for request in batch]))
    except Exception as error:  # noqa: BLE001 - handed on to whoever is answered
        return [error] * len(batch)
