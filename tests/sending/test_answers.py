"""Each send is answered once, after the commit; a bad one fails alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock
from uuid import uuid4

import psycopg

from django_tenant_messaging import actions, signals
from django_tenant_messaging.exceptions import Conflict, Invalid, NotFound, Unavailable
from django_tenant_messaging.models import RoomCounter
from django_tenant_messaging.realtime import publisher
from django_tenant_messaging.realtime.sending import Sends
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.types import SentMessage
from tests.sending.senders import MESSAGES, ROOM, Hold, Sender, seeing, seqs, timeline

if TYPE_CHECKING:
    import pytest

    from django_tenant_messaging.realtime.hints import Hint
    from tests.harness.tenants import Tenant


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
        # A client id that is used again for something else begins another statement, here twice. The ghost's may be
        # tried again alone, if it meets its row while that is being deleted.
        assert sum(statement != [(ROOM, "from a ghost")] for statement in statements) <= 6

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

        sender.sends = Sends(sender._spawn, fail, sender.turns)
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
