"""Everybody gets every message, in one order, once; the other tenant gets nothing."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Unavailable
from django_tenant_messaging.models import Membership, Message, RoomCounter
from django_tenant_messaging.realtime import presence
from django_tenant_messaging.realtime.hub import Hub, hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1


pytestmark = pytest.mark.usefixtures("team")


async def write(tenant: Tenant, *contents: str, sender: str = "carol", room: int = ROOM) -> None:
    """Send messages without a socket, one after the other."""
    for content in contents:
        await run_in_tenant(
            tenant.schema_name, actions.send_message, tenant.users[sender], room_id=room, content=content
        )


async def got(peer: Peer, *contents: str, room: int = ROOM) -> None:
    """Wait until a peer has as many messages, then compare; a round trip later there must be no more."""
    await peer.until(lambda: len(peer.contents(room)) >= len(contents))
    await peer.ask("ping")
    assert peer.contents(room) == list(contents)
    events = [event for event in peer.events if event.get("room") == room and "seq" in event and "after" in event]
    for earlier, later in pairwise(events):
        assert later["after"] == earlier["seq"]


class TestOneProcess:
    async def test_a_message_reaches_all_members_and_nobody_of_the_other_tenant(
        self, acme: Tenant, globex: Tenant, peers: Peers
    ) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        stranger = await peers.connect(globex, "bob")

        reply = await alice.post(ROOM, "Hello team")
        assert reply["type"] == "ok", reply
        for peer, is_own in ((alice, True), (bob, False)):
            await got(peer, "Hello team")
            event = peer.of_type("message")[0]
            assert (event["room"], event["seq"], event["after"]) == (ROOM, 1, 0)
            message = event["message"]
            assert message["is_broadcast"] is True
            assert message["is_own_message"] is is_own
            assert message["sender"]["username"] == "alice"
            assert message["mentioned_users"] == []
            assert message["timestamp"].endswith("Z")

        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]
        assert not await run_in_tenant("globex", Message.objects.exists)

    async def test_each_tenant_numbers_its_own_room(self, acme: Tenant, globex: Tenant, peers: Peers) -> None:
        here, there = await peers.connect(acme, "alice"), await peers.connect(globex, "alice")
        replies = await asyncio.gather(
            *(peer.post(ROOM, f"{name} {number}") for number in range(20) for name, peer in ((1, here), (2, there)))
        )
        assert {reply["type"] for reply in replies} == {"ok"}
        await got(here, *(f"1 {number}" for number in range(20)))
        await got(there, *(f"2 {number}" for number in range(20)))

    async def test_a_reply_refers_to_the_message_answered(self, acme: Tenant, peers: Peers) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        first = await alice.post(ROOM, "shall we?")
        await bob.post(ROOM, "yes", reply_to=first["message"]["id"])
        await got(alice, "shall we?", "yes")
        assert alice.of_type("message")[1]["message"]["reply_to"] == {"id": first["message"]["id"], "seq": 1}

    async def test_an_acknowledged_message_is_committed(self, acme: Tenant, peers: Peers) -> None:
        alice = await peers.connect(acme, "alice")
        for number in range(10):
            reply = await alice.post(ROOM, f"number {number}")
            stored = await run_in_tenant("acme", Message.objects.get, pk=reply["message"]["id"])
            assert (stored.content, stored.seq) == (f"number {number}", reply["message"]["seq"])

    async def test_a_repeated_send_is_the_same_message(self, acme: Tenant, peers: Peers) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        client_id = "7a1d1c6e-0c0d-4b7e-9f57-6cf5ad0e3c55"
        first = await alice.post(ROOM, "once", client_id=client_id)
        second = await alice.post(ROOM, "once", client_id=client_id)
        assert (first["duplicate"], second["duplicate"]) == (False, True)
        assert first["message"] == second["message"]
        other = await alice.post(ROOM, "another text", client_id=client_id)
        assert (other["type"], other["code"]) == ("error", "conflict")
        await got(bob, "once")

    async def test_a_message_written_by_the_host_arrives_live(self, acme: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")

        def host_code() -> int:
            users = acme.users
            return Message.objects.create(sender=users["alice"], receiver=users["bob"], content="psst").room_id

        room = await run_in_tenant("acme", host_code)
        await bob.until(lambda: bool(bob.of_type("room_added")))
        assert bob.of_type("room_added")[0]["room"]["name"] == "alice"
        await got(bob, "psst", room=room)
        await bob.until(lambda: bool(bob.of_type("notification")))
        assert bob.of_type("notification")[0]["notification"]["text"] == "You have a new message from alice"
        await carol.ask("ping")
        assert [event["type"] for event in carol.events if event["type"] != "presence"] == ["hello"]

    async def test_a_mentioned_member_is_notified_once_and_live(self, acme: Tenant, peers: Peers) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        await alice.post(ROOM, "@bob and @bob again, but not @nobody")
        await bob.until(lambda: bool(bob.of_type("notification")))
        await got(bob, "@bob and @bob again, but not @nobody")
        assert [event["notification"]["text"] for event in bob.of_type("notification")] == ["alice mentioned you"]
        message = bob.of_type("message")[0]["message"]
        assert [user["username"] for user in message["mentioned_users"]] == ["bob"]
        assert message["is_broadcast"] is False

    async def test_typing_and_reading_are_told_to_the_room_and_not_stored(
        self, acme: Tenant, globex: Tenant, peers: Peers
    ) -> None:
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
        stranger = await peers.connect(globex, "bob")
        await alice.post(ROOM, "read me")
        await bob.ask("typing", room=ROOM, is_typing=True)
        assert (await bob.ask("read", room=ROOM, seq=1))["seq"] == 1
        assert (await bob.ask("read", room=ROOM, seq=0))["seq"] == 1
        await alice.until(lambda: bool(alice.of_type("read")))
        assert alice.of_type("typing")[0]["user"]["username"] == "bob"
        assert alice.of_type("read") == [
            {"type": "read", "room": ROOM, "user": {"id": "2", "username": "bob"}, "seq": 1}
        ]
        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]


class TestPresence:
    async def test_a_user_with_two_sockets_comes_and_goes_once(
        self, acme: Tenant, globex: Tenant, peers: Peers
    ) -> None:
        bob, stranger = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")
        first = await peers.connect(acme, "alice")
        second = await peers.connect(acme, "alice")
        await bob.until(lambda: bool(bob.of_type("presence")))
        late = await peers.connect(acme, "carol")
        assert {user["username"] for user in late.hello["online"]} >= {"alice", "bob"}
        await first.close()
        await bob.ask("ping")
        await second.close()
        await bob.until(lambda: bob.of_type("presence")[-1]["is_online"] is False)
        told = [(event["user"]["username"], event["is_online"]) for event in bob.of_type("presence")]
        assert [is_online for name, is_online in told if name == "alice"] == [True, False]
        await stranger.ask("ping")
        assert stranger.of_type("presence") == []

    async def test_who_reconnects_at_once_stays_online(self, acme: Tenant, peers: Peers) -> None:
        bob = await peers.connect(acme, "bob")
        for _ in range(5):
            await (await peers.connect(acme, "alice")).close()
        await peers.connect(acme, "alice")
        await bob.until(lambda: bool(bob.of_type("presence")) and bob.of_type("presence")[-1]["is_online"])
        status = await run_in_tenant("acme", actions.ensure_userstatus_exists, acme.users["alice"])
        assert status.is_online

    @pytest.mark.parametrize("failing", ["opened", "closed"])
    async def test_what_could_not_be_stored_comes_right(
        self, failing: str, acme: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.TENANT_MESSAGING = {"PRESENCE_TTL": 1.0}
        store, calls = actions.store_connections, []

        def fail_once(**changes: Any) -> None:
            if "alice" in {user.get_username() for user in changes[failing]}:
                calls.append("alice")
                if len(calls) == 1:
                    raise Unavailable("The database is away.")
            store(**changes)

        bob = await peers.connect(acme, "bob")
        monkeypatch.setattr(presence, "store_connections", fail_once)
        alice = await peers.connect(acme, "alice")
        await bob.until(lambda: bool(bob.of_type("presence")) and bob.of_type("presence")[-1]["is_online"])
        await alice.close()
        await bob.until(lambda: not bob.of_type("presence")[-1]["is_online"])
        assert "alice" in calls


class TestResume:
    async def test_what_was_missed_comes_first_in_order_and_once(self, acme: Tenant, peers: Peers) -> None:
        bob = await peers.connect(acme, "bob")
        await write(acme, "one", "two")
        await got(bob, "one", "two")
        epoch = bob.hello["rooms"][0]["epoch"]
        await bob.close()
        await write(acme, "three", "four")

        again = await peers.connect(acme, "bob", resume={str(ROOM): {"epoch": epoch, "seq": 2}})
        await got(again, "three", "four")
        await write(acme, "five")
        await got(again, "three", "four", "five")

    async def test_nothing_arrives_before_the_resume_and_nothing_is_lost_until_it(
        self, acme: Tenant, peers: Peers
    ) -> None:
        await write(acme, "before")
        bob = await peers.connect(acme, "bob", resume=False)
        await write(acme, "between")
        await bob.ask("ping")
        assert bob.contents() == []
        await bob.ask("resume", positions={})
        await write(acme, "after")
        await got(bob, "between", "after")

    async def test_a_stream_resumed_during_a_flood_is_whole(self, acme: Tenant, peers: Peers) -> None:
        bob = await peers.connect(acme, "bob")
        epoch = bob.hello["rooms"][0]["epoch"]
        await bob.close()
        contents = [f"number {number}" for number in range(120)]
        flood = asyncio.create_task(write(acme, *contents))
        alice = await peers.connect(acme, "alice")
        await alice.until(lambda: len(alice.events) > 20)
        again = await peers.connect(acme, "bob", resume={str(ROOM): {"epoch": epoch, "seq": 0}})
        await flood
        await got(again, *contents)

    async def test_too_much_at_once_is_left_to_paging(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RESUME_LIMIT": 5}
        await write(acme, *"abcdefg")
        bob = await peers.connect(acme, "bob", resume=False)
        epoch = bob.hello["rooms"][0]["epoch"]
        reply = await bob.ask("resume", positions={str(ROOM): {"epoch": epoch, "seq": 1}})
        assert reply["rooms"] == {str(ROOM): {"status": "limited", "seq": 7}}
        page = await bob.ask("history", room=ROOM, after=1, limit=10)
        assert [message["content"] for message in page["messages"]] == list("bcdefg")
        await write(acme, "h")
        await got(bob, "h")

    @pytest.mark.parametrize(
        ("room", "position", "status"),
        [
            (ROOM, {"epoch": "another", "seq": 1}, "reset"),
            (ROOM, {"seq": 99}, "reset"),
            (77, {"seq": 0}, "gone"),
        ],
    )
    async def test_a_position_that_means_nothing_here_is_told(
        self, room: int, position: dict[str, Any], status: str, acme: Tenant, peers: Peers
    ) -> None:
        await write(acme, "one")
        bob = await peers.connect(acme, "bob", resume=False)
        epoch = bob.hello["rooms"][0]["epoch"]
        reply = await bob.ask("resume", positions={str(room): {"epoch": epoch, **position}})
        assert reply["rooms"][str(room)]["status"] == status
        await write(acme, "two")
        await got(bob, "two")


class TestMembers:
    async def test_a_newcomer_gets_what_comes_after_the_joining(self, acme: Tenant, peers: Peers) -> None:
        alice = await peers.connect(acme, "alice")
        dave = await run_in_tenant("acme", acme.create_user, "dave")
        newcomer = await peers.connect(acme, "dave")
        assert newcomer.hello["rooms"] == []
        await write(acme, "a secret")
        await run_in_tenant("acme", actions.add_members, acme.users["alice"], room_id=ROOM, users=[dave])
        await write(acme, "welcome")
        await got(newcomer, "welcome")
        await got(alice, "a secret", "welcome")
        assert newcomer.of_type("room_added")[0]["room"]["id"] == ROOM
        assert alice.of_type("members")[0]["joined"] == [{"id": str(dave.pk), "username": "dave"}]
        page = await newcomer.ask("history", room=ROOM)
        assert [message["content"] for message in page["messages"]] == ["welcome"]

    async def test_who_is_removed_during_a_flood_gets_nothing_after_it(self, acme: Tenant, peers: Peers) -> None:
        bob, alice = await peers.connect(acme, "bob"), await peers.connect(acme, "alice")
        contents = [f"number {number}" for number in range(60)]
        flood = asyncio.create_task(write(acme, *contents))
        await bob.until(lambda: len(bob.contents()) > 10)
        users = acme.users
        await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=ROOM, user=users["bob"])
        await flood
        await bob.until(lambda: bool(bob.of_type("room_removed")))
        await got(alice, *contents)
        left = await run_in_tenant("acme", Membership.objects.get, room_id=ROOM, user=users["bob"])
        assert max(event["seq"] for event in bob.events if "after" in event) <= left.left_seq
        refused = await bob.post(ROOM, "let me in")
        assert (refused["type"], refused["code"]) == ("error", "not_found")
        assert (await bob.ask("history", room=ROOM))["code"] == "not_found"


def seqs(message: dict[str, Any]) -> set[int]:
    """The places in timelines that a message of the channel layer carries."""
    return {row[3] for row in message.get("hints", ())} - {0}


class LossyLayer:
    """A channel layer of one process that can be told to lose, hold back or repeat what is sent."""

    def __init__(self) -> None:
        from channels.layers import InMemoryChannelLayer

        self.inner = InMemoryChannelLayer(capacity=100_000)
        self.is_down = False
        self.fate: Callable[[dict[str, Any]], int] = lambda _message: 1
        self.held: list[tuple[str, dict[str, Any]]] = []

    async def new_channel(self, *args: Any) -> str:
        self._fail_if_down()
        return str(await self.inner.new_channel(*args))

    async def receive(self, channel: str) -> Any:
        return await self.inner.receive(channel)

    async def group_add(self, group: str, channel: str) -> None:
        self._fail_if_down()
        await self.inner.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        self._fail_if_down()
        await self.inner.group_discard(group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self._fail_if_down()
        copies = self.fate(message)
        if copies < 0:
            self.held.append((group, message))
        for _ in range(copies):
            await self.inner.group_send(group, message)

    async def release(self) -> None:
        """Send what was held back, the last first."""
        for group, message in reversed(self.held):
            await self.inner.group_send(group, message)
        self.held.clear()

    def _fail_if_down(self) -> None:
        if self.is_down:
            raise ConnectionError("the layer is down")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LossyLayer:
    layer = LossyLayer()
    monkeypatch.setattr("django_tenant_messaging.realtime.link.get_channel_layer", lambda _alias: layer)
    return layer


@pytest.fixture
async def other_process(layer: LossyLayer, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    """The hub of a second process: it learns of the first one's messages by the layer and the database alone."""
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
    async with another_hub(peers) as hub:
        yield hub


