"""Who is removed and added again while nobody says so: what was written in between isn't theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.realtime import catchup, hub
from django_tenant_messaging.selectors import read_changes, read_returns
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub
from tests.test_delivery import LossyLayer, write

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django_tenant_messaging.realtime.hub import Hub
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1


pytestmark = pytest.mark.usefixtures("team")


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LossyLayer:
    """It loses everything."""
    layer = LossyLayer()
    layer.fate = lambda _message: 0
    monkeypatch.setattr("django_tenant_messaging.realtime.link.get_channel_layer", lambda _alias: layer)
    return layer


@pytest.fixture
async def other_process(layer: LossyLayer, settings: Any, peers: Peers) -> AsyncIterator[Hub]:
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
    async with another_hub(peers) as hub:
        yield hub


async def come_and_go(acme: Tenant) -> None:
    """Remove bob, write, add him again, and write again."""
    users = acme.users
    await run_in_tenant("acme", actions.remove_member, users["alice"], room_id=ROOM, user=users["bob"])
    await write(acme, *(f"secret {number}" for number in range(5)))
    await run_in_tenant("acme", actions.add_members, users["alice"], room_id=ROOM, users=[users["bob"]])
    await write(acme, "welcome back", "and hello")


async def is_back(bob: Peer) -> None:
    """Wait until bob has what is his, and compare."""
    await bob.until(lambda: "and hello" in bob.contents())
    await bob.ask("ping")
    assert [content for content in bob.contents() if content.startswith("secret")] == []
    assert bob.contents()[-2:] == ["welcome back", "and hello"]
    # To the client the room is another one now, so that its events follow each other.
    kinds = [event["type"] for event in bob.events if event["type"] in {"room_removed", "room_added"}]
    assert kinds[:2] == ["room_removed", "room_added"]
    position = None
    for event in bob.events:
        if event["type"] == "room_added":
            position = event["room"]["seq"]
        elif "after" in event and position is not None:
            assert event["after"] == position
            position = event["seq"]
    assert position == 9


@pytest.mark.parametrize("page", [500, 2])
async def test_a_live_socket(
    page: int, acme: Tenant, peers: Peers, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FILL_PAGE", page)
    bob = await peers.connect(acme, "bob", hub=other_process)
    await come_and_go(acme)
    await is_back(bob)


@pytest.mark.parametrize("page", [200, 2])
async def test_a_socket_that_resumes_late(
    page: int, acme: Tenant, peers: Peers, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "PAGE", page)
    bob = await peers.connect(acme, "bob", hub=other_process, resume=False)
    epoch = bob.hello["rooms"][0]["epoch"]
    await come_and_go(acme)
    await bob.ask("resume", positions={str(ROOM): {"epoch": epoch, "seq": 0}})
    await is_back(bob)


async def test_a_slow_socket(acme: Tenant, peers: Peers, other_process: Hub, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1, "SOCKET_QUEUE_EVENTS": 8}
    bob, carol = [await peers.connect(acme, name, hub=other_process) for name in ("bob", "carol")]
    bob.reads.clear()
    await come_and_go(acme)
    await carol.until(lambda: "and hello" in carol.contents())
    bob.reads.set()
    await is_back(bob)


def test_what_is_read_names_those_who_joined_meanwhile(acme: Tenant) -> None:
    """Also when the page ends before, and when they have left again."""
    alice, bob, carol = (acme.users[name] for name in ("alice", "bob", "carol"))
    with acme.activated():
        for user in (bob, carol):
            actions.remove_member(alice, room_id=ROOM, user=user)
        for number in range(3):
            actions.send_message(alice, room_id=ROOM, content=f"{number}")
        for user in (bob, carol):
            actions.add_members(alice, room_id=ROOM, users=[user])
        actions.remove_member(alice, room_id=ROOM, user=carol)
        joined = {str(bob.pk): 6, str(carol.pk): 7}
        everything = read_changes(ROOM, after=0, limit=10)
        assert (everything.seq, everything.complete) == (8, True)
        page = read_changes(ROOM, after=0, limit=2)
        assert (page.seq, page.complete) == (4, False)
        assert read_returns(ROOM, after=0) == joined
        assert read_returns(ROOM, after=6) == {str(carol.pk): 7}
        assert read_returns(ROOM, after=7) == {}
