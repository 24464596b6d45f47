"""Who asks for too much is refused, in words that a program understands, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, get_args

import pytest
from websockets.exceptions import InvalidStatus

from django_tenant_messaging import actions
from django_tenant_messaging.limits import Limiter
from django_tenant_messaging.models import Message
from django_tenant_messaging.payloads import ClientFrame, parse_frame
from django_tenant_messaging.realtime import asgi
from django_tenant_messaging.realtime.allowance import COSTS
from django_tenant_messaging.realtime.hub import Hub, hub_of_this_loop
from django_tenant_messaging.tenancy import run_in_tenant
from django_tenant_messaging.types import Readiness, SchemaState
from tests.harness.peer import another_hub, scope_for, session_of
from tests.harness.unlimited import UNLIMITED
from tests.harness.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from example.services import LocalRedis
    from tests.harness.peer import Peer, Peers
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

ROOM = 1
#: What is taken doesn't come back while a test runs.
NEVER = 0.001


@pytest.fixture
def rooms(acme: Tenant, globex: Tenant, people: Any) -> None:
    """Room 1 with alice and bob, room 2 with carol alone, in both tenants."""
    for tenant in (acme, globex):
        with tenant.activated():
            alice, bob, carol = (tenant.users[name] for name in people)
            assert actions.create_room(alice, name="team", members=[bob]).pk == ROOM
            actions.create_room(carol, name="hers")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused sockets are read on at once."""
    monkeypatch.setattr(asgi, "LONGEST_PAUSE", 0.0)


pytestmark = pytest.mark.usefixtures("rooms", "no_pause")


@pytest.fixture
def allow(settings: Any) -> Callable[..., None]:
    """`allow(USER=3)` lets users do three things, once."""

    def allow(**bursts: float) -> None:
        limits = {f"RATE_LIMIT_{name}": (NEVER, burst) for name, burst in bursts.items() if not name.startswith("MAX")}
        settings.TENANT_MESSAGING = limits | {name: n for name, n in bursts.items() if name.startswith("MAX")}

    return allow


async def granted(peer: Peer, kind: str = "send", tries: int = 20) -> int:
    """How many frames of a client are carried out before one is refused."""
    for number in range(tries):
        if kind == "send":
            reply = await peer.post(ROOM, f"number {number}")
        elif kind in {"read", "typing"}:
            reply = await peer.ask(kind, room=ROOM, **({"seq": 0} if kind == "read" else {"is_typing": True}))
        else:
            reply = await peer.ask(kind, **({"room": ROOM} if kind == "history" else {}))
        if reply["type"] == "error":
            assert reply["code"] == "rate_limited", reply
            return number
    return tries


# Frames


def test_every_frame_has_its_cost_on_purpose() -> None:
    assert set(COSTS) == {get_args(frame.model_fields["type"].annotation)[0] for frame in get_args(ClientFrame)}
    assert all(cost.is_write or not cost.is_post for cost in COSTS.values())


