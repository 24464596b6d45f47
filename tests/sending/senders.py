"""Who sends, and who is in the way, for the tests of sends on their way to the database."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from django_tenant_messaging.actions import Draft
from django_tenant_messaging.models import Message
from django_tenant_messaging.realtime.sending import Sends
from django_tenant_messaging.realtime.turns import Turns
from django_tenant_messaging.types import SentMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from django_tenant_messaging.realtime.hints import Hint
    from tests.harness.tenants import Tenant


PATIENCE = 20.0
ROOM = 1
MESSAGES = Message._meta.db_table


class Sender:
    """Sends as a hub's sockets do, and notes the answers in the order in which they come."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.tasks: set[asyncio.Task[None]] = set()
        self.published: list[Hint] = []
        self.turns = Turns()
        self.sends = self.new_sends()
        self.answers: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()
        self.on_answer: Callable[[Any], None] = lambda _answer: None

    def new_sends(self) -> Sends:
        """As a hub makes them when it starts."""
        return Sends(self._spawn, self.published.extend, self.turns)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def send(self, content: str, *, room: int = ROOM, user: str = "alice", **fields: Any) -> None:
        draft = Draft(self.tenant.users[user], room, content, **fields)
        self.sends.submit(self.tenant.schema_name, draft, partial(self._answered, content))

    def _answered(self, content: str, answer: Any) -> None:
        self.on_answer(answer)
        self.answers.append((content, answer))
        self._changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not is_true():
                self._changed.clear()
                await self._changed.wait()

    async def answered(self, number: int) -> list[Any]:
        """Wait for so many answers, and return them in the order in which they came."""
        await self.until(lambda: len(self.answers) >= number)
        return [answer for _content, answer in self.answers]

    async def finished(self) -> None:
        await self.sends.finished(PATIENCE)
        assert self.sends.is_idle
        while self.tasks:
            await asyncio.wait(self.tasks)

    @property
    def contents(self) -> list[str]:
        """What was sent and answered, in the order of the answers."""
        return [content for content, _answer in self.answers]


class Hold:
    """Somebody else's transaction, which holds locks until it ends."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], schema_name: str) -> None:
        self.connection = connection
        self.schema_name = schema_name

    async def table(self, table: str = MESSAGES) -> None:
        """Let nobody write to a table, so that every statement takes as long as this lasts."""
        await self.connection.execute(f'LOCK TABLE "{self.schema_name}".{table} IN EXCLUSIVE MODE')

    async def rows(self, model: Any, condition: str) -> None:
        """Lock rows, as a removal or somebody's send does."""
        cursor = await self.connection.execute(
            f'SELECT 1 FROM "{self.schema_name}".{model._meta.db_table} WHERE {condition} FOR UPDATE'
        )
        assert await cursor.fetchall()

    async def end(self) -> None:
        await self.connection.rollback()

    async def blocked(self, number: int) -> list[int]:
        """Wait until so many statements wait for a lock, and return their processes."""
        async with (
            asyncio.timeout(PATIENCE),
            await psycopg.AsyncConnection.connect(self.connection.info.dsn, autocommit=True) as watching,
        ):
            while True:
                cursor = await watching.execute(
                    "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                found = [pid for (pid,) in await cursor.fetchall()]
                if len(found) >= number:
                    return found
                await asyncio.sleep(0.01)


@contextmanager
def seeing(database_url: str) -> Iterator[Callable[[int], bool]]:
    """Whether a message is there for somebody else at this moment."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def is_there(message_id: int) -> bool:
            query = f'SELECT count(*) FROM "acme".{MESSAGES} WHERE id = %s'
            return connection.execute(query, [message_id]).fetchone() == (1,)

        yield is_there


def seqs(answers: list[Any]) -> list[int]:
    assert all(isinstance(answer, SentMessage) for answer in answers), answers
    return [answer.message.seq for answer in answers]


def timeline(room_id: int = ROOM) -> list[str]:
    return list(Message.objects.filter(room_id=room_id).order_by("seq").values_list("content", flat=True))
