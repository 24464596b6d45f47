"""Nothing is believed of what comes by the channel layer but the word of this site's own processes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections
from django.test import override_settings

from django_tenant_messaging.limits import Key, Scope
from django_tenant_messaging.realtime import sealing
from django_tenant_messaging.realtime.hints import Hint, rows_of
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.realtime.link import EVERYONE, HINTS, LIMITS, PROBE, group_of, send_from_outside
from django_tenant_messaging.realtime.sealing import Message, Sealer, Seldom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_tenant_messaging.realtime.hub import Hub
    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM = 1
NEXT = 1
"""The next position of the room that all are in."""
NEVER = {"RECONCILE_INTERVAL": 3600, "ACCESS_RECHECK_INTERVAL": 3600, "HEARTBEAT_INTERVAL": 3600}
SECRET = "a text of another's"


def message_about(schema_name: str) -> Message:
    frame = {"type": "message", "room": ROOM, "after": NEXT - 1, "seq": NEXT, "message": {"content": SECRET}}
    hints = [Hint(schema_name, "room", ROOM, json.dumps(frame), seq=NEXT, after=NEXT - 1)]
    return Message(HINTS, schema_name, rows_of(hints))


def as_it_was_before_seals(message: Message) -> dict[str, Any]:
    return {"type": message.kind, "origin": "x", "schema": message.about, "hints": message.content}


def without_a_seal(message: Message) -> dict[str, Any]:
    sealed = Sealer().sealed(message)
    del sealed["seal"]
    return sealed


def with_an_invented_seal(message: Message) -> dict[str, Any]:
    return {**Sealer().sealed(message), "seal": "0" * 32}


def with_the_seal_of_another_tenants(message: Message) -> dict[str, Any]:
    """What a listener of one tenant's group could make of what came by it."""
    own = Sealer().sealed(message._replace(about="acme"))
    return {**own, "body": own["body"].replace('"acme"', f'"{message.about}"')}


def of_a_site_with_another_secret(message: Message) -> dict[str, Any]:
    with override_settings(SECRET_KEY="another"):
        return Sealer().sealed(message)


def of_a_copy_with_another_database(message: Message) -> dict[str, Any]:
    place = connections.settings["default"]
    own, place["NAME"] = place["NAME"], "staging"
    try:
        return Sealer().sealed(message)
    finally:
        place["NAME"] = own


def of_a_site_of_another_name(message: Message) -> dict[str, Any]:
    with override_settings(TENANT_MESSAGING={"DEPLOYMENT": "staging"}):
        return Sealer().sealed(message)


FORGERIES = [
    as_it_was_before_seals,
    without_a_seal,
    with_an_invented_seal,
    with_the_seal_of_another_tenants,
    of_a_site_with_another_secret,
    of_a_copy_with_another_database,
    of_a_site_of_another_name,
]

MALFORMED: list[Any] = [
    None,
    "text",
    {},
    {"type": HINTS},
    {"type": HINTS, "origin": "x", "schema": "globex"},
    {"type": HINTS, "origin": [], "body": "[]", "seal": ""},
    {"type": HINTS, "origin": "x", "body": b"[]", "seal": "0" * 32},
    {"type": HINTS, "origin": "x", "body": "[]", "seal": None},
    {"type": HINTS, "origin": "x", "body": "[]", "seal": "\ud800é"},
    {"type": HINTS, "origin": "x", "body": "\ud800", "seal": "0" * 32},
    {"type": PROBE, "number": 1},
    {"type": LIMITS, "origin": "x", "shares": [["tenant", "globex", "", 1e9]]},
    {"type": "chat.message", "text": SECRET},
]


@pytest.fixture(autouse=True)
def seldom(settings: Any) -> None:
    """Nobody learns anything but by the layer."""
    settings.TENANT_MESSAGING = NEVER


@pytest.fixture
async def hub(peers: Peers) -> Hub:
    return hub_of_this_loop()


@pytest.fixture
async def bobs(team: None, acme: Tenant, globex: Tenant, peers: Peers, hub: Hub) -> tuple[Peer, Peer]:
    """Two tenants' users of equal names, served by one process."""
    bobs = await peers.connect(acme, "bob"), await peers.connect(globex, "bob")
    assert [bob.hello["rooms"][0]["seq"] for bob in bobs] == [NEXT - 1] * 2
    return bobs


