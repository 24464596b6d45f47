"""Sends on their way to the database: together when they have to wait, at once when not, each answered once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from uuid import uuid4

import psycopg
import pytest

from django_tenant_messaging import actions, signals
from django_tenant_messaging.actions import Draft, sending
from django_tenant_messaging.exceptions import Conflict, Invalid, NotFound, Unavailable
from django_tenant_messaging.models import Membership, Message, RoomCounter
from django_tenant_messaging.realtime import hub, publisher
from django_tenant_messaging.realtime import sending as realtime_sending
from django_tenant_messaging.realtime.commands import MAX_UNANSWERED
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.realtime.sending import MAX_BATCH, MAX_PASSED_OVER, MAX_STATEMENTS, Sends
from django_tenant_messaging.tenancy import close_executor, run_in_tenant
from django_tenant_messaging.types import SentMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from django_tenant_messaging.realtime.hints import Hint
    from tests.harness.peer import Peers
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
        self.sends = self.new_sends()
        self.answers: list[tuple[str, Any]] = []
        self._changed = asyncio.Event()
        self.on_answer: Callable[[Any], None] = lambda _answer: None

    def new_sends(self) -> Sends:
        """As a hub makes them when it starts."""
        return Sends(self._spawn, self.published.extend)

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


@pytest.fixture
def rooms(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> list[int]:
    """Nine rooms of alice, bob and carol in both tenants, 1 to 9."""
    numbers = list(range(1, 10))
    for tenant in (acme, globex):
        with tenant.activated():
            first, *others = (tenant.users[name] for name in people)
            made = [actions.create_room(first, name=f"{number}", members=others).pk for number in numbers]
            assert made == numbers
    return numbers


@pytest.fixture
async def sender(acme: Tenant, rooms: list[int]) -> AsyncIterator[Sender]:
    sender = Sender(acme)
    yield sender
    for task in list(sender.tasks):
        task.cancel()
    await asyncio.gather(*sender.tasks, return_exceptions=True)
    await asyncio.to_thread(close_executor)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, str]]]:
    """The statements that wrote, each as the rooms and texts of its messages."""
    execute, found = sending._execute, []

    def counting(rows: Any, locked: Any) -> Any:
        found.append([(row.room_id, row.content) for row in rows])
        return execute(rows, locked)

    monkeypatch.setattr(sending, "_execute", counting)
    return found


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


@pytest.fixture
async def hold(database_url: str, acme: Tenant) -> AsyncIterator[Hold]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield Hold(connection, acme.schema_name)
        await connection.rollback()


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


class TestBatches:
    async def test_the_first_goes_at_once(
        self, sender: Sender, statements: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is waited for, no timer and no other send."""
        loop, timers = asyncio.get_running_loop(), []
        call_at = loop.call_at

        def noting(*args: Any, **options: Any) -> Any:
            timers.append(args)
            return call_at(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_at", noting)
            sender.send("first")
            assert len(sender.tasks) == 1
            while not statements:  # noqa: ASYNC110 - an event from the thread would hide a timer
                await asyncio.sleep(0)
        assert timers == []
        await sender.answered(1)
        assert statements == [[(ROOM, "first")]]

    async def test_what_comes_while_a_commit_runs_shares_the_next_statement(
        self, sender: Sender, hold: Hold, statements: list[Any]
    ) -> None:
        await hold.table()
        sender.send("first")
        await hold.blocked(1)
        for number in range(40):
            sender.send(f"{number}")
        await hold.end()
        assert seqs(await sender.answered(41)) == list(range(1, 42))
        assert [len(statement) for statement in statements] == [1, 40]

    async def test_rooms_share_a_statement_and_another_runs_beside_the_first(
        self, sender: Sender, rooms: list[int], hold: Hold, statements: list[Any]
    ) -> None:
        await hold.table()
        for room in rooms:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        for room in rooms:
            for number in range(4):
                sender.send(f"{number}", room=room)
        await hold.end()
        await sender.answered(45)
        assert [len(statement) for statement in statements[:2]] == [1, 1]
        # What didn't find a place at once goes together as soon as there is one, in two statements at a time.
        assert len(statements) <= 6
        assert sum(len(statement) for statement in statements) == 45
        for room in rooms:
            assert await run_in_tenant("acme", timeline, room) == ["first", "0", "1", "2", "3"]

    async def test_a_statement_has_a_bounded_number_of_messages(
        self, sender: Sender, hold: Hold, statements: list[Any]
    ) -> None:
        await hold.table()
        for number in range(251):
            sender.send(f"{number}")
        await hold.end()
        await sender.answered(251)
        assert [len(statement) for statement in statements] == [1, MAX_BATCH, MAX_BATCH, 50]
        assert sender.contents == [f"{number}" for number in range(251)]

    async def test_a_statement_has_a_bounded_number_of_rooms(
        self, sender: Sender, rooms: list[int], hold: Hold, statements: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(realtime_sending, "MAX_BATCH", 4)
        await hold.table()
        for room in rooms[:MAX_STATEMENTS]:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        for room in rooms:
            sender.send("second", room=room)
        await hold.end()
        await sender.answered(MAX_STATEMENTS + len(rooms))
        assert max(len(statement) for statement in statements) == 4

    @pytest.mark.parametrize("number_of_rooms", [1, 7])
    async def test_a_statement_has_a_bounded_size(
        self,
        number_of_rooms: int,
        sender: Sender,
        rooms: list[int],
        hold: Hold,
        statements: list[Any],
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        settings.TENANT_MESSAGING = {"MAX_CONTENT_LENGTH": 50_000}
        monkeypatch.setattr(realtime_sending, "MAX_BATCH_CHARACTERS", 200_000)
        await hold.table()
        for room in rooms[-MAX_STATEMENTS:]:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        for number in range(28):
            sender.send(f"{number:050000}", room=rooms[number % number_of_rooms])
        await hold.end()
        await sender.answered(MAX_STATEMENTS + 28)
        sizes = [sum(len(content) for _room, content in statement) for statement in statements]
        assert max(sizes) == 200_000
        for room in rooms[:number_of_rooms]:
            contents = await run_in_tenant("acme", timeline, room)
            assert contents == sorted(contents)

    async def test_order_of_each_room_whoever_sends(self, sender: Sender, rooms: list[int]) -> None:
        dice = random.Random(7)  # noqa: S311 - the same course each time
        sent: dict[int, list[str]] = {room: [] for room in rooms}
        for number in range(600):
            room = dice.choice(rooms)
            sent[room].append(f"{number}")
            sender.send(f"{number}", room=room, user=dice.choice(["alice", "bob", "carol"]))
            if not number % 7:
                await asyncio.sleep(0)
        await sender.answered(600)
        for room in rooms:
            assert await run_in_tenant("acme", timeline, room) == sent[room]
            of_room = [
                (answer.message.seq, answer.message.content)
                for _content, answer in sender.answers
                if answer.message.room_id == room
            ]
            assert of_room == list(enumerate(sent[room], 1))

    async def test_a_flooded_room_leaves_the_others_their_part(
        self, sender: Sender, rooms: list[int], hold: Hold, statements: list[Any]
    ) -> None:
        await hold.table()
        for room in rooms[:MAX_STATEMENTS]:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        flooded, *others = rooms[MAX_STATEMENTS:]
        for number in range(500):
            sender.send(f"flood {number}", room=flooded)
        for room in others:
            for number in range(5):
                sender.send(f"{number}", room=room)
        await hold.end()
        await sender.answered(MAX_STATEMENTS + 500 + 5 * len(others))
        share = MAX_BATCH // (1 + len(others))
        following = Counter(room for room, _content in statements[MAX_STATEMENTS])
        assert following == {flooded: share, **dict.fromkeys(others, 5)}

    async def test_nothing_is_kept_when_all_is_answered(self, sender: Sender) -> None:
        for number in range(5):
            sender.send(f"{number}")
        assert not sender.sends.is_idle
        await sender.finished()
        assert sender.sends._lanes == {}
        assert len(sender.answers) == 5


class TestABadOneFailsAlone:
    async def test_every_kind_within_one_batch(
        self, sender: Sender, acme: Tenant, hold: Hold, statements: list[Any]
    ) -> None:
        used, twice = uuid4(), uuid4()
        gone = await run_in_tenant("acme", acme.create_user, "gone")
        await run_in_tenant("acme", actions.add_members, acme.users["alice"], room_id=ROOM, users=[gone])
        sender.send("used", client_id=used)
        await sender.answered(1)
        sender.answers.clear()
        await hold.table()
        sender.send("first")
        await hold.blocked(1)
        sender.send("good 1")
        sender.send("")
        sender.send("stranger", room=404)
        sender.send("reply", reply_to=10**9)
        sender.send("other text", client_id=used)
        sender.send("used", client_id=used)
        sender.send("good 2", user="bob")
        sender.send("once", client_id=twice)
        sender.send("once", client_id=twice)
        sender.send("another", client_id=twice)
        sender.send("from a ghost", user="gone")
        sender.send("good 3", user="carol")
        await hold.end()
        delete = partial(type(gone).objects.filter(pk=gone.pk).delete)
        await run_in_tenant("acme", delete)
        await sender.answered(13)
        kinds = {content: type(answer) for content, answer in sender.answers}
        assert kinds.pop("from a ghost") in {SentMessage, NotFound}
        assert kinds == {
            "first": SentMessage,
            "good 1": SentMessage,
            "": Invalid,
            "stranger": NotFound,
            "reply": NotFound,
            "other text": Conflict,
            "used": SentMessage,
            "good 2": SentMessage,
            "once": SentMessage,
            "another": Conflict,
            "good 3": SentMessage,
        }
        once = [answer for content, answer in sender.answers if content == "once"]
        assert [answer.duplicate for answer in once] == [False, True]
        assert once[0].message == once[1].message
        stored = await run_in_tenant("acme", timeline)
        assert [content for content in stored if content != "from a ghost"] == [
            "used",
            "first",
            "good 1",
            "good 2",
            "once",
            "good 3",
        ]
        # A client id that is used again for something else begins another statement, here twice.
        assert len(statements) <= 6

    async def test_what_the_database_refuses(self, sender: Sender, hold: Hold, database_url: str) -> None:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
            await other.execute(f"ALTER TABLE \"acme\".{MESSAGES} ADD CONSTRAINT no CHECK (content <> 'refused')")
            await hold.table()
            sender.send("first")
            await hold.blocked(1)
            for content in ("1", "refused", "2"):
                sender.send(content)
            await hold.end()
            await sender.answered(4)
            await other.execute(f'ALTER TABLE "acme".{MESSAGES} DROP CONSTRAINT no')
        kinds = [(content, isinstance(answer, SentMessage)) for content, answer in sender.answers]
        assert kinds == [("first", True), ("1", True), ("refused", False), ("2", True)]
        assert await run_in_tenant("acme", timeline) == ["first", "1", "2"]
        counter = await run_in_tenant("acme", RoomCounter.objects.get, room_id=ROOM)
        assert counter.last_seq == 3

    async def test_an_answer_that_can_not_be_given_harms_no_other(
        self, sender: Sender, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(answer: Any) -> None:
            if answer.message.content == "1":
                raise LookupError("a broken socket")

        sender.on_answer = fail
        for number in range(3):
            sender.send(f"{number}")
        await sender.until(lambda: sender.contents == ["0", "2"])
        await sender.finished()
        assert "a broken socket" in caplog.text

    async def test_repeats_across_statements(self, sender: Sender, hold: Hold) -> None:
        key = uuid4()
        await hold.table()
        for _ in range(3):
            sender.send("once", client_id=key)
        await hold.blocked(1)
        await hold.end()
        answers = await sender.answered(3)
        assert [answer.duplicate for answer in answers] == [False, True, True]
        assert len({answer.message.id for answer in answers}) == 1


class TestTheAnswer:
    async def test_it_comes_after_the_commit(self, sender: Sender, rooms: list[int], database_url: str) -> None:
        with seeing(database_url) as is_there:
            seen: list[bool] = []
            sender.on_answer = lambda answer: seen.append(is_there(answer.message.id))
            for number in range(60):
                sender.send(f"{number}", room=rooms[number % 9])
            await sender.answered(60)
        assert seen == [True] * 60

    async def test_the_host_is_told_once_for_each_message_after_the_commit(
        self, sender: Sender, rooms: list[int], database_url: str, hold: Hold
    ) -> None:
        told: list[tuple[str, bool]] = []
        with seeing(database_url) as is_there:

            def receiver(message: Any, schema_name: str, **_kwargs: Any) -> None:
                told.append((f"{schema_name} {message.content}", is_there(message.id)))

            signals.message_sent.connect(receiver)
            try:
                key = uuid4()
                await hold.table()
                for number in range(30):
                    sender.send(f"{number}", room=rooms[number % 9])
                for _ in range(3):
                    sender.send("once", client_id=key)
                sender.send("no such room", room=404)
                await hold.blocked(1)
                await hold.end()
                await sender.answered(34)
                await sender.finished()
            finally:
                signals.message_sent.disconnect(receiver)
        assert Counter(content for content, _is_there in told) == Counter(
            ["acme once", *(f"acme {number}" for number in range(30))]
        )
        assert all(is_there for _content, is_there in told)

    async def test_all_of_a_batch_are_told_when_the_connection_dies(
        self, sender: Sender, hold: Hold, database_url: str
    ) -> None:
        await hold.table()
        sender.send("first")
        (pid,) = await hold.blocked(1)
        for number in range(5):
            sender.send(f"{number}")
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as other:
            await other.execute("SELECT pg_terminate_backend(%s)", [pid])
            assert isinstance((await sender.answered(1))[0], Unavailable)
            (pid,) = await hold.blocked(1)
            await other.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert {type(answer) for answer in await sender.answered(6)} == {Unavailable}
        await hold.end()
        sender.answers.clear()
        sender.send("again")
        assert seqs(await sender.answered(1)) == [1]

    async def test_what_members_are_told_goes_along_with_the_answers(self, sender: Sender, hold: Hold) -> None:
        """In the order of the numbers, what was refused left out."""
        await hold.table()
        sender.send("first")
        await hold.blocked(1)
        published: list[int] = []
        sender.on_answer = lambda _answer: published.append(len(sender.published))
        for number in range(5):
            sender.send(f"{number}")
            sender.send("")
        await hold.end()
        await sender.answered(11)
        assert published == [1] + [6] * 10
        assert [hint.seq for hint in sender.published] == [1, 2, 3, 4, 5, 6]

    async def test_what_can_not_be_handed_out_keeps_nobody_from_the_answer(
        self, sender: Sender, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_hints: list[Hint]) -> None:
            raise LookupError("a broken feed")

        sender.sends = Sends(sender._spawn, fail)
        sender.send("hello")
        assert seqs(await sender.answered(1)) == [1]
        assert "a broken feed" in caplog.text

    async def test_what_a_host_starts_in_a_signal_is_told_too(
        self, sender: Sender, acme: Tenant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An answer within the receiver goes along; one that comes later finds its own way."""
        loop, later, answering = asyncio.get_running_loop(), asyncio.Event(), []
        answer = partial(actions.send_message, acme.users["bob"], room_id=ROOM)

        async def answer_later() -> None:
            await later.wait()
            await run_in_tenant("acme", partial(answer, content="later"))

        def receiver(message: Any, **_kwargs: Any) -> None:
            if message.content == "ping":
                answer(content="at once")
                loop.call_soon_threadsafe(lambda: answering.append(asyncio.create_task(answer_later())))

        outside: list[Hint] = []
        monkeypatch.setattr(publisher, "running_hub", lambda: Mock(publish_from_thread=outside.extend))
        signals.message_sent.connect(receiver)
        try:
            sender.send("ping")
            await sender.answered(1)
            later.set()
            await asyncio.gather(*answering)
        finally:
            signals.message_sent.disconnect(receiver)
        assert [hint.seq for hint in sender.published] == [1, 2]
        assert [hint.seq for hint in outside] == [3]


class TestLockedRows:
    @pytest.fixture(params=["counter", "member"])
    def lock(self, request: pytest.FixtureRequest, acme: Tenant) -> tuple[Any, str]:
        """What somebody else holds: the room's counter, or the sender's membership."""
        if request.param == "counter":
            return RoomCounter, f"room_id = {ROOM}"
        return Membership, f"room_id = {ROOM} AND user_id = {acme.users['alice'].pk}"

    async def test_other_rooms_go_on_and_the_locked_one_follows_in_order(
        self, sender: Sender, rooms: list[int], hold: Hold, lock: tuple[Any, str]
    ) -> None:
        await hold.rows(*lock)
        for number in range(5):
            sender.send(f"locked {number}")
            for room in rooms[1:]:
                sender.send(f"{number}", room=room)
        await sender.answered(40)
        await hold.blocked(1)
        for number in range(5, 8):
            sender.send(f"locked {number}")
            sender.send(f"{number}", room=2)
        await sender.answered(43)
        assert not any(content.startswith("locked") for content in sender.contents)
        await hold.end()
        await sender.answered(51)
        assert sender.contents[43:] == [f"locked {number}" for number in range(8)]
        assert await run_in_tenant("acme", timeline) == [f"locked {number}" for number in range(8)]
        await sender.finished()

    async def test_a_room_locked_longer_than_the_timeout(
        self, sender: Sender, settings: Any, hold: Hold, lock: tuple[Any, str]
    ) -> None:
        settings.TENANT_MESSAGING = {"LOCK_TIMEOUT": 0.2}
        await asyncio.to_thread(close_executor)
        await hold.rows(*lock)
        for number in range(3):
            sender.send(f"{number}")
        assert {type(answer) for answer in await sender.answered(3)} == {Unavailable}
        await hold.end()
        sender.answers.clear()
        sender.send("again")
        assert seqs(await sender.answered(1)) == [1]
        await sender.finished()

    async def test_more_locked_rooms_than_may_wait(self, sender: Sender, rooms: list[int], hold: Hold) -> None:
        await hold.rows(RoomCounter, "room_id < 9")
        for room in rooms:
            for number in range(3):
                sender.send(f"{number}", room=room)
        await sender.answered(3)
        assert {answer.message.room_id for _content, answer in sender.answers} == {9}
        assert len(await hold.blocked(2)) == 2
        # They leave a thread to those that aren't locked.
        sender.send("3", room=9)
        await sender.answered(4)
        assert len(await hold.blocked(2)) == 2
        await hold.end()
        await sender.answered(28)
        for room in rooms[:-1]:
            assert await run_in_tenant("acme", timeline, room) == ["0", "1", "2"]

    @pytest.mark.parametrize(("times", "waited"), [(MAX_PASSED_OVER - 1, 0), (MAX_PASSED_OVER, 1)])
    async def test_a_room_that_others_just_write_to_is_tried_again_before_anybody_waits_for_it(
        self, sender: Sender, monkeypatch: pytest.MonkeyPatch, times: int, waited: int
    ) -> None:
        tried: list[set[int]] = []
        waiting: list[int] = []

        def where_free(drafts: Any) -> list[Any]:
            is_locked = sum(2 in rooms for rooms in tried) < times
            tried.append({draft.room_id for draft in drafts})
            free = [draft for draft in drafts if draft.room_id != 2 or not is_locked]
            answers = iter(actions.send_messages_where_free(free))
            return [next(answers) if draft in free else None for draft in drafts]

        def waiting_for_it(drafts: Any) -> list[Any]:
            waiting.extend(draft.room_id for draft in drafts)
            return actions.send_messages(drafts)

        monkeypatch.setattr(realtime_sending, "send_messages_where_free", where_free)
        monkeypatch.setattr(realtime_sending, "send_messages", waiting_for_it)

        def go_on(answer: Any) -> None:
            if answer.message.room_id == ROOM and len(sender.answers) < 10:
                sender.send("busy")

        sender.on_answer = go_on
        for room in range(3, 3 + MAX_STATEMENTS):
            sender.send("so that the others share a statement", room=room)
        sender.send("first", room=2)
        sender.send("second", room=2)
        sender.send("busy")
        await sender.until(lambda: "second" in sender.contents)
        await sender.finished()
        assert waiting == [2, 2] * waited
        assert await run_in_tenant("acme", timeline, 2) == ["first", "second"]

    async def test_a_room_that_is_always_locked_keeps_no_other_from_its_turn(
        self, sender: Sender, hold: Hold, settings: Any, statements: list[Any]
    ) -> None:
        """As two busy rooms that other processes write to: they wait, are written to, and are met locked again."""
        settings.TENANT_MESSAGING = {"DATABASE_THREADS": 4}
        await asyncio.to_thread(close_executor)
        sender.sends = sender.new_sends()
        await hold.rows(RoomCounter, "room_id IN (1, 2)")
        sender.send("busy")
        await hold.blocked(1)

        def go_on(answer: Any) -> None:
            if answer.message.room_id == 1 and len(sender.answers) < 200:
                sender.send("busy")

        sender.on_answer = go_on
        sender.send("starving", room=2)
        lane = sender.sends._lanes["acme"]
        async with asyncio.timeout(PATIENCE):
            while lane._statements or len(statements) < 3:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await hold.end()
        await sender.until(lambda: "starving" in sender.contents)
        assert len(sender.answers) < 100
        await sender.finished()

    async def test_the_other_tenant_notices_nothing(self, sender: Sender, globex: Tenant, hold: Hold) -> None:
        there = Sender(globex)
        await hold.rows(RoomCounter, f"room_id = {ROOM}")
        await hold.rows(RoomCounter, "room_id = 2")
        for number in range(3):
            sender.send(f"here {number}")
            sender.send(f"here {number}", room=2)
            there.send(f"there {number}")
        await hold.blocked(2)
        assert seqs(await there.answered(3)) == [1, 2, 3]
        # A busy room of theirs waits for its own turn only, not for ours.
        async with await psycopg.AsyncConnection.connect(hold.connection.info.dsn) as connection:
            theirs = Hold(connection, "globex")
            await theirs.rows(RoomCounter, f"room_id = {ROOM}")
            there.send("busy")
            await hold.blocked(3)
            await theirs.end()
            await there.answered(4)
        assert sender.answers == []
        await hold.end()
        await sender.answered(6)
        assert await run_in_tenant("globex", timeline) == ["there 0", "there 1", "there 2", "busy"]
        assert await run_in_tenant("acme", timeline) == ["here 0", "here 1", "here 2"]
        await asyncio.gather(sender.finished(), there.finished())


class TestSockets:
    """The same through a peer's connection."""

    pytestmark = pytest.mark.usefixtures("rooms")

    @pytest.fixture(autouse=True)
    def unlimited(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = {f"RATE_LIMIT_{scope}": None for scope in ("SOCKET", "USER", "ROOM", "TENANT")}

    async def test_many_sends_of_one_socket_share_statements_and_are_answered_in_order(
        self, acme: Tenant, peers: Peers, statements: list[Any]
    ) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        replies = await asyncio.gather(*(alice.post(ROOM, f"{number}") for number in range(100)))
        assert [reply["message"]["seq"] for reply in replies] == list(range(1, 101))
        await bob.until(lambda: len(bob.contents(ROOM)) == 100)
        assert bob.contents(ROOM) == [f"{number}" for number in range(100)]
        assert len(statements) < 50

    async def test_a_batch_costs_each_client_one_write(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        writes: Counter[str] = Counter()
        for name, peer in (("alice", alice), ("bob", bob)):
            outbox = next(iter(hub_of_this_loop().sockets["acme", str(acme.users[name].pk)])).outbox
            outbox._send = partial(self.count, writes, name, outbox._send)
            assert peer.close_code is None
        await hold.table()
        posts = [asyncio.create_task(alice.post(ROOM, f"{number}")) for number in range(21)]
        await hold.blocked(1)
        await hold.end()
        await asyncio.gather(*posts)
        await bob.until(lambda: len(bob.contents(ROOM)) == 21)
        # One for the first, one for the twenty that waited; alice's with the replies.
        assert writes == {"alice": 2, "bob": 2}

    async def count(self, writes: Counter[str], name: str, send: Any, event: Any) -> None:
        writes[name] += '"message"' in event.get("text", "")
        await send(event)

    async def test_no_more_than_a_bounded_number_is_unanswered(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        alice = await peers.connect(acme, "alice")
        await hold.table()
        posts = [asyncio.create_task(alice.post(ROOM, f"{number}")) for number in range(3 * MAX_UNANSWERED)]
        ping = asyncio.create_task(alice.ask("ping"))
        await hold.blocked(1)
        (socket,) = hub_of_this_loop().sockets["acme", str(acme.users["alice"].pk)]
        for _ in range(500):
            await asyncio.sleep(0)
        assert socket.unanswered.number == MAX_UNANSWERED
        assert alice._to_app.qsize() == 2 * MAX_UNANSWERED
        await hold.end()
        replies = await asyncio.gather(*posts)
        assert [reply["message"]["seq"] for reply in replies] == list(range(1, 3 * MAX_UNANSWERED + 1))
        assert (await ping)["type"] == "ok"
        assert socket.unanswered.number == 0

    async def test_replies_come_in_the_order_of_the_frames(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        """Bad frames, refused sends and other frames between: each waits for the sends before it."""
        alice = await peers.connect(acme, "alice")
        order: list[str] = []
        sort = alice._sort

        def noting(frame: dict[str, Any]) -> None:
            if frame["type"] in {"ok", "error"}:
                order.append(f"{frame['id']} {frame.get('code', 'ok')}")
            sort(frame)

        alice._sort = noting  # type: ignore[method-assign]
        await hold.table()
        room = {"room": ROOM}
        frames: list[tuple[dict[str, Any], str]] = [
            ({"type": "send", **room, "content": "1"}, "ok"),
            ({"type": "send", **room, "content": "2"}, "ok"),
            ({"type": "read", **room, "seq": 2}, "ok"),
            ({"type": "send", **room, "content": ""}, "invalid"),
            ({"type": "send", **room, "content": "3"}, "ok"),
            ({"type": "nonsense"}, "unknown_type"),
            ({"type": "send", "room": 404, "content": "4"}, "not_found"),
            ({"type": "send", **room, "content": "5", "reply_to": 10**9}, "not_found"),
            ({"type": "send", **room}, "invalid"),
            ({"type": "history", **room}, "ok"),
            ({"type": "send", **room, "content": "6"}, "ok"),
            ({"type": "ping"}, "ok"),
        ]
        for number, (frame, _code) in enumerate(frames):
            frame_id = f"f{number}"
            if frame["type"] == "send":
                frame = {"client_id": str(uuid4()), **frame}  # noqa: PLW2901 - the frame with an id of its own
            alice.send_text(json.dumps({"id": frame_id, **frame}))
        await hold.blocked(1)
        assert order == []
        await hold.end()
        await alice.until(lambda: len(order) == len(frames))
        expected = [f"f{number} {code}" for number, (_frame, code) in enumerate(frames)]
        # Sends to other rooms than those before them may overtake these.
        assert [reply for reply in order if not reply.startswith("f6 ")] == expected[:6] + expected[7:]
        assert expected[5] in order[: order.index(expected[6])]
        assert expected[6] in order[: order.index(expected[9])]
        assert await run_in_tenant("acme", timeline) == ["1", "2", "3", "6"]

    async def test_sends_of_a_socket_that_vanishes_are_written_and_told(
        self, acme: Tenant, peers: Peers, hold: Hold
    ) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        await hold.table()
        for number in range(3):
            alice.send_text(
                json.dumps(
                    {"type": "send", "id": f"{number}", "room": ROOM, "client_id": str(uuid4()), "content": f"{number}"}
                )
            )
        await hold.blocked(1)
        closing = asyncio.create_task(alice.close())
        await hold.end()
        await bob.until(lambda: bob.contents(ROOM) == ["0", "1", "2"])
        await closing
        await hub_of_this_loop().sends.finished(PATIENCE)
        assert ("acme", str(acme.users["alice"].pk)) not in hub_of_this_loop().sockets

    async def test_a_message_is_committed_when_it_is_acknowledged(
        self, acme: Tenant, rooms: list[int], peers: Peers, database_url: str
    ) -> None:
        alice = await peers.connect(acme, "alice")
        sort, seen = alice._sort, []
        with seeing(database_url) as is_there:

            def looking(frame: dict[str, Any]) -> None:
                if "message" in frame:
                    seen.append(is_there(frame["message"]["id"]))
                sort(frame)

            alice._sort = looking  # type: ignore[method-assign]
            await asyncio.gather(*(alice.post(rooms[number % 9], f"{number}") for number in range(50)))
            await alice.until(lambda: len(alice.contents()) == 50)
        # Once as the reply, once as the event.
        assert seen == [True] * 100

    async def test_a_stopping_hub_answers_what_it_can_not_finish(
        self, acme: Tenant, peers: Peers, hold: Hold, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub, "STOP_PATIENCE", 0.1)
        alice = await peers.connect(acme, "alice")
        running = hub_of_this_loop()
        await hold.table()
        for number in range(3):
            alice.send_text(
                json.dumps(
                    {"type": "send", "id": f"{number}", "room": ROOM, "client_id": str(uuid4()), "content": f"{number}"}
                )
            )
        alice.send_text(json.dumps({"type": "ping", "id": "waits for the sends"}))
        await hold.blocked(1)
        await asyncio.wait_for(running.stop(), PATIENCE)
        assert alice.task is not None
        await asyncio.wait_for(asyncio.shield(alice.task), PATIENCE)
        assert alice.close_code == 1012
        assert running.sends.is_idle
        assert not running._background
        await hold.end()

    async def test_a_stopping_hub_finishes_what_it_can(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        alice = await peers.connect(acme, "alice")
        await hold.table()
        posts = [asyncio.create_task(alice.post(ROOM, f"{number}")) for number in range(5)]
        await hold.blocked(1)
        stopping = asyncio.create_task(hub_of_this_loop().stop())
        await asyncio.sleep(0)
        await hold.end()
        replies = await asyncio.gather(*posts)
        assert [reply["message"]["seq"] for reply in replies] == [1, 2, 3, 4, 5]
        await stopping
        assert alice.close_code == 1012