class TestTwoProcesses:
    @pytest.fixture
    async def pair(self, acme: Tenant, peers: Peers, other_process: Hub) -> tuple[Peer, Peer]:
        """alice in the first process, bob in the second."""
        return await peers.connect(acme, "alice"), await peers.connect(acme, "bob", hub=other_process)

    async def test_events_cross_by_the_layer(self, pair: tuple[Peer, Peer], settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        alice, bob = pair
        for number in range(30):
            await alice.post(ROOM, f"number {number}")
        await got(bob, *(f"number {number}" for number in range(30)))
        assert not any(message["is_own_message"] for message in (event["message"] for event in bob.of_type("message")))

    async def test_a_lost_hint_is_read_from_the_database_as_soon_as_its_successor_comes(
        self, pair: tuple[Peer, Peer], layer: LossyLayer, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        alice, bob = pair
        await asyncio.sleep(0.2)  # the comparison that was already due
        layer.fate = lambda message: 0 if seqs(message) & {2, 3, 7} else 1
        for number in range(1, 11):
            await alice.post(ROOM, f"number {number}")
        await got(bob, *(f"number {number}" for number in range(1, 11)))

    async def test_a_lost_last_hint_is_found_without_a_successor(
        self, pair: tuple[Peer, Peer], layer: LossyLayer
    ) -> None:
        alice, bob = pair
        layer.fate = lambda _message: 0
        await alice.post(ROOM, "anybody there?")
        await got(bob, "anybody there?")

    async def test_repeated_and_reordered_hints_make_no_difference(
        self, pair: tuple[Peer, Peer], layer: LossyLayer
    ) -> None:
        alice, bob = pair
        layer.fate = lambda message: -1 if any(seq % 2 for seq in seqs(message)) else 2
        for number in range(1, 11):
            await alice.post(ROOM, f"number {number}")
        await layer.release()
        await got(bob, *(f"number {number}" for number in range(1, 11)))

    async def test_a_socket_ahead_of_its_process_gets_nothing_twice(
        self, acme: Tenant, peers: Peers, pair: tuple[Peer, Peer], layer: LossyLayer, other_process: Hub, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        alice, bob = pair
        await asyncio.sleep(0.2)  # the comparison that was already due
        layer.fate = lambda _message: -1
        await alice.post(ROOM, "one")
        await alice.post(ROOM, "two")
        ahead = await peers.connect(acme, "carol", hub=other_process)
        assert ahead.hello["rooms"][0]["seq"] == 2
        await layer.release()
        await got(bob, "one", "two")
        layer.fate = lambda _message: 1
        await alice.post(ROOM, "three")
        await got(ahead, "three")
        await got(bob, "one", "two", "three")

    async def test_a_layer_that_is_down_refuses_nothing_and_loses_nothing(
        self, acme: Tenant, peers: Peers, layer: LossyLayer, other_process: Hub
    ) -> None:
        layer.is_down = True
        alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob", hub=other_process)
        await alice.post(ROOM, "through the dark")
        await got(alice, "through the dark")
        await got(bob, "through the dark")
        layer.is_down = False
        await alice.post(ROOM, "and back")
        await got(bob, "through the dark", "and back")

    async def test_a_lost_invitation_is_found(
        self, acme: Tenant, peers: Peers, layer: LossyLayer, other_process: Hub
    ) -> None:
        dave = await run_in_tenant("acme", acme.create_user, "dave")
        newcomer = await peers.connect(acme, "dave", hub=other_process)
        layer.fate = lambda _message: 0
        await run_in_tenant("acme", actions.add_members, acme.users["alice"], room_id=ROOM, users=[dave])
        await write(acme, "welcome")
        await got(newcomer, "welcome")

    async def test_a_hint_of_another_history_does_no_harm(self, pair: tuple[Peer, Peer], other_process: Hub) -> None:
        alice, bob = pair
        await alice.post(ROOM, "one")
        await got(bob, "one")
        feed = other_process.feeds["acme", ROOM]
        from django_tenant_messaging.realtime.hints import Hint

        feed.offer([Hint("acme", "room", ROOM, '{"type":"bogus"}', seq=900, after=899)])
        await alice.post(ROOM, "two")
        await got(bob, "one", "two")
        assert bob.of_type("bogus") == []

    async def test_who_was_removed_unnoticed_isnt_caught_up_past_it(
        self, acme: Tenant, peers: Peers, layer: LossyLayer, other_process: Hub, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        await asyncio.sleep(0.2)  # the comparison that was already due
        await write(acme, "one")
        bob = await peers.connect(acme, "bob", hub=other_process, resume=False)
        layer.fate = lambda _message: 0
        users = acme.users
        await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=ROOM, user=users["bob"])
        await write(acme, "a secret")
        epoch = bob.hello["rooms"][0]["epoch"]
        await bob.ask("resume", positions={str(ROOM): {"epoch": epoch, "seq": 0}})
        await bob.until(lambda: bool(bob.of_type("room_removed")))
        assert "a secret" not in bob.contents()

    async def test_users_are_online_as_long_as_one_process_has_them(
        self, acme: Tenant, peers: Peers, other_process: Hub
    ) -> None:
        carol = await peers.connect(acme, "carol")
        here, there = await peers.connect(acme, "alice"), await peers.connect(acme, "alice", hub=other_process)
        await carol.until(lambda: bool(carol.of_type("presence")))
        await other_process.presence.settled(5)
        await here.close()
        await hub_of_this_loop().presence.settled(5)
        await carol.ask("ping")
        assert [event["is_online"] for event in carol.of_type("presence")] == [True]
        await there.close()
        await carol.until(lambda: not carol.of_type("presence")[-1]["is_online"])
        assert [event["is_online"] for event in carol.of_type("presence")] == [True, False]


class TestSlowClients:
    async def test_who_reads_late_gets_everything_once_and_delays_nobody(
        self, acme: Tenant, peers: Peers, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8}
        slow, quick = await peers.connect(acme, "bob"), await peers.connect(acme, "alice")
        slow.reads.clear()
        contents = [f"number {number}" for number in range(300)]
        await write(acme, *contents)
        await got(quick, *contents)
        assert len(slow.contents()) < 20
        slow.reads.set()
        await got(slow, *contents)

    async def test_two_rooms_that_flood_a_slow_reader_both_arrive_whole(
        self, acme: Tenant, peers: Peers, settings: Any
    ) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8}
        users = acme.users
        second = await run_in_tenant("acme", actions.create_room, users["carol"], name="second", members=[users["bob"]])
        slow = await peers.connect(acme, "bob")
        slow.delay = 0.002
        contents = [f"number {number}" for number in range(200)]
        await asyncio.gather(write(acme, *contents), write(acme, *contents, room=second.pk))
        slow.delay = 0
        await got(slow, *contents)
        await got(slow, *contents, room=second.pk)

    async def test_who_never_reads_is_dropped(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_STUCK_TIMEOUT": 0.2}
        stuck = await peers.connect(acme, "bob")
        stuck.reads.clear()
        await write(acme, "hello?")
        assert stuck.task is not None
        await asyncio.wait_for(asyncio.shield(stuck.task), 10)

    async def test_who_says_nothing_is_closed(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"HEARTBEAT_INTERVAL": 0.1}
        silent = await peers.connect(acme, "bob")
        await silent.until(lambda: silent.close_code is not None)
        assert silent.close_code == 4408
        assert silent.of_type("heartbeat")[0]["heads"] == {str(ROOM): 0}


async def test_a_stopping_server_tells_its_clients_to_come_back_and_leaves_no_ghost(
    acme: Tenant, peers: Peers, other_process: Hub
) -> None:
    bob = await peers.connect(acme, "bob", hub=other_process)
    await other_process.presence.settled(5)
    await other_process.stop()
    assert other_process.presence.online_count == 0
    await bob.until(lambda: bob.close_code is not None)
    assert bob.close_code == 1012
    status = await run_in_tenant("acme", actions.ensure_userstatus_exists, acme.users["bob"])
    assert not status.is_online


async def test_the_numbers_of_a_busy_room_have_no_gap(acme: Tenant, peers: Peers) -> None:
    users = [await peers.connect(acme, name) for name in ("alice", "bob", "carol")]
    replies = await asyncio.gather(*(user.post(ROOM, f"number {n}") for n in range(50) for user in users))
    assert sorted(reply["message"]["seq"] for reply in replies) == list(range(1, 151))
    counter = await run_in_tenant("acme", RoomCounter.objects.get, room_id=ROOM)
    assert counter.last_seq == 150
    history = await run_in_tenant(
        "acme", lambda: list(Message.objects.order_by("seq").values_list("content", flat=True))
    )
    for user in users:
        await got(user, *history)