async def heard(hub: Hub, *bobs: Peer) -> None:
    """Wait until the process has acted on all that was sent to it: the last is one that it believes."""
    for number, schema_name in enumerate(("acme", "globex")):
        frame = json.dumps({"type": "notification", "notification": {"number": number}})
        await send_from_outside(layer_of(hub), [Hint(schema_name, "user", bobs[number].hello["user"]["id"], frame)])
    for bob in bobs:
        await bob.until(lambda bob=bob: bool(bob.of_type("notification")))  # type: ignore[misc]


def layer_of(hub: Hub) -> Any:
    return hub.link._layer


@pytest.mark.parametrize("forged", FORGERIES)
async def test_what_no_process_of_the_site_sent_is_not_delivered(
    bobs: tuple[Peer, Peer], hub: Hub, forged: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by another tenant's group, nor by the tenant's own, nor by the process's channel."""
    layer, channel = layer_of(hub), hub.link._channel
    for _ in range(10):
        await layer.group_send(group_of("acme"), forged(message_about("globex")))
        await layer.group_send(group_of("globex"), forged(message_about("globex")))
        await layer.send(channel, forged(message_about("globex")))
        await layer.group_send(EVERYONE, forged(Message(LIMITS, "", [("tenant", "globex", "", 1e9)])))
        await layer.group_send(group_of("acme"), forged(Message(HINTS, "globex", [["access", "", "", 0, 0, 0]])))
    await heard(hub, *bobs)
    for bob in bobs:
        assert bob.of_type("message") == []
        assert (await bob.post(ROOM, "hello"))["type"] == "ok"
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, told
    assert told[0] == "1 messages of the channel layer aren't used: no process of this site sent them just now."


async def test_what_a_process_of_the_site_sent_is(bobs: tuple[Peer, Peer], hub: Hub) -> None:
    await layer_of(hub).group_send(group_of("globex"), Sealer().sealed(message_about("globex")))
    await bobs[1].until(lambda: bool(bobs[1].of_type("message")))
    await heard(hub, *bobs)
    assert [bob.contents() for bob in bobs] == [[], [SECRET]]


async def test_what_was_heard_is_not_believed_again(
    bobs: tuple[Peer, Peer], hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as typing that is long over; by the other tenant's group and the process's channel as well."""
    layer, channel = layer_of(hub), hub.link._channel
    frame = json.dumps({"type": "typing", "room": ROOM, "user": {"id": "7", "username": "carol"}, "typing": True})
    recorded = Sealer().sealed(Message(HINTS, "globex", rows_of([Hint("globex", "room", ROOM, frame)])))
    for _ in range(3):
        await layer.group_send(group_of("globex"), recorded)
        await layer.group_send(group_of("acme"), {**recorded, "origin": "another"})
        await layer.send(channel, recorded)
    await heard(hub, *bobs)
    assert [len(bob.of_type("typing")) for bob in bobs] == [0, 1]
    assert any("aren't used" in record.getMessage() for record in caplog.records)


def test_each_process_counts_for_itself_and_for_each_tenant() -> None:
    """So that what one shard of a layer delays is not taken for something that was sent again."""
    one, two, receiver = Sealer(), Sealer(), Sealer()
    early, late = one.sealed(message_about("acme")), one.sealed(message_about("globex"))
    others = two.sealed(message_about("globex"))
    assert [receiver.opened(given) is not None for given in (late, early, others)] == [True] * 3
    assert [receiver.opened(given) for given in (late, early, others)] == [None] * 3


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MOST_HEARD", 3)
    receiver = Sealer()
    for _ in range(10):
        assert receiver.opened(Sealer().sealed(message_about("acme")))
    assert len(receiver._heard) == 3


async def test_a_report_that_is_sent_again_takes_tokens_once(bobs: tuple[Peer, Peer], hub: Hub) -> None:
    taken: list[Any] = []
    absorb, hub.limiter.absorb = hub.limiter.absorb, lambda *args: taken.append(args)  # type: ignore[method-assign]
    recorded = Sealer().sealed(Message(LIMITS, "", [("tenant", "globex", "", 1.0)]))
    for _ in range(5):
        await layer_of(hub).group_send(EVERYONE, recorded)
    await heard(hub, *bobs)
    hub.limiter.absorb = absorb  # type: ignore[method-assign]
    assert len(taken) == 1


async def test_a_foreign_report_takes_nobodys_tokens(bobs: tuple[Peer, Peer], hub: Hub) -> None:
    def is_there() -> bool:
        try:
            hub.limiter.check([(Key(Scope.TENANT, "globex", ""), 1)], time.monotonic())
        except Exception:  # noqa: BLE001 - whatever refuses
            return False
        return True

    shares = Message(LIMITS, "", [("tenant", "globex", "", 1e9)])
    for forged in FORGERIES:
        await layer_of(hub).group_send(EVERYONE, forged(shares))
    await heard(hub, *bobs)
    assert is_there()
    await layer_of(hub).group_send(EVERYONE, Sealer().sealed(shares))
    bobs[0].events.clear()
    bobs[1].events[1:] = []
    await asyncio.sleep(0.1)
    assert not is_there()


async def test_a_foreign_probe_says_nothing_of_the_layer(hub: Hub, bobs: tuple[Peer, Peer]) -> None:
    link = hub.link
    for probe in (Message(PROBE, hub.process, 7), Message(PROBE, "another", 7)):
        for forged in FORGERIES:
            await layer_of(hub).send(link._channel, forged(probe))
    # Genuine, but another's.
    await layer_of(hub).send(link._channel, Sealer().sealed(Message(PROBE, "another", 7)))
    await heard(hub, *bobs)
    assert link._probe_heard == 0


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_what_can_not_be_read_ends_nothing_and_is_told_once(
    bobs: tuple[Peer, Peer],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_sealed: bool,
) -> None:
    """Not of strangers, nor of another release of this app."""
    strange: Iterator[Any] = iter(MALFORMED * 3)
    if is_sealed:
        sealed = [
            Message(HINTS, "globex", [["room", "text", SECRET]]),
            Message(HINTS, "globex", None),
            Message(LIMITS, "", [[SECRET]]),
            Message("another", "globex", {"text": SECRET}),
            Message(PROBE, hub.process, SECRET)._replace(kind=[]),  # type: ignore[arg-type]
        ]
        strange = iter([Sealer().sealed(message) for message in sealed] * 3)
    receive = layer_of(hub).receive

    async def receive_something(channel: str) -> Any:
        found = await receive(channel)
        return next(strange) if isinstance(found, dict) and found.get("type") == "strange" else found

    monkeypatch.setattr(layer_of(hub), "receive", receive_something)
    # The one that it waits for already comes by the layer's own method.
    for _ in range(1 + 3 * (5 if is_sealed else len(MALFORMED))):
        await layer_of(hub).send(hub.link._channel, {"type": "strange"})
    await heard(hub, *bobs)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1 + is_sealed
    assert SECRET not in caplog.text
    assert hub.link.is_whole


@pytest.mark.parametrize("told_before", [True, False])
def test_a_rotated_secret(settings: Any, told_before: bool) -> None:
    """Processes that know the former secret as a fallback believe those that still use it."""
    message = message_about("acme")
    settings.SECRET_KEY = "the former"
    before = Sealer().sealed(message)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the next", ["the former"] if told_before else []
    after = Sealer()
    # JSON has no tuples.
    content = json.loads(json.dumps(message.content))
    assert after.opened(before) == (Message(HINTS, "acme", content) if told_before else None)
    assert after.opened(after.sealed(message)) == Message(HINTS, "acme", content)


def test_the_name_of_a_site_stands_for_the_address_of_its_database(settings: Any) -> None:
    """Where its processes reach that by several, as by a pooler."""
    settings.TENANT_MESSAGING = {"DEPLOYMENT": "shop"}
    assert Sealer().opened(of_a_copy_with_another_database(message_about("acme"))) is not None
    settings.TENANT_MESSAGING = {}
    assert Sealer().opened(of_a_copy_with_another_database(message_about("acme"))) is None


def test_a_default_port_may_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    place = connections.settings["default"]
    monkeypatch.setitem(place, "PORT", "")
    sealed = Sealer().sealed(message_about("acme"))
    monkeypatch.setitem(place, "PORT", 5432)
    assert Sealer().opened(sealed) is not None


def test_what_happens_often_is_told_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(sealing, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now)}))
    seldom = Seldom()
    assert [seldom.count() for _ in range(5)] == [1, 0, 0, 0, 0]
    now += sealing.TELL_INTERVAL
    assert [seldom.count() for _ in range(3)] == [5, 0, 0]
