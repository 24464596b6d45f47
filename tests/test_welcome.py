"""A client is told nothing before its hello, and loses nothing that happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from django_tenant_messaging import actions
from django_tenant_messaging.realtime import following
from django_tenant_messaging.tenancy import run_in_tenant

if TYPE_CHECKING:
    import pytest

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant


async def test_what_happens_during_the_welcome_waits_for_the_hello(
    acme: Tenant, people: Any, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TENANT_MESSAGING = {"HEARTBEAT_INTERVAL": 0.5}
    alice, bob, carol = (acme.users[name] for name in people)
    for name in ("stays", "goes"):
        await run_in_tenant("acme", actions.create_room, alice, name=name, members=[bob, carol])
    observer = await peers.connect(acme, "alice")

    loop, reached, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slowly(users: list[Any], **_limit: int) -> list[Any]:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(10)
        return [[] for _ in users]

    monkeypatch.setattr(following, "online_contacts_of", slowly)
    connecting = asyncio.create_task(peers.connect(acme, "bob", resume=False))
    await reached.wait()
    await run_in_tenant("acme", actions.create_room, alice, name="comes", members=[bob])
    await run_in_tenant("acme", actions.remove_member, alice, room_id=2, user=bob)
    await observer.until(lambda: bool(observer.of_type("room_added")))
    heartbeats = len(observer.of_type("heartbeat"))
    await observer.until(lambda: len(observer.of_type("heartbeat")) > heartbeats)
    go_on.set()
    peer = await connecting

    assert peer.events[0]["type"] == "hello"
    assert [room["name"] for room in peer.hello["rooms"]] == ["stays", "goes"]
    await peer.ask("resume", positions={})
    await peer.until(lambda: bool(peer.of_type("room_added")))
    assert [event["room"]["name"] for event in peer.of_type("room_added")] == ["comes"]
    await run_in_tenant("acme", actions.send_message, alice, room_id=3, content="welcome")
    await peer.until(lambda: peer.contents() == ["welcome"])
    await peer.until(lambda: bool(peer.of_type("room_removed")))
    assert [event["room"] for event in peer.of_type("room_removed")] == [2]
