"""What waits for clients that don't read is bounded in bytes: for a socket, and for all of a user's together."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions, selectors
from django_tenant_messaging.models import Message
from django_tenant_messaging.realtime import catchup
from django_tenant_messaging.realtime.backlog import Backlog
from django_tenant_messaging.realtime.close_codes import CloseCode
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.unlimited import UNLIMITED
from tests.test_outbox import Client, text, written

if TYPE_CHECKING:
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1
USER_QUEUE_BYTES = 240_000


class TestOneUsersOutboxes:
    @pytest.fixture
    def backlog(self, settings: Any) -> Backlog:
        settings.TENANT_MESSAGING = {"USER_QUEUE_BYTES": 100_000}
        return Backlog()

    @pytest.fixture
    async def stuck(self, backlog: Backlog) -> Client:
        """A client that takes nothing, with so much on its way and waiting that the user may have no more."""
        client = Client(backlog)
        client.stop_reading()
        for _ in range(2):
            client.outbox.put(text("x" * 60_000))
        assert not client.outbox.is_full
        return client

    @pytest.fixture
    async def waiting(self, stuck: Client, backlog: Backlog) -> asyncio.Task[None]:
        """Another socket of the user, which reads, and waits for room all the same."""
        assert stuck.outbox.writer is not None
        task = asyncio.create_task(Client(backlog).outbox.wait_for_room())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        return task

    async def test_one_waits_until_the_other_reads(
        self, stuck: Client, waiting: asyncio.Task[None], backlog: Backlog
    ) -> None:
        await stuck.read_one()
        await waiting
        await stuck.drained()
        assert backlog.bytes == 0

    async def test_one_waits_until_the_other_is_closed(
        self, stuck: Client, waiting: asyncio.Task[None], backlog: Backlog
    ) -> None:
        stuck.outbox.close(CloseCode.RESTART)
        await waiting
        await stuck.drained()
        assert backlog.bytes == 0

    async def test_one_waits_until_the_other_is_gone(
        self, stuck: Client, waiting: asyncio.Task[None], backlog: Backlog
    ) -> None:
        stuck.error = OSError()
        stuck.read()
        await waiting
        await written(stuck.outbox)
        assert backlog.bytes == 0

    async def test_one_waits_until_the_other_gives_up_events(self, backlog: Backlog) -> None:
        client = Client(backlog)
        client.stop_reading()
        client.outbox.put(text("x" * 60_000))
        client.outbox.put(text("x" * 60_000), room_id=1)
        waiting = asyncio.create_task(Client(backlog).outbox.wait_for_room())
        await asyncio.sleep(0)
        client.outbox.give_up_events()
        await waiting
        await client.drained()
        assert backlog.bytes == 0

    @pytest.mark.usefixtures("stuck")
    async def test_a_socket_that_is_closed_while_it_waits_is_forgotten(self, backlog: Backlog) -> None:
        other = Client(backlog)
        waiting = asyncio.create_task(other.outbox.wait_for_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert backlog._waiting == {other.outbox}
        other.outbox.close(CloseCode.RESTART)
        await waiting
        assert backlog._waiting == set()

    @pytest.mark.usefixtures("stuck")
    async def test_live_events_go_on(self, backlog: Backlog) -> None:
        other = Client(backlog)
        assert not other.outbox.is_full
        other.outbox.put(text("an event"), room_id=1)
        assert other.texts == ["an event"]

    async def test_what_counts_is_memory_and_not_characters(self, backlog: Backlog, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_BYTES": 65_536}
        client = Client(backlog)
        client.stop_reading()
        client.outbox.put("on its way")
        client.outbox.put("\U0001f44b" * 10_000)
        assert (client.outbox.is_crowded, client.outbox.is_full) == (True, False)
        client.outbox.put("\U0001f44b" * 7_000)
        assert client.outbox.is_full
        client.outbox.close(CloseCode.RESTART)
        client.read()
        await written(client.outbox)


@pytest.fixture
def bounded(settings: Any) -> None:
    settings.TENANT_MESSAGING = UNLIMITED | {
        "HISTORY_PAGE_BYTES": 65_536,
        "USER_QUEUE_BYTES": USER_QUEUE_BYTES,
        "SOCKET_QUEUE_BYTES": 150_000,
    }


@pytest.fixture
def long_history(bounded: None, acme: Tenant, globex: Tenant, team: None) -> None:
    """Forty messages of 10,000 bytes in room 1 of both tenants: six of them are a page."""
    for tenant in (acme, globex):
        with tenant.activated():
            for _ in range(40):
                actions.send_message(tenant.users["carol"], room_id=ROOM, content="x" * 10_000)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the users for whom history was read."""
    found: list[str] = []
    room_history = selectors.room_history

    def noting(user: Any, **place: Any) -> Any:
        found.append(user.get_username())
        return room_history(user, **place)

    monkeypatch.setattr(selectors, "room_history", noting)
    return found


