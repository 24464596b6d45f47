"""Steady traffic: everybody writes, some repeat themselves, some ask for what they must not get."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict, deque
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.chaos.cast import EVERYBODY
from tests.chaos.chance import chance
from tests.chaos.history import Write

if TYPE_CHECKING:
    from tests.chaos.cast import Cast
    from tests.chaos.client import Client
    from tests.chaos.history import History

WORDS = ("soup", "ticket", "naïve", "Straße", "終電", "🚲", "cafe\u0301", "release", "noon", "<b>", "@all", "ok")
LONGEST = 10_000
MENTIONED = 0.1
"""How many messages mention somebody."""
MAX_OPEN = 30
"""Most writes that one client leaves unanswered."""


class Load:
    """Writes `rate` messages a second, over all tenants, until it is stopped."""

    def __init__(self, cast: Cast, history: History, rate: float) -> None:
        self.rate = rate
        self.size = 120
        """Mean length of a message, in characters."""
        self.edits = False
        """Whether messages are edited and deleted, and rooms renamed, as well."""
        self._cast = cast
        self._history = history
        self._numbers = count(1)
        self._open: dict[Client, set[asyncio.Task[None]]] = defaultdict(set)
        self._done: deque[tuple[Client, Write]] = deque(maxlen=200)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, patience: float) -> int:
        """Write no more, and wait for the answers; say how many are missing after `patience` seconds."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        waiting = [task for tasks in self._open.values() for task in tasks]
        if not waiting:
            return 0
        _, pending = await asyncio.wait(waiting, timeout=patience)
        for task in pending:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return len(pending)

    async def _run(self) -> None:
        due = monotonic()
        while True:
            due += chance.expovariate(self.rate)
            await asyncio.sleep(max(0.0, due - monotonic()))
            # After a hang of the runner itself the past isn't made up for.
            due = max(due, monotonic() - 1.0)
            self._step()

    def _step(self) -> None:
        client = chance.choice(self._cast.clients)
        if not client.rooms or len(self._open[client]) >= MAX_OPEN:
            return
        match chance.random():
            case share if share < 0.02:
                self._repeat()
            case share if share < 0.03:
                self._trespass(client)
            case share if share < 0.08:
                self._sign(client)
            case share if share < 0.14 and self.edits:
                self._change()
            case share if share < 0.15 and self.edits:
                self._rename(client)
            case _:
                self._send(client)

    def _send(self, client: Client) -> None:
        rooms = list(client.rooms)
        room = EVERYBODY if EVERYBODY in rooms and chance.random() < 0.5 else chance.choice(rooms)
        self._perform(client, self._new(client, room, str(uuid.uuid4()), self._text(client, room)))

    def _repeat(self) -> None:
        """Send again what was acknowledged: the same answer, or with another text a conflict."""
        if self._done:
            client, write = chance.choice(self._done)
            if write.kind == "send" and write.room in client.rooms:
                if chance.random() < 0.5:
                    self._perform(client, write)
                else:
                    text = self._text(client, write.room)
                    self._perform(client, self._new(client, write.room, write.client_id, text))

    def _trespass(self, client: Client) -> None:
        """Write to a room in which the user is not, or nothing at all."""
        others = [room for tenant, room in self._history.members if tenant == client.receiver.tenant]
        strange = [
            room for room in others if client.receiver.user not in self._history.members[client.receiver.tenant, room]
        ]
        if strange and chance.random() < 0.7:
            room = chance.choice(strange)
            self._perform(client, self._new(client, room, str(uuid.uuid4()), self._text(client, room)))
        else:
            room = chance.choice(list(client.rooms))
            self._perform(client, self._new(client, room, str(uuid.uuid4()), " "))

    def _change(self) -> None:
        """Edit or delete a message of one's own."""
        if self._done:
            client, write = chance.choice(self._done)
            if write.room in client.rooms:
                kind: Any = "edit" if chance.random() < 0.8 else "delete"
                text = self._text(client, write.room) if kind == "edit" else ""
                self._perform(client, self._new(client, write.room, "", text, kind, write.answers[0].message_id))

    def _rename(self, client: Client) -> None:
        room = chance.choice(list(client.rooms))
        name = f"{client.receiver.tenant} {room} {next(self._numbers)}"
        self._perform(client, self._new(client, room, "", name, "rename"))

    def _sign(self, client: Client) -> None:
        receiver = client.receiver
        if receiver.user in self._cast.habits[receiver.tenant].signing:
            room = chance.choice(list(client.rooms))
            if chance.random() < 0.5:
                frame: dict[str, Any] = {"type": "typing", "room": room, "is_typing": chance.random() < 0.7}
            else:
                frame = {"type": "read", "room": room, "seq": client.rooms[room].seq}
            self._spawn(client, client.tell(frame))

    def _new(
        self, client: Client, room: int, client_id: str, text: str, kind: Any = "send", message_id: int | None = None
    ) -> Write:
        receiver = client.receiver
        write = Write(receiver.tenant, room, receiver.user, kind, text, monotonic(), client_id, message_id)
        self._history.writes.append(write)
        return write

    def _text(self, client: Client, room: int) -> str:
        number = f"{client.receiver.tenant} {room} {next(self._numbers)} "
        length = min(LONGEST, int(chance.expovariate(1 / self.size)))
        words = chance.choices(WORDS, k=1 + length // 5)
        if chance.random() < MENTIONED:
            words.insert(0, f"@{chance.choice(self._cast.users)}")
        return (number + " ".join(words))[: max(length, len(number))].strip()

    def _perform(self, client: Client, write: Write) -> None:
        self._spawn(client, self._see_through(client, write))

    async def _see_through(self, client: Client, write: Write) -> None:
        await client.perform(write)
        if write.answers and write.kind == "send":
            self._done.append((client, write))

    def _spawn(self, client: Client, work: Any) -> None:
        task = asyncio.create_task(work)
        self._open[client].add(task)
        task.add_done_callback(self._open[client].discard)
