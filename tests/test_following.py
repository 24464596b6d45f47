"""A user in more rooms than a socket follows: nothing is lost in silence, and nothing grows without a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant

if TYPE_CHECKING:
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

MOST = 3


@pytest.fixture(autouse=True)
def rooms(acme: Tenant, globex: Tenant, people: Any, settings: Any) -> None:
    """Rooms 1 to 8 with alice and bob in acme, of which 1, 7 and 8 have the latest activity; 1 and 2 in globex."""
    settings.TENANT_MESSAGING = {"MAX_ROOMS_PER_SOCKET": MOST, "RECONCILE_INTERVAL": 0.1}
    for tenant, number in ((acme, 8), (globex, 2)):
        with tenant.activated():
            alice, bob, _carol = (tenant.users[name] for name in people)
            for name in range(1, number + 1):
                assert actions.create_room(alice, name=f"room {name}", members=[bob]).pk == name
            actions.send_message(bob, room_id=1, content="an old message")


async def write(tenant: Tenant, room: int, content: str) -> None:
    await run_in_tenant(tenant.schema_name, actions.send_message, tenant.users["bob"], room_id=room, content=content)


def named(peer: Peer) -> list[int]:
    return [room["id"] for room in peer.hello["rooms"]]


async def added(peer: Peer) -> list[int]:
    await peer.ask("ping")
    return [event["room"]["id"] for event in peer.of_type("room_added")]


async def test_a_socket_follows_the_rooms_with_the_latest_activity_and_says_so(
    acme: Tenant, globex: Tenant, peers: Peers
) -> None:
    alice, twin = await peers.connect(acme, "alice"), await peers.connect(globex, "alice")
    assert (named(alice), alice.hello["rooms_limited"]) == ([1, 7, 8], True)
    assert (named(twin), twin.hello["rooms_limited"]) == ([1, 2], False)
    await write(acme, 2, "unheard")
    await write(acme, 7, "heard")
    await alice.until(lambda: alice.contents() == ["heard"])


async def test_a_room_that_is_used_is_followed_from_the_reply_on(acme: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice")
    await write(acme, 2, "before")
    reply = await alice.ask("history", room=2)
    assert [message["content"] for message in reply["messages"]] == ["before"]
    assert await added(alice) == [2]
    # What the client has by the history isn't sent again.
    (event,) = alice.of_type("room_added")
    assert event["room"]["seq"] == reply["seq"] == 1
    await write(acme, 2, "after")
    await alice.until(lambda: alice.contents() == ["after"])
    assert (await alice.post(3, "into a quiet room"))["type"] == "ok"
    await alice.until(lambda: alice.contents() == ["after", "into a quiet room"])
    await alice.ask("history", room=3)
    assert await added(alice) == [2, 3]


async def test_naming_others_rooms_follows_nothing(acme: Tenant, peers: Peers) -> None:
    theirs = await run_in_tenant("acme", actions.create_room, acme.users["carol"], name="theirs")
    alice = await peers.connect(acme, "alice")
    for kind, fields in (("history", {}), ("read", {"seq": 0}), ("typing", {"is_typing": True})):
        reply = await alice.ask(kind, room=theirs.pk, **fields)
        assert reply["code"] == "not_found"
    assert await added(alice) == []
    assert ("acme", theirs.pk) not in hub_of_this_loop().feeds


async def test_a_room_that_is_joined_is_followed_besides_those_that_are(acme: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice")
    for room in (1, 2, 3, 4, 5, 6, 8):
        await write(acme, room, "making 7 the least active")
    invited = acme.users["alice"]
    joined = await run_in_tenant("acme", actions.create_room, acme.users["bob"], name="new", members=[invited])
    await alice.until(lambda: bool(alice.of_type("room_added")))
    for room in (joined.pk, 7):
        await write(acme, room, f"welcome to {room}")
    await alice.until(lambda: alice.contents()[2:] == [f"welcome to {joined.pk}", "welcome to 7"])
    assert await added(alice) == [joined.pk]
    assert alice.of_type("room_removed") == []


async def test_the_comparison_asks_for_new_rooms_only(acme: Tenant, peers: Peers) -> None:
    await peers.connect(acme, "alice")
    (socket,) = hub_of_this_loop().sockets["acme", str(acme.users["alice"].pk)]
    assert [room for room in (1, 2, 7, 8, 9) if socket.misses_room(room)] == [9]


async def test_leaving_a_room_stops_it_and_brings_no_other(acme: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice")
    await run_in_tenant("acme", actions.leave_room, acme.users["alice"], room_id=7)
    await alice.until(lambda: bool(alice.of_type("room_removed")))
    assert [event["room"] for event in alice.of_type("room_removed")] == [7]
    assert await added(alice) == []
    reply = await alice.ask("history", room=7)
    assert reply["code"] == "not_found"


async def test_far_too_many_are_a_fresh_start_with_the_latest(acme: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice")
    bob = acme.users["bob"]
    for name in range(2 * MOST - len(named(alice)) + 1):
        await run_in_tenant("acme", actions.create_room, bob, name=f"new {name}", members=[acme.users["alice"]])
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 1012
    # Of others' rooms, those in which nothing happened come last.
    for room in (10, 11, 12):
        await write(acme, room, "first")
    again = await peers.connect(acme, "alice")
    assert (named(again), again.hello["rooms_limited"]) == ([10, 11, 12], True)
    await write(acme, 12, "welcome")
    await again.until(lambda: again.contents() == ["welcome"])
    assert again.close_code is None


async def test_using_far_too_many_is_a_fresh_start_with_those_that_were_used(
    acme: Tenant, peers: Peers, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {"MAX_ROOMS_PER_SOCKET": 1}
    alice = await peers.connect(acme, "alice")
    assert named(alice) == [1]
    assert (await alice.post(2, "hello"))["type"] == "ok"
    assert await added(alice) == [2]
    alice.send_text('{"type": "history", "id": "x", "room": 3}')
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 1012
    assert named(await peers.connect(acme, "alice")) == [2]


async def test_a_socket_below_the_limit_that_gets_far_above_it_starts_afresh(globex: Tenant, peers: Peers) -> None:
    alice = await peers.connect(globex, "alice")
    assert alice.hello["rooms_limited"] is False
    bob = globex.users["bob"]

    def join_many() -> None:
        for number in range(2 * MOST):
            actions.create_room(bob, name=f"new {number}", members=[globex.users["alice"]])

    await run_in_tenant("globex", join_many)
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 1012
    assert alice.of_type("room_removed") == []


async def test_resuming_in_a_room_that_is_not_followed_says_so(acme: Tenant, peers: Peers) -> None:
    alice = await peers.connect(acme, "alice", resume=False)
    epoch = alice.hello["rooms"][0]["epoch"]
    positions = {room: {"epoch": epoch, "seq": 0} for room in ("1", "2", "999")}
    reply = await alice.ask("resume", positions=positions)
    assert {room: answer["status"] for room, answer in reply["rooms"].items()} == {
        "1": "ok",
        "2": "unfollowed",
        "999": "unfollowed",
    }
    await alice.until(lambda: alice.contents() == ["an old message"])
