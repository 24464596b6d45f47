"""Any course of writing, losing, joining, leaving and reading slowly: every client ends with what is its own.

The hub with its feeds, sockets and catching up is the real one. The database is a list, so that thousands of courses
can be tried; what it answers is what the selectors promise.
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import ExitStack
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from django.test import override_settings

from django_tenant_messaging.events import MembersChanged, MessagePosted
from django_tenant_messaging.exceptions import NotFound
from django_tenant_messaging.payloads import Position, Resume
from django_tenant_messaging.realtime import batching, catchup, following, hub
from django_tenant_messaging.realtime.backlog import Backlog
from django_tenant_messaging.realtime.commands import Commands
from django_tenant_messaging.realtime.handshake import Standing
from django_tenant_messaging.realtime.hints import Hint, hint_of
from django_tenant_messaging.realtime.socket import Socket
from django_tenant_messaging.selectors import Changes
from django_tenant_messaging.tenancy import Login
from django_tenant_messaging.types import MessageData, RoomPosition, UserRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOM = 1
EPOCH = "epoch"
USERS = ("1", "2", "3")
QUEUE = 8


class Room:
    """The room as the database has it. Of each member only the last change is kept, as in its tables."""

    def __init__(self) -> None:
        self.head = 0
        self.messages: dict[int, str] = {}
        self.joined = dict.fromkeys(USERS, 0)
        self.left: dict[str, int] = {}
        self.absent: list[tuple[str, int, int]] = []

    def post(self, author: str) -> MessagePosted:
        self.head += 1
        self.messages[self.head] = author
        return self._posted(self.head, self.head - 1)

    def leave(self, user: str) -> MembersChanged:
        self.head += 1
        self.left[user] = self.head
        return MembersChanged("acme", ROOM, self.head, self.head - 1, (), (UserRef(user, user),))

    def join(self, user: str) -> MembersChanged:
        self.head += 1
        self.joined[user] = self.head
        self.absent.append((user, self.left.pop(user), self.head))
        return MembersChanged("acme", ROOM, self.head, self.head - 1, (UserRef(user, user),), ())

    def may_see(self, user: str, seq: int) -> bool:
        """Whether a message was written while the user was a member."""
        if seq > self.left.get(user, self.head):
            return False
        return not any(name == user and start < seq <= end for name, start, end in self.absent)

    def _posted(self, seq: int, after: int) -> MessagePosted:
        author = UserRef(self.messages[seq], self.messages[seq])
        now = datetime(2026, 1, 1, tzinfo=UTC)
        fields: dict[str, Any] = dict.fromkeys(MessageData.__dataclass_fields__)
        fields |= {"id": seq, "room_id": ROOM, "seq": seq, "changed_seq": seq, "client_id": f"{seq}", "sender": author}
        fields |= {"content": f"{seq}", "timestamp": now, "mentioned_users": (), "is_broadcast": True, "is_read": False}
        return MessagePosted("acme", ROOM, seq, after, MessageData(**fields))

    # What the selectors answer

    def read_changes(self, _room_id: int, *, after: int, limit: int, **_bound: int) -> Changes:
        messages = [seq for seq in self.messages if after < seq <= self.head]
        complete = len(messages) <= limit
        end = self.head if complete else messages[limit - 1]
        found: dict[int, Any] = dict.fromkeys(messages[:limit])
        for user in USERS:
            last = self.left.get(user, self.joined[user])
            if after < last <= end:
                ref = (UserRef(user, user),)
                joined, left = ((), ref) if user in self.left else (ref, ())
                found[last] = MembersChanged("acme", ROOM, last, 0, joined, left)
        events: list[Any] = []
        for seq in sorted(found):
            event = found[seq]
            events.append(
                self._posted(seq, after)
                if event is None
                else MembersChanged("acme", ROOM, seq, after, event.joined, event.left)
            )
            after = seq
        return Changes(tuple(events), end, complete)

    def read_returns(self, _room_id: int, *, after: int) -> dict[str, int]:
        return {user: seq for user, seq in self.joined.items() if seq > after}

    def access_room(self, user: Any, room_id: int) -> RoomPosition:
        if user.pk in self.left:
            raise NotFound("There is no such room.", room=room_id)
        joined = self.joined[user.pk]
        return RoomPosition(ROOM, "group", "room", EPOCH, self.head, 0, joined, joined)

    def room_positions(self, user: Any, **_limit: Any) -> list[RoomPosition]:
        return [] if user.pk in self.left else [self.access_room(user, ROOM)]

    def room_positions_of(self, users: Sequence[Any], **_limit: Any) -> list[list[RoomPosition]]:
        return [self.room_positions(user) for user in users]


class Client:
    """What a client does with what it gets: frames that don't follow each other are a mistake."""

    def __init__(self, course: Course, user_id: str) -> None:
        self.course = course
        self.user_id = user_id
        self.position: int | None = None
        self.got: list[int] = []
        self.since = 0
        self.turns: asyncio.Semaphore | None = None
        self.closed = False
        user: Any = SimpleNamespace(pk=user_id)
        self.socket = Socket(
            schema_name="acme",
            standing=Standing(user, Login(None, ""), "", ""),
            scope={},
            send=self.take,
            catch_up=course.hub.catch_up,
            on_end=lambda: None,
            backlog=Backlog(),
        )
        self.commands = Commands(self.socket, course.hub)

    async def take(self, event: Any) -> None:
        if self.turns is not None:
            await self.turns.acquire()
        if event["type"] == "websocket.close":
            self.closed = True
            return
        found = json.loads(event["text"])
        for frame in found if isinstance(found, list) else [found]:
            try:
                self.apply(frame)
            except AssertionError as error:
                # Else it would pass for a client that is gone.
                self.course.mistakes.append(error)
                raise

    def apply(self, frame: Any) -> None:
        match frame["type"]:
            case "room_removed":
                self.position = None
            case "room_added":
                self.since = self.position = frame["room"]["seq"]
            case "ok":
                status = frame["rooms"].get(str(ROOM), {"status": "none"})
                if status["status"] != "gone" and self.position is not None:
                    self.since = self.position = status.get("seq", self.position)
            case _:
                assert frame["after"] == self.position, (frame, self.position)
                self.position = frame["seq"]
                if frame["type"] == "message":
                    message = frame["message"]
                    assert message["is_own_message"] is (message["sender"]["id"] == self.user_id)
                    assert self.course.room.may_see(self.user_id, frame["seq"]), frame
                    self.got.append(frame["seq"])

    def stop_reading(self) -> None:
        if self.turns is None:
            self.turns = asyncio.Semaphore(0)

    def read(self) -> None:
        turns, self.turns = self.turns, None
        if turns is not None:
            turns.release()


