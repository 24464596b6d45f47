"""Edits, deletions and other names reach everybody as what they made of it, once and in order; nobody else."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction

from django_tenant_messaging import actions
from django_tenant_messaging.events import bus
from django_tenant_messaging.models import Message, RoomCounter
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub
from tests.harness.unlimited import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django_tenant_messaging.realtime.hub import Hub
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1
TIMELINE = {"message", "members", "room", "skip"}


@pytest.fixture
def greeted(acme: Tenant, globex: Tenant, team: None) -> None:
    """A message 1 of bob's in room 1 of both tenants, which alice owns."""
    for tenant in (acme, globex):
        with tenant.activated():
            actions.send_message(tenant.users["bob"], room_id=ROOM, content=f"of {tenant.schema_name}")


pytestmark = pytest.mark.usefixtures("greeted")


@contextmanager
def unannounced() -> Iterator[None]:
    """Nobody is told of what the body commits, as when the process dies right after it."""
    sinks, bus._sinks[:] = list(bus._sinks), []
    try:
        yield
    finally:
        bus._sinks[:] = sinks


async def act(tenant: Tenant, action: Any, by: str, **fields: Any) -> Any:
    """Do something without a socket."""
    return await run_in_tenant(tenant.schema_name, action, tenant.users[by], room_id=ROOM, **fields)


def timeline(peer: Peer) -> list[dict[str, Any]]:
    """The frames of the room's timeline, after a look at their order."""
    frames = [event for event in peer.events if event["type"] in TIMELINE and event["room"] == ROOM]
    for earlier, later in pairwise(frames):
        assert later["after"] == earlier["seq"] > earlier["after"]
    return frames


async def at(peer: Peer, seq: int) -> list[dict[str, Any]]:
    """Wait until a peer is at a position and return all that it got of the timeline; a round trip later as much."""
    await peer.until(lambda: any(frame["seq"] >= seq for frame in timeline(peer)))
    await peer.ask("ping")
    frames = timeline(peer)
    assert frames[-1]["seq"] == seq
    return frames


def follow(states: dict[int, dict[str, Any]], frames: list[dict[str, Any]]) -> None:
    """Do with frames what a client does: a message that is new is added, another replaces its older state."""
    for frame in frames:
        if frame["type"] == "message":
            message = frame["message"]
            assert message["changed_seq"] == frame["seq"]
            if message["seq"] > frame["after"]:
                assert message["id"] not in states
            else:
                assert states.get(message["id"], message)["changed_seq"] <= message["changed_seq"]
            states[message["id"]] = message


def has(peer: Peer, content: str) -> bool:
    return content in peer.contents()


async def stored(tenant: Tenant) -> dict[int, tuple[str, int, bool, bool]]:
    def read() -> dict[int, tuple[str, int, bool, bool]]:
        rows = Message.objects.filter(room_id=ROOM)
        return {
            row.pk: (row.content, row.changed_seq, row.edited_at is not None, row.deleted_at is not None)
            for row in rows
        }

    return await run_in_tenant(tenant.schema_name, read)


def seen(states: dict[int, dict[str, Any]]) -> dict[int, tuple[str, int, bool, bool]]:
    return {
        key: (state["content"], state["changed_seq"], state["edited_at"] is not None, state["deleted_at"] is not None)
        for key, state in states.items()
    }