def ask_for_history(peers: list[Peer], times: int) -> None:
    for peer in peers:
        for number in range(times):
            peer.send_text(json.dumps({"type": "history", "id": f"h{number}", "room": ROOM, "limit": 40}))


def backlog_of(tenant: Tenant, username: str) -> Backlog:
    return hub_of_this_loop().backlog_of(tenant.schema_name, tenant.users[username])


@pytest.mark.usefixtures("long_history")
class TestSockets:
    async def test_a_user_who_does_not_read_is_read_nothing_more(
        self, acme: Tenant, globex: Tenant, peers: Peers, reads: list[str]
    ) -> None:
        alices = [await peers.connect(acme, "alice") for _ in range(10)]
        bob, twin = await peers.connect(acme, "bob"), await peers.connect(globex, "alice")
        for peer in alices:
            peer.reads.clear()
        ask_for_history(alices, 5)
        for peer in (bob, twin):
            for _ in range(10):
                assert len((await peer.ask("history", room=ROOM))["messages"]) == 6
        # Four of them are as much as may wait; the other tenant's alice has read ten.
        assert reads.count("alice") - 10 == 4
        backlog = backlog_of(acme, "alice")
        assert USER_QUEUE_BYTES <= backlog.bytes < USER_QUEUE_BYTES + 140_000
        for peer in alices:
            peer.reads.set()
        for peer in alices:
            await peer.until(lambda peer=peer: len(peer.unasked) == 5)  # type: ignore[misc]
            assert [len(reply["messages"]) for reply in peer.unasked] == [6] * 5
        assert backlog.bytes == 0

    async def test_hello_waits_too(self, acme: Tenant, peers: Peers) -> None:
        alice = await peers.connect(acme, "alice")
        backlog = backlog_of(acme, "alice")
        backlog.bytes += USER_QUEUE_BYTES
        opening = asyncio.create_task(peers.connect(acme, "alice"))
        await (await peers.connect(acme, "bob")).ask("ping")
        assert not opening.done()
        backlog.freed(USER_QUEUE_BYTES)
        await (await opening).ask("ping")
        await alice.ask("ping")

    async def test_what_a_socket_missed_is_read_in_bounded_pages(
        self, acme: Tenant, peers: Peers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pages: list[int] = []

        def noting(*args: Any, **bound: Any) -> Any:
            changes = selectors.read_changes(*args, **bound)
            pages.append(len(changes.events))
            return changes

        monkeypatch.setattr(catchup, "read_changes", noting)
        room = await run_in_tenant("acme", selectors.access_room, acme.users["alice"], ROOM)
        positions = {str(ROOM): {"epoch": room.epoch, "seq": 0}}
        alice = await peers.connect(acme, "alice", resume=positions)
        await alice.until(lambda: len(alice.contents()) == 40)
        assert max(pages) == 6
        assert sum(pages) >= 40

    async def test_a_user_who_is_gone_leaves_nothing(self, acme: Tenant, peers: Peers) -> None:
        alices = [await peers.connect(acme, "alice") for _ in range(3)]
        for peer in alices:
            peer.reads.clear()
        ask_for_history(alices, 5)
        async with asyncio.timeout(10):
            while not backlog_of(acme, "alice").is_full:  # noqa: ASYNC110 - nothing tells when it is
                await asyncio.sleep(0.01)
        hub = hub_of_this_loop()
        for peer in alices:
            peer.reads.set()
        for peer in alices:
            await peer.close()
        async with asyncio.timeout(10):
            while hub._backlogs:
                await asyncio.sleep(0.01)
                gc.collect()


def test_what_is_read_of_a_room_at_once_is_bounded(acme: Tenant, team: None) -> None:
    def pages() -> list[tuple[int, bool]]:
        found, after, complete = [], 0, False
        while not complete:
            changes = selectors.read_changes(ROOM, after=after, limit=100, most_bytes=3 * 4_513)
            found.append((len(changes.events), changes.complete))
            after, complete = changes.seq, changes.complete
        return found

    with acme.activated():
        for number in range(8):
            actions.send_message(acme.users["carol"], room_id=ROOM, content="x" * 4_000 + str(number))
        Message.objects.filter(seq=8).update(content="x" * 20_000)
        assert pages() == [(3, False), (3, False), (1, False), (1, True)]
