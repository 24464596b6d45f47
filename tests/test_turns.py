"""A room that somebody keeps locked takes one of its tenant's threads, however many want to change it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.models import Membership, RoomCounter
from django_tenant_messaging.realtime.turns import Turns
from tests.sending.senders import Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

LOCKED, FREE = 1, 2


@pytest.fixture
def rooms(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> None:
    """Rooms 1 to 4 of alice, bob and carol in both tenants, with a message of bob's in each, of the same id."""
    for tenant in (acme, globex):
        with tenant.activated():
            alice, *others = (tenant.users[name] for name in people)
            for room_id in range(1, 5):
                assert actions.create_room(alice, name=f"{room_id}", members=others).pk == room_id
                sent = actions.send_message(tenant.users["bob"], room_id=room_id, content="hello")
                assert sent.message.id == room_id


@pytest.fixture
async def hold(database_url: str, rooms: None) -> AsyncIterator[Hold]:
    """Somebody else's locks, which nothing else may wait for in vain."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        yield Hold(connection, "acme")
        await connection.rollback()


def edit(peer: Peer, room_id: int, content: str) -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(peer.ask("edit", room=room_id, message_id=room_id, content=content))


async def edits_of_a_locked_room(peers: Peers, acme: Tenant, hold: Hold) -> list[asyncio.Task[dict[str, Any]]]:
    """More than the tenant has threads, all of which wait."""
    await hold.rows(RoomCounter, f"room_id = {LOCKED}")
    found = [edit(await peers.connect(acme, "bob"), LOCKED, f"edit {number}") for number in range(6)]
    await hold.blocked(1)
    return found


class TestALockedRoom:
    async def test_others_are_read_sent_to_and_changed(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        carol, bob = await peers.connect(acme, "carol"), await peers.connect(acme, "bob")
        waiting = await edits_of_a_locked_room(peers, acme, hold)
        sent = asyncio.create_task((await peers.connect(acme, "bob")).post(LOCKED, "waits as well"))
        page = await carol.ask("history", room=LOCKED)
        assert [message["content"] for message in page["messages"]] == ["hello"]
        assert (await carol.post(FREE, "new"))["type"] == "ok"
        assert (await edit(bob, FREE, "edited"))["type"] == "ok"
        assert not any(task.done() for task in [*waiting, sent])
        assert len(await hold.blocked(1)) == 1
        await hold.end()
        assert {reply["type"] for reply in await asyncio.gather(*waiting, sent)} == {"ok"}
        await carol.until(lambda: "waits as well" in carol.contents(LOCKED))
        page = await carol.ask("history", room=LOCKED)
        assert [message["content"] for message in page["messages"]] == ["edit 5", "waits as well"]

    async def test_several_leave_threads_to_what_needs_no_lock(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        await hold.rows(RoomCounter, f"room_id <> {FREE}")
        carol = await peers.connect(acme, "carol")
        waiting = [edit(await peers.connect(acme, "bob"), room_id, "edited") for room_id in (1, 3, 4) * 2]
        waiting += [
            asyncio.create_task((await peers.connect(acme, "alice")).post(room_id, "new")) for room_id in (1, 3, 4)
        ]
        await hold.blocked(2)
        assert (await carol.post(FREE, "new"))["type"] == "ok"
        assert (await carol.ask("history", room=LOCKED))["type"] == "ok"
        assert len(await hold.blocked(2)) == 2
        await hold.end()
        assert {reply["type"] for reply in await asyncio.gather(*waiting)} == {"ok"}

    async def test_who_gets_no_turn_is_told_and_nothing_is_written(
        self, acme: Tenant, peers: Peers, hold: Hold, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"LOCK_TIMEOUT": 0.3}
        waiting = await edits_of_a_locked_room(peers, acme, hold)
        writer = await peers.connect(acme, "bob")
        sent = await writer.post(LOCKED, "not now")
        replies = [*await asyncio.gather(*waiting), sent]
        assert {(reply["type"], reply.get("code")) for reply in replies} == {("error", "unavailable")}
        assert "locked" in replies[-2]["message"]
        await hold.end()
        page = await writer.ask("history", room=LOCKED)
        assert [message["content"] for message in page["messages"]] == ["hello"]
        assert (await writer.post(LOCKED, "now"))["message"]["seq"] == 2

    async def test_the_other_tenant_notices_nothing(
        self, acme: Tenant, globex: Tenant, peers: Peers, hold: Hold
    ) -> None:
        waiting = await edits_of_a_locked_room(peers, acme, hold)
        await hold.rows(RoomCounter, "room_id = 3")
        waiting.append(edit(await peers.connect(acme, "bob"), 3, "edited"))
        await hold.blocked(2)
        there = await peers.connect(globex, "bob")
        assert (await edit(there, LOCKED, "edited"))["type"] == "ok"
        assert not any(task.done() for task in waiting)
        await hold.end()
        await asyncio.gather(*waiting)


class TestLockedMemberships:
    async def test_reads_leave_threads_to_the_rest(self, acme: Tenant, peers: Peers, hold: Hold) -> None:
        await hold.rows(Membership, f"room_id = {LOCKED}")
        reads = [
            asyncio.create_task((await peers.connect(acme, name)).ask("read", room=LOCKED, seq=1))
            for name in ("alice", "carol") * 3
        ]
        bob = await peers.connect(acme, "bob")
        await hold.blocked(1)
        assert (await bob.post(FREE, "new"))["type"] == "ok"
        assert (await bob.ask("history", room=LOCKED))["type"] == "ok"
        assert (await (await peers.connect(acme, "alice")).ask("read", room=FREE, seq=2))["seq"] == 2
        assert len(await hold.blocked(1)) == 1
        assert not any(task.done() for task in reads)
        await hold.end()
        assert {reply["seq"] for reply in await asyncio.gather(*reads)} == {1}

    async def test_who_cannot_read_in_time_is_told_and_the_other_tenant_notices_nothing(
        self, acme: Tenant, globex: Tenant, peers: Peers, hold: Hold, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"LOCK_TIMEOUT": 0.3}
        await hold.rows(Membership, f"room_id = {LOCKED}")
        here = [await peers.connect(acme, name) for name in ("alice", "carol") * 3]
        there = await peers.connect(globex, "alice")
        reads = [asyncio.create_task(peer.ask("read", room=LOCKED, seq=1)) for peer in here]
        await hold.blocked(1)
        assert (await there.ask("read", room=LOCKED, seq=1))["seq"] == 1
        replies = await asyncio.gather(*reads)
        assert {(reply["type"], reply.get("code")) for reply in replies} == {("error", "unavailable")}
        await hold.end()
        assert here[0].of_type("read") == []
        assert (await here[0].ask("read", room=LOCKED, seq=1))["seq"] == 1


class TestTurns:
    async def test_one_of_a_room_at_a_time_and_a_quarter_of_the_threads_of_a_tenant(self) -> None:
        turns = Turns()
        inside: list[tuple[str, int]] = []
        most: dict[str, int] = {}
        ended: list[int] = []

        async def one(schema_name: str, room_id: int, number: int) -> None:
            async with turns.of_room(schema_name, room_id):
                assert (schema_name, room_id) not in inside
                inside.append((schema_name, room_id))
                for schema in ("acme", "globex"):
                    most[schema] = max(most.get(schema, 0), sum(name == schema for name, _room in inside))
                await asyncio.sleep(0.001)
                inside.remove((schema_name, room_id))
                if room_id == LOCKED and schema_name == "acme":
                    ended.append(number)

        calls = [
            (schema, room_id, number) for number in range(5) for schema in ("acme", "globex") for room_id in range(4)
        ]
        await asyncio.gather(*(one(*call) for call in calls))
        assert most == {"acme": 2, "globex": 2}
        assert ended == [0, 1, 2, 3, 4]
        assert (len(turns._rooms), len(turns._tenants)) == (0, 0)

    @pytest.mark.parametrize("room_id", [LOCKED, FREE])
    async def test_who_waited_too_long_or_was_cancelled_leaves_the_turn_to_the_next(
        self, room_id: int, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"LOCK_TIMEOUT": 0.1, "DATABASE_THREADS": 1}
        turns = Turns()
        async with turns.of_room("acme", LOCKED):
            with pytest.raises(Unavailable):
                async with turns.of_room("acme", room_id):
                    pytest.fail("not its turn")
            given_up = asyncio.create_task(turns.of_room("acme", room_id).__aenter__())
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
        async with turns.of_room("acme", room_id):
            pass
