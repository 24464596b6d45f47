"""Sends of clients: in the order of their frames, together, and bounded."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from django_tenant_messaging.realtime import hub
from django_tenant_messaging.realtime.commands import MAX_UNANSWERED
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.unlimited import UNLIMITED
from tests.sending.senders import PATIENCE, ROOM, Hold, seeing, timeline

if TYPE_CHECKING:
    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant


class TestSockets:
    """The same through a peer's connection."""

    pytestmark = pytest.mark.usefixtures("rooms")

    @pytest.fixture(autouse=True)
    def unlimited(self, settings: Any) -> None:
        settings.TENANT_MESSAGING = UNLIMITED

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