class Course:
    """A process and what happens to it."""

    def __init__(self) -> None:
        self.room = Room()
        self.hub = hub.Hub()
        self.air: list[Hint] = []
        self.clients: list[Client] = []
        self.mistakes: list[AssertionError] = []

    async def begin(self) -> None:
        """Each user has two sockets that have resumed."""
        for number in range(6):
            await self.connect(number)
            await self.resume(1)

    # What may happen

    def post(self, number: int) -> None:
        members = [user for user in USERS if user not in self.room.left]
        if members:
            self.air.append(hint_of(self.room.post(members[number % len(members)])))

    def post_many(self, number: int) -> None:
        for _ in range(number % 40):
            self.post(number)

    def leave(self, number: int) -> None:
        user = USERS[number % 3]
        if user not in self.room.left:
            self.air += [hint_of(self.room.leave(user)), Hint("acme", "user", user, "")]

    def join(self, number: int) -> None:
        user = USERS[number % 3]
        if user in self.room.left:
            self.air += [hint_of(self.room.join(user)), Hint("acme", "user", user, "")]

    def deliver(self, number: int) -> None:
        """Some hints arrive together."""
        number %= 6
        arriving, self.air = self.air[: number + 1], self.air[number + 1 :]
        self.hub._dispatch("acme", arriving)

    def deliver_all(self, _number: int) -> None:
        """Everything arrives together."""
        arriving, self.air = self.air, []
        self.hub._dispatch("acme", arriving)

    def deliver_late(self, number: int) -> None:
        """One that was overtaken arrives, and one twice."""
        if self.air:
            late = self.air.pop(number % len(self.air))
            self.hub._dispatch("acme", [late, late])

    def lose(self, number: int) -> None:
        if self.air:
            self.air.pop(number % len(self.air))

    def compare(self, _number: int) -> None:
        """The comparison with the database finds where it is, and who joined of late."""
        joins = {(user, ROOM) for user in USERS if self.room.joined[user] and user not in self.room.left}
        self.hub.follow("acme", {ROOM: self.room.head}, joins)

    async def connect(self, number: int) -> None:
        client = Client(self, USERS[number % 3])
        self.clients.append(client)
        socket = client.socket
        self.hub.sockets["acme", socket.user_id].add(socket)
        await self.hub.following.enter(socket)
        for seat in socket.seats.values():
            client.since = client.position = seat.room.seq
        self.hub.welcomed(socket)

    async def resume(self, number: int) -> None:
        waiting = [client for client in self.clients if not client.socket.is_streaming]
        if waiting:
            client = waiting[number % len(waiting)]
            positions = {} if number % 2 else {str(ROOM): Position(epoch=EPOCH, seq=number % (self.room.head + 1))}
            await client.commands.carry_out(Resume(type="resume", id="1", positions=positions))

    def stop_reading(self, number: int) -> None:
        if self.clients:
            self.clients[number % len(self.clients)].stop_reading()

    def read(self, number: int) -> None:
        if self.clients:
            self.clients[number % len(self.clients)].read()

    async def wait(self, number: int) -> None:
        for _ in range(number % 8):
            await asyncio.sleep(0)

    # The end

    async def finish(self) -> None:
        """Everybody reads, everybody has resumed, and the comparison finds what was lost."""
        self.air.clear()
        for client in self.clients:
            client.read()
        for number in range(2 * len(self.clients)):
            await self.resume(number)
        for _ in range(4):
            self.compare(0)
            for user in USERS:
                # What a lost hint would have said; the next comparison or connection finds it.
                self.hub._dispatch("acme", [Hint("acme", "user", user, "")])
            await self.settle()

    async def settle(self) -> None:
        for _ in range(10_000):
            writing = [client for client in self.clients if client.socket.outbox.writer is not None]
            if not self.hub._background and not writing:
                return
            await asyncio.sleep(0)
        raise AssertionError("it never comes to rest")

    def check(self) -> None:
        for mistake in self.mistakes:
            raise mistake
        for client in self.clients:
            assert not client.closed
            assert client.got == sorted(set(client.got))
            if client.user_id in self.room.left:
                assert client.position is None
                assert client.socket.seats == {}
                continue
            assert client.position == self.room.head
            expected = [seq for seq in self.room.messages if seq > client.since]
            assert [seq for seq in client.got if seq > client.since] == expected


