"""Rooms that somebody else has locked keep no other room waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.models import Membership, RoomCounter
from django_tenant_messaging.realtime import sending as realtime_sending
from django_tenant_messaging.realtime.sending import MAX_PASSED_OVER, MAX_STATEMENTS
from django_tenant_messaging.tenancy import close_executor, run_in_tenant
from tests.sending.senders import PATIENCE, ROOM, Hold, Sender, seqs, timeline

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant


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

    async def test_a_room_whose_turn_does_not_come(
        self, sender: Sender, settings: Any, hold: Hold, statements: list[Any]
    ) -> None:
        """As when others change it all the time."""
        settings.TENANT_MESSAGING = {"LOCK_TIMEOUT": 0.2}
        await hold.rows(RoomCounter, f"room_id = {ROOM}")
        async with sender.turns.of_room("acme", ROOM):
            for number in range(3):
                sender.send(f"{number}")
            assert {type(answer) for answer in await sender.answered(3)} == {Unavailable}
        assert len(statements) == 1
        await hold.end()
        sender.send("again")
        assert seqs((await sender.answered(4))[3:]) == [1]
        await sender.finished()

    async def test_a_server_that_stops_answers_who_waits_for_a_turn(self, sender: Sender, hold: Hold) -> None:
        await hold.rows(RoomCounter, f"room_id = {ROOM}")
        async with sender.turns.of_room("acme", ROOM):
            sender.send("too late")
            turn = sender.turns._rooms["acme", ROOM]
            async with asyncio.timeout(PATIENCE):
                while not turn._waiters:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            for task in list(sender.tasks):
                task.cancel()
            (answer,) = await sender.answered(1)
        assert isinstance(answer, Unavailable)
        assert sender.sends.is_idle

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
