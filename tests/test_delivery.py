"""Everybody gets every message, in one order, once; the other tenant gets nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions
from django_tenant_messaging.models import ChatRoom, Message
from django_tenant_messaging.tenancy import run_in_tenant

if TYPE_CHECKING:
    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant


def make_room(tenant: Tenant, *names: str) -> int:
    with tenant.activated():
        first, *others = (tenant.users[name] for name in names)
        return actions.create_room(first, name="team", members=others).pk


@pytest.fixture
def rooms(acme: Tenant, globex: Tenant, people: Any) -> int:
    """A room of the same id and name in both tenants, of alice, bob and carol each."""
    ids = {make_room(tenant, *people) for tenant in (acme, globex)}
    assert len(ids) == 1
    return ids.pop()


async def test_a_message_reaches_all_members_and_nobody_of_the_other_tenant(
    rooms: int, acme: Tenant, globex: Tenant, peers: Peers
) -> None:
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    stranger = await peers.connect(globex, "bob")

    reply = await alice.post(rooms, "Hello team")
    assert reply["type"] == "ok", reply
    for peer, is_own in ((alice, True), (bob, False)):
        await peer.until(lambda peer=peer: bool(peer.of_type("message")))
        event = peer.of_type("message")[0]
        assert (event["room"], event["seq"], event["after"]) == (rooms, 1, 0)
        message = event["message"]
        assert message["content"] == "Hello team"
        assert message["is_broadcast"] is True
        assert message["is_own_message"] is is_own
        assert message["sender"]["username"] == "alice"

    await stranger.ask("ping")
    assert stranger.contents() == []
    with globex.activated():
        assert not await run_in_tenant("globex", Message.objects.exists)