async def test_a_refusal_says_whose_limit_it_is_and_how_long_to_wait(
    acme: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(USER=2)
    alice = await peers.connect(acme, "alice")
    assert await granted(alice) == 2
    reply = await alice.post(ROOM, "one too many")
    assert (reply["type"], reply["code"]) == ("error", "rate_limited")
    details = reply["details"]
    assert details["scope"] == "user"
    assert details["limit"] == {"rate": NEVER, "burst": 2}
    assert 0 < details["retry_after"] <= 1 / NEVER
    assert await run_in_tenant("acme", Message.objects.count) == 2


async def test_after_the_time_that_was_told_the_same_frame_succeeds(acme: Tenant, peers: Peers, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"RATE_LIMIT_USER": (5, 1)}
    alice = await peers.connect(acme, "alice")
    await alice.post(ROOM, "first")
    reply = await alice.post(ROOM, "second")
    while reply["type"] == "error":
        await asyncio.sleep(reply["details"]["retry_after"])
        reply = await alice.post(ROOM, "second")
    await alice.until(lambda: alice.contents() == ["first", "second"])


async def test_a_flood_costs_neither_others_nor_the_other_tenant(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(USER=3)
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    twin = await peers.connect(globex, "alice")
    for number in range(50):
        alice.send_text(json.dumps({"type": "typing", "id": f"flood{number}", "room": ROOM, "is_typing": True}))
    assert await granted(bob) == 3
    assert await granted(twin) == 3
    assert await granted(alice) == 0
    # Each frame of the flood has its answer.
    answers = [(reply["id"], reply["type"]) for reply in alice.unasked]
    assert answers == [(f"flood{number}", "ok" if number < 3 else "error") for number in range(50)]


async def test_a_users_sockets_share_the_users_limit(acme: Tenant, peers: Peers, allow: Callable[..., None]) -> None:
    allow(USER=5)
    first, second = await peers.connect(acme, "alice"), await peers.connect(acme, "alice")
    assert [await granted(first, kind, 1) for kind in ("read", "typing", "send")] == [1, 1, 1]
    assert await granted(second) == 2
    assert await granted(first, "read") == 0
    # Reading and pinging change nothing.
    assert await granted(first, "ping") == 20
    assert (await first.ask("history", room=ROOM))["type"] == "ok"


async def test_each_socket_has_a_limit_for_frames_of_any_type(
    acme: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    resume = COSTS["resume"].frames
    allow(SOCKET=resume + 12)
    first, second = await peers.connect(acme, "alice"), await peers.connect(acme, "alice")
    assert await granted(first, "ping") == 12
    assert await granted(second, "history") == 2
    assert await granted(second, "ping") == 2
    # What can't be read counts as well.
    first.send_text('{"type": "nonsense", "id": "x"}')
    await first.until(lambda: bool(first.unasked))
    assert first.unasked[0]["code"] == "rate_limited"


async def test_a_users_sockets_share_the_limit_of_reads(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(READS=5)
    # Each of them resumed.
    first, second, bob = [await peers.connect(acme, name) for name in ("alice", "alice", "bob")]
    assert await granted(first, "history", 2) == 2
    assert (await second.ask("revisions", room=ROOM, message_id=1))["code"] == "not_found"
    for peer in (first, second):
        reply = await peer.ask("history", room=ROOM)
        assert (reply["code"], reply["details"]["scope"]) == ("rate_limited", "reads")
    third = await peers.connect(acme, "alice", resume=False)
    assert (await third.ask("resume"))["details"]["scope"] == "reads"
    # Nothing else does, and nobody else's.
    assert (await first.post(ROOM, "a message"))["type"] == "ok"
    assert await granted(bob, "history") == 4
    assert await granted(await peers.connect(globex, "alice"), "history") == 4


async def test_large_frames_wait_unread_until_their_bytes_are_paid_for(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.TENANT_MESSAGING = {"RATE_LIMIT_BYTES": (NEVER, 5_000)}
    read: list[int] = []

    def parse(text: str) -> Any:
        read.append(len(text))
        return parse_frame(text)

    monkeypatch.setattr(asgi, "parse_frame", parse)
    first, second, bob = [await peers.connect(acme, name) for name in ("alice", "alice", "bob")]
    twin = await peers.connect(globex, "alice")
    for _ in range(6):
        assert (await first.post(ROOM, "x" * 800))["type"] == "ok"
    assert (await second.post(ROOM, "x" * 4_000))["type"] == "ok"
    read.clear()
    # The same bytes however few characters they are.
    second.send_text(json.dumps({"type": "ping", "id": "large", "x": "\u20ac" * 400}, ensure_ascii=False))
    second.send_text(json.dumps({"type": "ping", "id": "behind it"}))
    for peer in (first, bob, twin):
        await peer.ask("ping")
    assert (await bob.post(ROOM, "y" * 4_000))["type"] == "ok"
    assert (await twin.post(ROOM, "y" * 4_000))["type"] == "ok"
    assert second.unasked == []
    assert [size for size in read if size > 400] == [4_106] * 2
    # The socket that waits ends like any other.
    hub_of_this_loop().close_tenant("acme", Readiness("acme", SchemaState.MISSING))
    await second.until(lambda: second.close_code is not None)
    await second.close()


async def test_the_largest_honest_frames_pass_at_once(acme: Tenant, peers: Peers) -> None:
    """With the limits as they are by default."""
    positions = {str(10**9 + number): {"epoch": "e" * 32, "seq": 10**9} for number in range(1_000)}
    for _ in range(5):
        alice = await peers.connect(acme, "alice", resume=positions)
        assert (await alice.post(ROOM, "\U0001f44b" * 10_000))["type"] == "ok"


async def test_a_rooms_limit_is_shared_by_its_members_and_out_of_others_reach(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(ROOM=5)
    alice, bob, carol = [await peers.connect(acme, name) for name in ("alice", "bob", "carol")]
    for _ in range(20):
        assert (await carol.post(ROOM, "not her room"))["code"] == "not_found"
    assert await granted(alice, tries=3) == 3
    assert await granted(bob) == 2
    assert (await alice.post(ROOM, "full"))["details"]["scope"] == "room"
    assert (await carol.post(2, "another room"))["type"] == "ok"
    assert await granted(await peers.connect(globex, "alice")) == 5


async def test_a_tenants_limit_is_its_own(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(TENANT=4)
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    assert await granted(alice, tries=3) == 3
    assert await granted(bob) == 1
    assert (await bob.post(ROOM, "full"))["details"]["scope"] == "tenant"
    assert await granted(await peers.connect(globex, "alice")) == 4


async def test_without_limits_nothing_is_refused_and_nothing_counted(acme: Tenant, peers: Peers, settings: Any) -> None:
    settings.TENANT_MESSAGING = UNLIMITED
    alice = await peers.connect(acme, "alice")
    assert await granted(alice, "ping", 300) == 300
    assert await granted(alice, tries=100) == 100
    assert len(hub_of_this_loop().limiter) == 0


async def test_a_socket_that_goes_on_and_on_is_closed(acme: Tenant, peers: Peers, allow: Callable[..., None]) -> None:
    allow(USER=3, MAX_LIMITED_FRAMES=4)
    alice = await peers.connect(acme, "alice")
    for number in range(20):
        alice.send_text(json.dumps({"type": "typing", "id": f"flood{number}", "room": ROOM, "is_typing": True}))
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 4429
    assert [reply["type"] for reply in alice.unasked] == ["ok"] * 3 + ["error"] * 4


async def test_only_refusals_in_a_row_for_the_clients_own_limits_count(
    acme: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(USER=6, TENANT=2, MAX_LIMITED_FRAMES=3)
    alice = await peers.connect(acme, "alice")
    assert await granted(alice) == 2
    for _ in range(5):
        assert (await alice.post(ROOM, "the tenant's"))["details"]["scope"] == "tenant"
    assert await granted(alice, "typing") == 4
    for _ in range(3):
        assert (await alice.ask("typing", room=ROOM, is_typing=True))["details"]["scope"] == "user"
        await alice.ask("ping")
    assert alice.close_code is None


async def test_a_refused_socket_is_not_read_for_a_while(
    acme: Tenant, peers: Peers, allow: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "LONGEST_PAUSE", 3.0)
    allow(USER=1)
    alice, bob = await peers.connect(acme, "alice"), await peers.connect(acme, "bob")
    assert await granted(alice) == 1
    for number in range(100):
        alice.send_text(json.dumps({"type": "ping", "id": f"later{number}"}))
    assert (await bob.post(ROOM, "in between"))["type"] == "ok"
    assert alice._to_app.qsize() == 100
    # It gets what others write as ever, and is read again in the end.
    await alice.until(lambda: "in between" in alice.contents())
    await alice.ask("ping")


# Connections


async def test_repeated_handshakes_of_one_login_are_refused(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(CONNECT=3)
    cookie, other = [await run_in_tenant("acme", session_of, acme.users["alice"]) for _ in range(2)]
    codes = [(await peers.open(scope_for("acme.localhost", cookie=cookie))).close_code for _ in range(5)]
    assert codes == [None, None, None, 4429, 4429]
    assert (await peers.open(scope_for("acme.localhost", cookie=other))).close_code is None
    # What is told to other processes opens nobody's session.
    hub = hub_of_this_loop()
    assert cookie not in str(list(hub.limiter._buckets))


async def test_a_user_has_a_bounded_number_of_sockets_and_keeps_those_that_are_there(
    acme: Tenant, globex: Tenant, peers: Peers, allow: Callable[..., None]
) -> None:
    allow(MAX_SOCKETS_PER_USER=2)
    cookie = await run_in_tenant("acme", session_of, acme.users["alice"])
    found = await asyncio.gather(*(peers.open(scope_for("acme.localhost", cookie=cookie)) for _ in range(6)))
    assert sorted((peer.close_code for peer in found), key=str) == [4429] * 4 + [None] * 2
    kept = [peer for peer in found if peer.close_code is None]
    for peer in kept:
        assert (await peer.ask("ping"))["type"] == "ok"
    await peers.connect(acme, "bob")
    await peers.connect(globex, "alice")
    await kept[0].close()
    assert (await peers.open(scope_for("acme.localhost", cookie=cookie))).close_code is None


# Several processes


@pytest.fixture
async def other_process(peers: Peers, allow: Callable[..., None]) -> AsyncIterator[Hub]:
    """The hub of a second process, that the channel layer connects with the first."""
    allow(USER=10)
    async with another_hub(peers) as hub:
        yield hub


async def test_processes_tell_each_other_of_heavy_users(
    acme: Tenant, globex: Tenant, peers: Peers, other_process: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = asyncio.Event()
    absorb = Limiter.absorb

    def absorb_and_tell(limiter: Limiter, shares: Any, now: float) -> None:
        absorb(limiter, shares, now)
        heard.set()

    monkeypatch.setattr(Limiter, "absorb", absorb_and_tell)
    alice = await peers.connect(acme, "alice")
    bob = await peers.connect(acme, "bob")
    assert await granted(alice) == 10
    assert await granted(bob, tries=3) == 3
    await asyncio.wait_for(heard.wait(), 10)
    assert await granted(await peers.connect(acme, "alice", hub=other_process)) == 0
    assert await granted(await peers.connect(acme, "bob", hub=other_process)) == 10
    assert await granted(await peers.connect(globex, "alice", hub=other_process)) == 10


def test_servers_tell_each_other_by_redis_and_answer_429(
    acme: Tenant, redis_server: LocalRedis, start_server: Callable[..., Server]
) -> None:
    limits = {"RATE_LIMIT_USER": (NEVER, 10), "RATE_LIMIT_CONNECT": (NEVER, 3)}
    env = {"REDIS_URL": redis_server.url(), "TENANT_MESSAGING": json.dumps(limits)}
    one, other = start_server(**env), start_server(**env)
    with Wire(one, acme, "alice") as alice, Wire(other, acme, "alice") as elsewhere:
        granted = [alice.post(f"number {number}")["type"] for number in range(12)]
        assert granted == ["ok"] * 10 + ["error"] * 2
        codes: list[str | None] = []
        while len(codes) < 10 and "rate_limited" not in codes:
            codes.append(elsewhere.post("elsewhere").get("code"))
            time.sleep(0.3)
    # Alone this server would grant ten.
    assert "rate_limited" in codes
    cookie = other.login(acme, "bob")
    for _ in range(3):
        with Wire(other, acme, "bob", cookie=cookie):
            pass
    with pytest.raises(InvalidStatus) as refused:
        Wire(other, acme, "bob", cookie=cookie)
    response = refused.value.response
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) > 0
