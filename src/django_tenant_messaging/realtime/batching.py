"""Questions that many connections ask at once, and that the database answers together."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from ..conf import messaging_settings
from ..exceptions import MessagingError, Unavailable
from ..tenancy import run_in_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MAX_BATCH = 100
"""Most questions of one call: what all of them wait for."""
MOST_CALLS = 2
"""Most calls into a tenant at a time: while one waits for the database, or for its turn, the other one goes on."""


class _Question(NamedTuple):
    item: Any
    answer: asyncio.Future[Any]


class Batches(Generic[Item, Answer]):
    """Calls into tenants, of which two run at a time in each tenant: what is asked meanwhile goes into the next.

    ``work`` runs in the tenant and gets its name and the items; it returns an answer for each. When it raises, each
    item is tried alone, so that a bad one spoils nothing for others; an error of ours, such as a database that doesn't
    answer, is everybody's at once.
    """

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        work: Callable[[str, Sequence[Item]], Sequence[Answer]],
    ) -> None:
        self._spawn = spawn
        self._work = work
        self._waiting: dict[str, deque[_Question]] = {}
        self._calls: Counter[str] = Counter()

    async def ask(self, schema_name: str, item: Item) -> Answer:
        """Return the answer to an item, read after this call.

        Raises what the work raises, and :class:`~django_tenant_messaging.exceptions.Unavailable` when
        ``DATABASE_QUEUE_LIMIT`` items of the tenant wait already, or the hub stops.
        """
        waiting = self._waiting.setdefault(schema_name, deque())
        if len(waiting) >= messaging_settings.DATABASE_QUEUE_LIMIT:
            raise Unavailable("Too much is waiting for the database; try again.")
        question = _Question(item, asyncio.get_running_loop().create_future())
        waiting.append(question)
        if self._calls[schema_name] < MOST_CALLS:
            self._calls[schema_name] += 1
            self._spawn(self._run(schema_name, waiting))
        answer: Answer = await question.answer
        return answer

    async def _run(self, schema_name: str, waiting: deque[_Question]) -> None:
        batch: list[_Question] = []
        try:
            while waiting:
                batch = [waiting.popleft() for _ in range(min(MAX_BATCH, len(waiting)))]
                await self._answer(schema_name, batch)
        finally:
            self._calls[schema_name] -= 1
            stopped = Unavailable("The server is being restarted; try again.")
            _fail(batch, stopped)
            if not self._calls[schema_name]:
                del self._waiting[schema_name], self._calls[schema_name]
                _fail(waiting, stopped)

    async def _answer(self, schema_name: str, batch: list[_Question]) -> None:
        try:
            answers = await run_in_tenant(schema_name, self._work, schema_name, [asked.item for asked in batch])
        except Exception as error:  # noqa: BLE001 - handed on to whoever asked
            if len(batch) == 1 or isinstance(error, MessagingError):
                _fail(batch, error)
                return
            for asked in batch:
                await self._answer(schema_name, [asked])
            return
        for asked, answer in zip(batch, answers, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(answer)


def _fail(batch: Iterable[_Question], error: Exception) -> None:
    for asked in batch:
        if not asked.answer.done():
            asked.answer.set_exception(error)
