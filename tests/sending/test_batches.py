"""Sends that wait go together, at once when nothing is in the way, and each room in its order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from django_tenant_messaging.realtime import sending as realtime_sending
from django_tenant_messaging.realtime.sending import MAX_BATCH, MAX_STATEMENTS, ROOM_SHARE
from django_tenant_messaging.tenancy import run_in_tenant
from tests.sending.senders import ROOM, Hold, Sender, seqs, timeline


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

    async def test_a_statement_has_a_bounded_number_of_messages_of_many_rooms(
        self, sender: Sender, rooms: list[int], hold: Hold, statements: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(realtime_sending, "MAX_BATCH", 4)
        await hold.table()
        for room in rooms[:MAX_STATEMENTS]:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        for number in range(3):
            for room in rooms:
                sender.send(f"{number}", room=room)
        await hold.end()
        await sender.answered(MAX_STATEMENTS + 3 * len(rooms))
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

    async def test_of_many_rooms_each_has_its_turn_with_some_messages_at_once(
        self, sender: Sender, rooms: list[int], hold: Hold, statements: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(realtime_sending, "MAX_BATCH", 2 * ROOM_SHARE)
        await hold.table()
        for room in rooms[:MAX_STATEMENTS]:
            sender.send("first", room=room)
        await hold.blocked(MAX_STATEMENTS)
        six = rooms[MAX_STATEMENTS : MAX_STATEMENTS + 6]
        for room in six:
            for number in range(2 * ROOM_SHARE):
                sender.send(f"{number}", room=room)
        await hold.end()
        await sender.answered(MAX_STATEMENTS + 2 * ROOM_SHARE * len(six))
        turns = [Counter(room for room, _content in statement) for statement in statements[MAX_STATEMENTS:]]
        assert [list(turn.values()) for turn in turns] == [[ROOM_SHARE, ROOM_SHARE]] * 6
        # Three would do, if the two that run at a time always began in their order.
        assert {room for turn in turns[:4] for room in turn} == set(six)

    async def test_nothing_is_kept_when_all_is_answered(self, sender: Sender) -> None:
        for number in range(5):
            sender.send(f"{number}")
        assert not sender.sends.is_idle
        await sender.finished()
        assert sender.sends._lanes == {}
        assert len(sender.answers) == 5