class TestLive:
    async def test_an_edit_reaches_everybody_and_the_authors_other_sockets(
        self, acme: Tenant, globex: Tenant, peers: Peers
    ) -> None:
        bob, other_tab = await peers.connect(acme, "bob"), await peers.connect(acme, "bob")
        alice, stranger = await peers.connect(acme, "alice"), await peers.connect(globex, "bob")
        reply = await bob.ask("edit", room=ROOM, message_id=1, content="now for @carol")
        assert reply["type"] == "ok", reply
        assert {key: value for key, value in reply["message"].items() if key != "edited_at"} == {
            "id": 1,
            "seq": 1,
            "changed_seq": 2,
            "deleted_at": None,
        }
        for peer, is_own in ((bob, True), (other_tab, True), (alice, False)):
            (frame,) = await at(peer, 2)
            message = frame["message"]
            assert (frame["type"], frame["after"], frame["seq"]) == ("message", 1, 2)
            assert (message["id"], message["seq"], message["changed_seq"]) == (1, 1, 2)
            assert (message["content"], message["is_own_message"]) == ("now for @carol", is_own)
            assert [user["username"] for user in message["mentioned_users"]] == ["carol"]
            assert message["edited_at"] == reply["message"]["edited_at"] != message["timestamp"]
            assert message["edited_at"].endswith("Z")
        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]
        assert (await stored(globex))[1] == ("of globex", 1, False, False)

    @pytest.mark.parametrize("by", ["alice", "bob"])
    async def test_a_deletion_reaches_everybody(self, by: str, acme: Tenant, globex: Tenant, peers: Peers) -> None:
        deleter, carol = await peers.connect(acme, by), await peers.connect(acme, "carol")
        stranger = await peers.connect(globex, by)
        reply = await deleter.ask("delete", room=ROOM, message_id=1)
        assert reply["message"]["changed_seq"] == 2, reply
        for peer in (deleter, carol):
            (frame,) = await at(peer, 2)
            message = frame["message"]
            assert (message["id"], message["content"], message["mentioned_users"]) == (1, "", [])
            assert message["deleted_at"] == reply["message"]["deleted_at"] is not None
            assert message["is_broadcast"] is False
            assert message["is_own_message"] is (peer is deleter and by == "bob")
        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]

    async def test_another_name_reaches_everybody(self, acme: Tenant, globex: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")
        stranger = await peers.connect(globex, "bob")
        reply = await bob.ask("rename", room=ROOM, name="crew")
        assert (reply["type"], reply["room"], reply["name"]) == ("ok", ROOM, "crew")
        for peer in (bob, carol):
            assert await at(peer, 2) == [{"type": "room", "room": ROOM, "after": 1, "seq": 2, "name": "crew"}]
        late = await peers.connect(acme, "alice")
        assert [(room["name"], room["seq"]) for room in late.hello["rooms"]] == [("crew", 2)]
        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]

    async def test_a_repeated_change_is_one(self, acme: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")
        for kind, fields in (
            ("edit", {"message_id": 1, "content": "once"}),
            ("rename", {"name": "once"}),
            ("delete", {"message_id": 1}),
        ):
            first, second = [await bob.ask(kind, room=ROOM, **fields) for _ in range(2)]
            assert first["type"] == "ok", first
            assert {**first, "id": None} == {**second, "id": None}
        assert [frame["type"] for frame in await at(carol, 4)] == ["message", "room", "message"]

    async def test_a_send_repeated_after_its_edit_is_the_same_message(self, acme: Tenant, peers: Peers) -> None:
        alice = await peers.connect(acme, "alice")
        client_id = "7a1d1c6e-0c0d-4b7e-9f57-6cf5ad0e3c55"
        first = await alice.post(ROOM, "before", client_id=client_id)
        await alice.ask("edit", room=ROOM, message_id=first["message"]["id"], content="after")
        second = await alice.post(ROOM, "before", client_id=client_id)
        assert (second["type"], second["duplicate"], second["message"]) == ("ok", True, first["message"])

    async def test_who_is_newly_mentioned_is_notified_live(self, acme: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")
        for content in ("hello @carol", "hello", "hello again @carol"):
            assert (await bob.ask("edit", room=ROOM, message_id=1, content=content))["type"] == "ok"
        await at(carol, 4)
        (told,) = carol.of_type("notification")
        assert (told["notification"]["text"], told["notification"]["message_id"]) == ("bob mentioned you", 1)

    async def test_earlier_versions_are_read(self, acme: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")
        edits = [await bob.ask("edit", room=ROOM, message_id=1, content=content) for content in ("two", "three")]
        reply = await carol.ask("revisions", room=ROOM, message_id=1)
        assert (reply["room"], reply["message_id"]) == (ROOM, 1)
        assert [revision["content"] for revision in reply["revisions"]] == ["of acme", "two"]
        moments = [edit["message"]["edited_at"] for edit in edits]
        assert [revision["replaced_at"] for revision in reply["revisions"]] == moments
        part = await carol.ask("revisions", room=ROOM, message_id=1, before=reply["revisions"][1]["id"], limit=5)
        assert part["revisions"] == reply["revisions"][:1]
        await bob.ask("delete", room=ROOM, message_id=1)
        assert (await carol.ask("revisions", room=ROOM, message_id=1))["revisions"] == []

    async def test_refused_changes_reach_nobody(self, acme: Tenant, peers: Peers) -> None:
        bob, carol = await peers.connect(acme, "bob"), await peers.connect(acme, "carol")
        assert (await carol.ask("edit", room=ROOM, message_id=1, content="forged"))["code"] == "forbidden"
        assert (await carol.ask("delete", room=ROOM, message_id=1))["code"] == "forbidden"
        assert (await bob.ask("delete", room=ROOM, message_id=2))["code"] == "not_found"
        assert (await bob.ask("edit", room=ROOM, message_id=1, content=" "))["code"] == "invalid"
        assert (await bob.ask("rename", room=ROOM, name="x" * 121))["code"] == "invalid"
        assert (await bob.ask("delete", room=ROOM, message_id=1))["type"] == "ok"
        assert (await bob.ask("edit", room=ROOM, message_id=1, content="back"))["code"] == "conflict"
        assert [frame["message"]["deleted_at"] is not None for frame in await at(carol, 2)] == [True]


class TestMissed:
    async def test_what_changed_while_away_comes_once_as_it_is_now(self, acme: Tenant, peers: Peers) -> None:
        carol = await peers.connect(acme, "carol")
        await carol.ask("ping")
        epoch = carol.hello["rooms"][0]["epoch"]
        await carol.close()
        sent = (await act(acme, actions.send_message, "bob", content="new")).message
        short = (await act(acme, actions.send_message, "bob", content="short-lived")).message
        for content in ("first edit", "second edit"):
            await act(acme, actions.edit_message, "bob", message_id=1, content=content)
            await act(acme, actions.rename_room, "alice", name=content)
        await act(acme, actions.edit_message, "bob", message_id=sent.id, content="new and edited")
        await act(acme, actions.delete_message, "bob", message_id=short.id)

        again = await peers.connect(acme, "carol", resume={str(ROOM): {"epoch": epoch, "seq": 1}})
        frames = await at(again, 9)
        assert [(frame["type"], frame["after"], frame["seq"]) for frame in frames] == [
            ("message", 1, 6),
            ("room", 6, 7),
            ("message", 7, 8),
            ("message", 8, 9),
        ]
        assert frames[1]["name"] == "second edit"
        assert [frame["message"]["content"] for frame in (frames[0], *frames[2:])] == [
            "second edit",
            "new and edited",
            "",
        ]
        # The same objects as in the history.
        page = await again.ask("history", room=ROOM)
        assert page["messages"] == [frames[0]["message"], frames[2]["message"], frames[3]["message"]]

    async def test_what_nobody_was_told_of_is_found(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
        carol = await peers.connect(acme, "carol")
        with unannounced():
            await act(acme, actions.edit_message, "bob", message_id=1, content="quietly")
        await at(carol, 2)
        with unannounced():
            await act(acme, actions.rename_room, "bob", name="quiet")
            await act(acme, actions.delete_message, "bob", message_id=1)
        frames = await at(carol, 4)
        assert [frame.get("name") or frame["message"]["content"] for frame in frames] == ["quietly", "quiet", ""]

    async def test_a_gap_before_a_change_is_filled(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        carol = await peers.connect(acme, "carol")
        with unannounced():
            await act(acme, actions.send_message, "bob", content="between")
            await act(acme, actions.edit_message, "bob", message_id=1, content="lost")
        await act(acme, actions.edit_message, "bob", message_id=1, content="arrived")
        frames = await at(carol, 4)
        assert [frame["message"]["content"] for frame in frames] == ["between", "arrived"]

    async def test_who_reads_late_ends_with_what_is(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"SOCKET_QUEUE_EVENTS": 8}
        slow, quick = await peers.connect(acme, "carol"), await peers.connect(acme, "alice")
        slow.reads.clear()
        ids = [(await act(acme, actions.send_message, "bob", content=f"{number}")).message.id for number in range(40)]
        for number in range(120):
            await act(acme, actions.edit_message, "bob", message_id=ids[number % 40], content=f"edit {number}")
        for message_id in ids[::3]:
            await act(acme, actions.delete_message, "alice", message_id=message_id)
        head = 1 + 40 + 120 + 14
        quick_frames = await at(quick, head)
        assert len(quick_frames) == head - 1
        slow.reads.set()
        slow_frames = await at(slow, head)
        assert len(slow_frames) < len(quick_frames)
        expected = await stored(acme)
        for frames in (quick_frames, slow_frames):
            states: dict[int, dict[str, Any]] = {1: {"content": "of acme", "changed_seq": 1}}
            follow(states, frames)
            del states[1]
            assert seen(states) == {key: value for key, value in expected.items() if key != 1}

    async def test_nothing_is_lost_or_repeated_whatever_happens(
        self, acme: Tenant, globex: Tenant, peers: Peers, settings: Any
    ) -> None:
        """Two people write, edit, delete and rename while a third comes and goes."""
        settings.TENANT_MESSAGING = UNLIMITED
        stranger = await peers.connect(globex, "carol")
        writers = [await peers.connect(acme, name) for name in ("alice", "bob")]
        position = {"epoch": writers[0].hello["rooms"][0]["epoch"], "seq": 1}
        writing = asyncio.gather(*(change_at_random(peer, seed) for seed, peer in enumerate(writers)))
        states: dict[int, dict[str, Any]] = {}
        visits = 0
        while not writing.done() or visits < 5:
            carol = await peers.connect(acme, "carol", resume={str(ROOM): position})
            await asyncio.sleep(0.03 * (visits % 4))
            await carol.ask("ping")
            frames = timeline(carol)
            if frames:
                assert frames[0]["after"] == position["seq"]
                position["seq"] = frames[-1]["seq"]
            follow(states, frames)
            await carol.close()
            visits += 1
        await writing
        head = (await run_in_tenant("acme", RoomCounter.objects.get, room_id=ROOM)).last_seq
        last = await peers.connect(acme, "carol", resume={str(ROOM): position})
        if position["seq"] < head:
            follow(states, await at(last, head))
        for peer in writers:
            live: dict[int, dict[str, Any]] = {}
            follow(live, await at(peer, head))
            assert seen(live) == seen(states)
            name = [frame["name"] for frame in timeline(peer) if frame["type"] == "room"][-1]
            assert [room["name"] for room in last.hello["rooms"]] == [name]
        expected = await stored(acme)
        assert expected.pop(1) == ("of acme", 1, False, False)
        assert seen(states) == expected
        await stranger.ask("ping")
        assert [event["type"] for event in stranger.events] == ["hello"]


async def change_at_random(peer: Peer, seed: int) -> None:
    """Send, edit, delete and rename, one after the other."""
    chance = random.Random(seed)  # noqa: S311 - the same in every run
    mine: list[int] = []
    for number in range(80):
        kind = chance.choice(["send", "edit", "edit", "delete", "rename"]) if mine else "send"
        if kind == "send":
            mine.append((await peer.post(ROOM, f"{seed} {number}"))["message"]["id"])
            continue
        fields: dict[str, Any] = (
            {"name": f"{seed} {number}"} if kind == "rename" else {"message_id": chance.choice(mine)}
        )
        if kind == "edit":
            fields["content"] = f"{seed} {number} edited"
        reply = await peer.ask(kind, room=ROOM, **fields)
        assert reply["type"] == "ok" or (kind, reply["code"]) == ("edit", "conflict"), reply


class TestOtherProcess:
    @pytest.fixture
    async def elsewhere(self, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
        """The hub of a second process, which the first one reaches by a channel layer."""
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
        settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 3600}
        async with another_hub(peers) as hub:
            yield hub

    async def test_changes_cross_by_the_layer(self, acme: Tenant, peers: Peers, elsewhere: Hub) -> None:
        bob, other_tab = await peers.connect(acme, "bob"), await peers.connect(acme, "bob", hub=elsewhere)
        carol = await peers.connect(acme, "carol", hub=elsewhere)
        dave = await run_in_tenant("acme", acme.create_user, "dave")
        newcomer = await peers.connect(acme, "dave", hub=elsewhere)
        await act(acme, actions.add_members, "alice", users=[dave])
        await newcomer.until(lambda: bool(newcomer.of_type("room_added")))
        await bob.ask("edit", room=ROOM, message_id=1, content="edited")
        await bob.ask("rename", room=ROOM, name="crew")
        await bob.ask("delete", room=ROOM, message_id=1)
        for peer, is_own in ((other_tab, True), (carol, False)):
            _members, edited, renamed, deleted = await at(peer, 5)
            assert (edited["message"]["content"], edited["message"]["is_own_message"]) == ("edited", is_own)
            assert renamed["name"] == "crew"
            assert deleted["message"]["deleted_at"] is not None
        assert [frame["type"] for frame in await at(newcomer, 5)] == ["skip", "room", "skip"]


class TestNewcomers:
    async def test_changes_of_what_was_before_only_move_the_position(self, acme: Tenant, peers: Peers) -> None:
        dave = await run_in_tenant("acme", acme.create_user, "dave")
        newcomer = await peers.connect(acme, "dave")
        await act(acme, actions.add_members, "alice", users=[dave])
        await newcomer.until(lambda: bool(newcomer.of_type("room_added")))
        await act(acme, actions.edit_message, "bob", message_id=1, content="a secret")
        own = (await act(acme, actions.send_message, "bob", content="welcome")).message
        await act(acme, actions.edit_message, "bob", message_id=own.id, content="welcome, dave")
        await act(acme, actions.edit_message, "bob", message_id=1, content="another secret")
        frames = await at(newcomer, 6)
        assert [frame["type"] for frame in frames] == ["skip", "message", "message", "skip"]
        assert frames[0] == {"type": "skip", "room": ROOM, "after": 2, "seq": 3}
        for kind in ("edit", "delete", "revisions"):
            content = {"content": "x"} if kind == "edit" else {}
            assert (await newcomer.ask(kind, room=ROOM, message_id=1, **content))["code"] == "not_found"

        epoch = newcomer.of_type("room_added")[0]["room"]["epoch"]
        await newcomer.close()
        await act(acme, actions.delete_message, "bob", message_id=1)
        await act(acme, actions.edit_message, "bob", message_id=own.id, content="welcome again")
        again = await peers.connect(acme, "dave", resume={str(ROOM): {"epoch": epoch, "seq": 2}})
        frames = await at(again, 8)
        assert [(frame["type"], frame["after"]) for frame in frames] == [("skip", 2), ("message", 7)]
        assert frames[1]["message"]["content"] == "welcome again"
        assert "secret" not in str([*newcomer.events, *again.events])

    async def test_each_sees_from_where_they_came(self, acme: Tenant, peers: Peers) -> None:
        """Dave came before the message 3 was written, erin after it; she has an edit of her own in the same run."""
        bob = await peers.connect(acme, "bob")
        newcomers = []
        for name in ("dave", "erin"):
            user = await run_in_tenant("acme", acme.create_user, name)
            newcomers.append(await peers.connect(acme, name))
            await act(acme, actions.add_members, "alice", users=[user])
            if name == "dave":
                assert (await act(acme, actions.send_message, "bob", content="seen by dave")).message.seq == 3
        dave, erin = newcomers
        await erin.until(lambda: bool(erin.of_type("room_added")))
        await dave.until(lambda: bool(dave.of_type("room_added")))
        own = (await act(acme, actions.send_message, "erin", content="of erin")).message
        for peer in (bob, *newcomers):
            await peer.until(partial(has, peer, own.content))

        def change_all() -> None:
            with transaction.atomic():
                for message_id, name in ((1, "bob"), (2, "bob"), (own.id, "erin")):
                    user = acme.users[name]
                    actions.edit_message(user, room_id=ROOM, message_id=message_id, content=f"edited {message_id}")

        await run_in_tenant("acme", change_all)
        shown = {
            peer: [
                frame["message"]["content"] if frame["type"] == "message" else None
                for frame in (await at(peer, 8))[-3:]
            ]
            for peer in (bob, dave, erin)
        }
        assert shown[bob] == ["edited 1", "edited 2", "edited 3"]
        assert shown[dave] == [None, "edited 2", "edited 3"]
        assert shown[erin] == [None, None, "edited 3"]
        assert [peer.of_type("message")[-1]["message"]["is_own_message"] for peer in (dave, erin)] == [False, True]

    async def test_who_may_see_the_history_sees_its_changes(self, acme: Tenant, peers: Peers, settings: Any) -> None:
        settings.TENANT_MESSAGING = {"NEW_MEMBERS_SEE_HISTORY": True}
        dave = await run_in_tenant("acme", acme.create_user, "dave")
        newcomer = await peers.connect(acme, "dave")
        await act(acme, actions.add_members, "alice", users=[dave])
        await newcomer.until(lambda: bool(newcomer.of_type("room_added")))
        await act(acme, actions.edit_message, "bob", message_id=1, content="no secret")
        (frame,) = await at(newcomer, 3)
        assert frame["message"]["content"] == "no secret"
