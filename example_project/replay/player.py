"""Plays one tenant's script with real clients. Runs in a process of its own, without Django."""

from __future__ import annotations

import asyncio
import gc
import random
import signal
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from replay.client import Account, Client, Endpoint, RefusedError, ReplyError
from replay.recorder import Record, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from replay.script import RoomScript

CONNECTING = 24  # handshakes under way at once
PROGRESS_INTERVAL = 0.5
SETTLE = 1.0
MAX_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything a player needs. `room_ids` go with `rooms`; `rate` is in messages/s, None is unlimited.

    `churn` is the share of the clients that lose their connection once during the run and come back. A play
    without any progress for `patience` seconds is given up.
    """

    tenant: str
    endpoint: Endpoint
    accounts: list[Account]
    rooms: list[RoomScript]
    room_ids: list[int]
    rate: float | None
    churn: float
    patience: float
    seed: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a player is. `connected` counts the clients that got through so far."""

    connected: int
    acked: int
    deliveries: int


class GaveUpError(Exception):
    """Nothing moved for too long, or the server refuses the clients."""


def play_in_process(job: Job, pipe: Connection) -> None:
    """Play `job` and send Progress objects, then the Record, through `pipe`; a str says why it broke off."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its players
    gc.freeze()
    try:
        pipe.send(asyncio.run(Player(job, pipe).play()))
    except GaveUpError as error:
        pipe.send(str(error))
    except BrokenPipeError:
        pass  # the parent is gone


class Player:
    """All clients of one tenant on one event loop."""

    def __init__(self, job: Job, pipe: Connection) -> None:
        self._job = job
        self._pipe = pipe
        self._random = random.Random(job.seed)  # noqa: S311 - repeatable, not secret
        members = {room_id: room.members for room_id, room in zip(job.room_ids, job.rooms, strict=True)}
        self._recorder = Recorder(members)
        self._record = self._recorder.record
        rooms_of: dict[int, set[int]] = {}
        for room_id, numbers in members.items():
            for number in numbers:
                rooms_of.setdefault(number, set()).add(room_id)
        self._clients = {
            number: Client(number, job.accounts[number], job.endpoint, self._recorder, rooms)
            for number, rooms in rooms_of.items()
        }
        self._connected = 0
        self._tickets = self._ticket_times()
        self._drops = self._drop_plan()

    async def play(self) -> Record:
        """Connect everybody, send everything, wait until everything arrived, disconnect."""
        gate = asyncio.Semaphore(CONNECTING)
        runs = [asyncio.create_task(client.run(gate)) for client in self._clients.values()]
        score = asyncio.create_task(self._score())
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([score, watch, *runs], return_when=asyncio.FIRST_COMPLETED)
            for task in (score, watch, *runs):
                if task.done():
                    task.result()
            watch.cancel()
            await asyncio.gather(*(client.stop() for client in self._clients.values()))
            await asyncio.wait(runs)
        except (RefusedError, GaveUpError) as error:
            if not self._record.acks:
                raise GaveUpError(str(error)) from error
            self._fault(str(error))
        finally:
            for task in (score, watch, *runs):
                task.cancel()
        return self._record

    async def _score(self) -> None:
        for client in self._clients.values():
            await client.wait_live()
            self._connected += 1
        self._record.first_sent = perf_counter()
        rooms = zip(self._job.room_ids, self._job.rooms, strict=True)
        heads = await asyncio.gather(*(self._play_room(room_id, room) for room_id, room in rooms))
        self._record.last_acked = perf_counter()
        for room_id, room, head in zip(self._job.room_ids, self._job.rooms, heads, strict=True):
            for number in room.members:
                await self._clients[number].wait_for(room_id, head)
        await asyncio.sleep(SETTLE)  # a duplicate comes late

    async def _play_room(self, room_id: int, room: RoomScript) -> int:
        """Send a room's messages in the order of the file, each once the one before is acknowledged."""
        acks = self._record.acks
        head = 0
        for part in room.parts:
            await self._pace()
            target = None if part.reply_to is None else acks.get(room.parts[part.reply_to].client_id)
            client = self._clients[part.sender]
            await client.wait_live()
            self._recorder.sent_at[part.client_id] = perf_counter()
            try:
                ack = await client.send_message(room_id, part.client_id, part.text, target and target[0])
            except ReplyError as error:
                self._fault(f"line {part.number}: {error}")
                continue
            acks[part.client_id] = ack
            head = max(head, ack[1])
            self._drop_if_due()
        return head

    async def _pace(self) -> None:
        delay = next(self._tickets) - perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)

    def _ticket_times(self) -> Iterator[float]:
        step = 1 / self._job.rate if self._job.rate else 0.0
        due = 0.0
        while True:
            due = max(due + step, perf_counter())
            yield due

    def _drop_plan(self) -> list[tuple[int, int]]:
        """After how many acknowledged messages which client is cut off, the last of the list first."""
        total = sum(len(room.parts) for room in self._job.rooms)
        chosen = self._random.sample(sorted(self._clients), round(self._job.churn * len(self._clients)))
        return sorted(((self._random.randrange(max(total, 1)), number) for number in chosen), reverse=True)

    def _drop_if_due(self) -> None:
        while self._drops and len(self._record.acks) > self._drops[-1][0]:
            self._clients[self._drops.pop()[1]].drop(self._random.uniform(0.05, 1.0))

    async def _watch(self) -> None:
        """Report progress; give up when there is none."""
        last: Progress | None = None
        moved = perf_counter()
        while True:
            progress = Progress(self._connected, len(self._record.acks), self._record.deliveries)
            self._pipe.send(progress)
            if progress != last:
                last, moved = progress, perf_counter()
            elif perf_counter() - moved > self._job.patience:
                raise GaveUpError(f"{self._job.tenant}: nothing moved for {self._job.patience:.0f} s ({progress}).")
            await asyncio.sleep(PROGRESS_INTERVAL)

    def _fault(self, text: str) -> None:
        if len(self._record.faults) < MAX_FAULTS:
            self._record.faults.append(text)