async def at_once(_schema_name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Ask the database, which takes a moment before and after."""
    await asyncio.sleep(0)
    result = function(*args, **kwargs)
    await asyncio.sleep(0)
    return result


def patches(room: Room) -> Iterator[Any]:
    for module in (hub, following, batching, catchup):
        yield patch.object(module, "run_in_tenant", at_once)
    for module in (hub, catchup):
        yield patch.object(module, "read_changes", room.read_changes)
    yield patch.object(hub, "read_returns", room.read_returns)
    yield patch.object(catchup, "access_membership", room.access_room)
    yield patch.object(following, "room_positions", room.room_positions)
    yield patch.object(following, "room_positions_of", room.room_positions_of)
    yield patch.object(following, "online_contacts_of", lambda users, **_: [[] for _ in users])
    yield patch.object(hub, "GAP_PATIENCE", 0)
    yield patch.object(hub, "FILL_PAGE", 7)
    yield patch.object(catchup, "PAGE", 5)


STEPS = [
    Course.post,
    Course.post_many,
    Course.leave,
    Course.join,
    Course.deliver,
    Course.deliver_all,
    Course.deliver_late,
    Course.lose,
    Course.compare,
    Course.connect,
    Course.resume,
    Course.stop_reading,
    Course.read,
    Course.wait,
]
Steps = list[tuple[Any, int]]


def random_steps(seed: int) -> Steps:
    """A long course: interesting states need many steps, more than are tried when small ones are preferred."""
    dice = random.Random(seed)  # noqa: S311 - the same course each time
    likely = [dice.random() for _ in STEPS]
    return [(step, dice.randrange(60)) for step in dice.choices(STEPS, likely, k=150)]


def play(steps: Steps) -> None:
    async def played() -> None:
        with ExitStack() as stack:
            course = Course()
            for patched in patches(course.room):
                stack.enter_context(patched)
            await course.begin()
            for step, number in steps:
                done = step(course, number)
                if done is not None:
                    await done
            await course.finish()
            course.check()

    with override_settings(TENANT_MESSAGING={"SOCKET_QUEUE_EVENTS": QUEUE}):
        asyncio.run(played())


@pytest.mark.parametrize("seed", range(150))
def test_every_client_ends_with_what_is_its_own(seed: int) -> None:
    play(random_steps(seed))


def test_what_was_written_while_one_was_away_stays_secret() -> None:
    """Of the removal and the return the process hears nothing until the client resumes."""
    away = [(Course.leave, 1), (Course.post, 0), (Course.join, 1), *[(Course.lose, 0)] * 6]
    play([(Course.connect, 1), (Course.post, 0), *away, (Course.resume, 0)])


def test_more_at_once_than_is_held_back_for_a_gap() -> None:
    play([*[(Course.post_many, 39)] * 10, (Course.deliver_all, 0)])


def test_a_socket_that_is_ahead_gets_what_follows_without_being_caught_up() -> None:
    """It came with a head of which the process hears later: up to there it has everything."""

    async def played() -> None:
        with ExitStack() as stack:
            course = Course()
            for patched in patches(course.room):
                stack.enter_context(patched)
            await course.begin()
            course.post_many(3)
            await course.connect(0)
            await course.resume(1)
            ahead = course.clients[-1].socket
            feed = course.hub.feeds["acme", ROOM]
            assert list(feed.ahead) == [ahead]
            course.deliver_all(0)
            assert feed.ahead == {}
            assert ahead in feed.live
            assert course.hub._catch_up._running == set()
            course.post(0)
            course.deliver_all(0)
            assert course.clients[-1].got == [4]
            course.check()

    asyncio.run(played())
