"""A bad frame gets a typed error or a close code, costs its sender only, and leaves nothing behind."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.test import override_settings

from django_tenant_messaging import actions
from django_tenant_messaging.conf import messaging_settings
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Mention,
    Message,
    MessageRevision,
    Notification,
    RoomCounter,
)
from django_tenant_messaging.realtime import asgi
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.unlimited import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

STORED = (ChatRoom, RoomCounter, Membership, Message, MessageRevision, Mention, Notification)
UUID = "6f1c6dd8-7a4f-4f8e-9d43-0d2f6a1b5c11"
MINE, OTHERS, FOREIGN, NOWHERE = 1, 2, 3, 999
"""Rooms: alice's; bob's and carol's; one that exists in the other tenant alone; none at all."""


@dataclass(frozen=True)
class World:
    """In `acme`, a room of alice and bob and one of bob and carol. In `globex`, three of alice: equal ids."""

    acme: Tenant
    globex: Tenant
    epoch: str
    foreign_message: int
    others_message: int


def stored(tenant: Tenant) -> dict[str, list[Any]]:
    """All that the tenant's tables hold, the online statuses left out."""
    with tenant.activated():
        return {model.__name__: sorted(model._default_manager.values_list("pk", *fields(model))) for model in STORED}


def fields(model: Any) -> list[str]:
    return [field.attname for field in model._meta.concrete_fields if not field.primary_key and not field.null]


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: Any) -> World:
    with acme.activated():
        alice, bob, carol = (acme.users[name] for name in people)
        mine = actions.create_room(alice, name="mine", members=[bob])
        others = actions.create_room(bob, name="others", members=[carol])
        actions.send_message(bob, room_id=mine.pk, content="first")
        secret = actions.send_message(bob, room_id=others.pk, content="secret").message.id
    with globex.activated():
        alice = globex.users["alice"]
        rooms = [actions.create_room(alice, name="foreign", members=[]).pk for _ in range(3)]
        sent = [actions.send_message(alice, room_id=FOREIGN, content="of globex") for _ in range(5)]
    assert (mine.pk, others.pk, rooms) == (MINE, OTHERS, [MINE, OTHERS, FOREIGN])
    return World(acme, globex, mine.epoch.hex, sent[-1].message.id, secret)


async def refused(peer: Peer, text: str) -> dict[str, Any]:
    """Send a text and return the one reply that it gets, whatever its id."""
    before = len(peer.unasked)
    peer.send_text(text)
    await peer.ask("ping")
    (reply,) = peer.unasked[before:]
    return reply


# Frames that can't be read


def nested(levels: int) -> str:
    return '{"type":"ping","id":"deep","x":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


PLAIN_BAD_FRAMES = [
    ("bad_json", None, ""),
    ("bad_json", None, "hello"),
    ("bad_json", None, "{"),
    ("bad_json", None, "{'type': 'ping'}"),
    ("bad_json", None, '{"type":"ping","id":"1"'),
    ("bad_json", None, '{"type":"ping","id":"1"} {}'),
    ("bad_json", None, '\ufeff{"type":"ping","id":"1"}'),
    ("bad_json", None, '{"type":"ping","id":"a\x00b"}'),
    ("bad_json", None, '{"type":"ping","id":"1","x":NaN}'),
    ("bad_json", None, '{"type":"ping","id":"1","x":Infinity}'),
    ("bad_json", None, '{"type":"ping","id":"1","x":-Infinity}'),
    ("invalid", "1", '{"type":"ping","id":"1","x":1e999}'),
    ("bad_frame", None, '{"type":"ping","id":"1","x":' + "9" * 5_000 + "}"),
    ("bad_json", None, '{"type":"ping","id":"1","id":"2"}'),
    ("bad_json", None, '{"type":"ping","id":"1","x":[{"a":1,"a":1}]}'),
    ("too_deep", None, nested(9)),
    ("too_deep", None, '{"type":"ping","id":"1","x":' + '{"x":' * 8 + "0" + "}" * 9),
    ("bad_frame", None, "[" * 60_000),
    ("bad_frame", None, '{"x":' * 12_000),
    ("bad_frame", None, "[]"),
    ("bad_frame", None, "null"),
    ("bad_frame", None, '"ping"'),
    ("bad_frame", None, "17"),
    ("bad_frame", None, "true"),
    ("bad_frame", None, "{}"),
    ("bad_frame", None, '{"type":"ping"}'),
    ("bad_frame", None, '{"type":"ping","id":null}'),
    ("bad_frame", None, '{"type":"ping","id":7}'),
    ("bad_frame", None, '{"type":"ping","id":["x"]}'),
    ("bad_frame", None, '{"type":"ping","id":"%s"}' % ("x" * 65)),
    ("bad_frame", None, '{"type":"ping","id":"é"}'),
    ("bad_frame", None, '{"type":"ping","id":"\\ud800"}'),
    ("bad_frame", None, '{"type":"ping","id":""}'),
    ("bad_frame", None, '{"type":"ping","id":"a b"}'),
    ("bad_frame", None, '{"type":"ping","id":"a\\u0000b"}'),
    ("bad_frame", None, '{"type":"ping","id":"a\\n"}'),
    ("bad_frame", "x1", '{"id":"x1"}'),
    ("bad_frame", "x1", '{"id":"x1","type":null}'),
    ("bad_frame", "x1", '{"id":"x1","type":1}'),
    ("bad_frame", "x1", '{"id":"x1","type":["ping"]}'),
    ("unknown_type", "x1", '{"id":"x1","type":"shout"}'),
    ("unknown_type", "x1", '{"id":"x1","type":""}'),
    ("unknown_type", "x1", '{"id":"x1","type":"PING"}'),
    ("unknown_type", "x1", '{"id":"x1","type":"hello"}'),
    ("unknown_type", "x1", '{"id":"x1","type":"\\ud800"}'),
    ("unknown_type", "x1", '{"id":"x1","type":"ping\\u0000"}'),
]


@override_settings(TENANT_MESSAGING=UNLIMITED | {"MAX_BAD_FRAMES": 1_000})
async def test_unreadable_frames_get_their_code_and_the_socket_lives_on(world: World, peers: Peers) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    before = await run_in_tenant("acme", stored, world.acme)
    for code, frame_id, text in PLAIN_BAD_FRAMES:
        reply = await refused(alice, text)
        assert (reply["type"], reply["code"], reply["id"]) == ("error", code, frame_id), text[:80]
        assert reply["message"]
    assert await run_in_tenant("acme", stored, world.acme) == before
    await still_works(alice, bob)


@override_settings(TENANT_MESSAGING=UNLIMITED)
@pytest.mark.parametrize("text", ["[" * 6_000, '{"x":' * 6_000], ids=["arrays", "objects"])
async def test_what_is_too_deep_and_not_closed_is_refused(world: World, peers: Peers, text: str) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    # Both are wrong, and how deep Python reads before it tells depends on its version.
    assert (await refused(alice, text))["code"] in ("too_deep", "bad_json")
    await still_works(alice, bob)


async def still_works(alice: Peer, bob: Peer) -> None:
    """Show that the sender's socket lives, and that the other one noticed nothing but good messages."""
    assert (await alice.post(MINE, "a good one"))["type"] == "ok"
    await bob.until(lambda: bool(bob.contents()))
    assert bob.contents() == ["a good one"]
    assert bob.unasked == []
    assert bob.close_code is None


async def test_eight_levels_are_read(world: World, peers: Peers) -> None:
    alice = await peers.connect(world.acme, "alice")
    reply = await refused(alice, nested(8))
    assert (reply["code"], reply["details"]["errors"][0]["field"]) == ("invalid", "x")


# Readable frames with wrong contents


@dataclass(frozen=True)
class Wrong:
    """A frame, the code it gets, and the field that `invalid` names."""

    code: str
    kind: str
    fields: Callable[[World], dict[str, Any]]
    named: str | None = None
    label: str = field(default="", compare=False)


def wrong(code: str, kind: str, named: str | None = None, **given: Any) -> Wrong:
    label = f"{kind} {json.dumps(given)[:60]}"
    return Wrong(code, kind, lambda _world: {**VALID[kind], **given}, named, label)


def without(kind: str, name: str) -> Wrong:
    remaining = {key: value for key, value in VALID[kind].items() if key != name}
    return Wrong("invalid", kind, lambda _world: remaining, name, f"{kind} without {name}")


def elsewhere(kind: str, name: str, of_tenant: str = "acme") -> Wrong:
    """A field names a message of a room of others, or of the other tenant."""

    def fields(world: World) -> dict[str, Any]:
        return {**VALID[kind], name: world.others_message if of_tenant == "acme" else world.foreign_message}

    return Wrong("not_found", kind, fields, label=f"{kind} of {of_tenant}'s others")


VALID: dict[str, dict[str, Any]] = {
    "send": {"room": MINE, "client_id": UUID, "content": "refused"},
    "edit": {"room": MINE, "message_id": 1, "content": "refused"},
    "delete": {"room": MINE, "message_id": 1},
    "revisions": {"room": MINE, "message_id": 1},
    "rename": {"room": MINE, "name": "refused"},
    "read": {"room": MINE, "seq": 1},
    "typing": {"room": MINE, "is_typing": True},
    "history": {"room": MINE},
    "ping": {},
    "resume": {"positions": {}},
}
NOT_IDS: tuple[Any, ...] = (0, -1, 2**63, 2**70, -(2**70), True, False, "1", "", 1.0, 1.5, None, [1], {"id": 1})
NOT_POSITIONS: tuple[Any, ...] = (-1, 2**63, 2**70, True, "1", 1.0, [0])
NOT_TEXTS: tuple[Any, ...] = (None, 7, True, ["text"], {"text": "text"})
NOT_OBJECTS: tuple[Any, ...] = (None, 1, "1", [])
NOT_FLAGS: tuple[Any, ...] = (None, 0, 1, "true", [])
MISSPELT = (f" {UUID}", f"{UUID}\n", UUID.replace("-", "_"), "\uff10" + UUID[1:], "\u0661" + UUID[1:])
LIMIT = 10_000

OF_A_ROOM = [kind for kind in VALID if "room" in VALID[kind]]
OF_A_MESSAGE = [kind for kind in VALID if "message_id" in VALID[kind]]

WRONG_FIELDS = [
    *(wrong("invalid", kind, "room", room=room) for kind in OF_A_ROOM for room in NOT_IDS),
    *(without(kind, name) for kind in OF_A_ROOM for name in VALID[kind]),
    *(wrong("invalid", kind, "extra", extra=1) for kind in VALID),
    wrong("invalid", "ping", "a\x00b", **{"a\x00b": 1}),
    wrong("invalid", "ping", "", **{"\ud800": 1}),
    wrong("invalid", "ping", "x" * 200, **{"x" * 300: 1}),
    *(wrong("invalid", "send", "content", content=content) for content in NOT_TEXTS),
    *(wrong("invalid", "send", "content", content=blank) for blank in ("", " ", "\n\t \r", "\u00a0\u2003")),
    wrong("invalid", "send", "content", content="x" * (LIMIT + 1)),
    wrong("invalid", "send", "content", content="x" * (5 * LIMIT)),
    wrong("invalid", "send", "content", content="\U0001d160" * (LIMIT // 3 + 1)),
    wrong("invalid", "send", "content", content="a\x00b"),
    wrong("invalid", "send", "content", content="\x00"),
    *(wrong("invalid", "send", "content", content=text) for text in ("\ud800", "a\udfffb", "\udc00\ud800")),
    *(
        wrong("invalid", "send", "client_id", client_id=value)
        for value in (None, "", "x", UUID[:-1], UUID + "0", "\ud800", 7, True, [UUID], "\x00" * 36, *MISSPELT)
    ),
    *(wrong("invalid", "send", "reply_to", reply_to=value) for value in NOT_IDS if value is not None),
    *(wrong("invalid", kind, "message_id", message_id=value) for kind in OF_A_MESSAGE for value in NOT_IDS),
    *(wrong("invalid", "edit", "content", content=value) for value in (*NOT_TEXTS, "", "\n\t \r", "a\x00b", "\ud800")),
    *(wrong("invalid", "edit", "content", content="x" * (LIMIT + more)) for more in (1, 4 * LIMIT)),
    *(wrong("invalid", "rename", "name", name=value) for value in (*NOT_TEXTS, "", " ", "a\x00b", "\ud800", "x" * 121)),
    *(wrong("invalid", "revisions", "before", before=value) for value in NOT_IDS if value is not None),
    *(wrong("invalid", "revisions", "limit", limit=value) for value in (*NOT_POSITIONS, 0, None, 201, 2**63 - 1)),
    *(wrong("invalid", "read", "seq", seq=value) for value in (*NOT_POSITIONS, None, 2, 2**63 - 1)),
    *(wrong("invalid", "typing", "is_typing", is_typing=value) for value in NOT_FLAGS),
    *(wrong("invalid", "history", "limit", limit=value) for value in (*NOT_POSITIONS, 0, None, 201, 2**63 - 1)),
    *(
        wrong("invalid", "history", place, **{place: value})
        for place in ("before", "after", "around")
        for value in NOT_POSITIONS
    ),
    wrong("invalid", "history", before=1, after=1),
    wrong("invalid", "history", before=1, around=1),
    wrong("invalid", "history", before=0, after=0, around=0),
    *(wrong("invalid", "resume", "positions", positions=value) for value in NOT_OBJECTS),
    *(
        wrong("invalid", "resume", f"positions.{key}.[key]", positions={key: {"epoch": "x", "seq": 0}})
        for key in ("0", "01", "-1", "x", "1.0", " 1", "1\n", "", "1" * 20, "\u0661")
    ),
    wrong("invalid", "resume", "positions.\ufffd\ufffd\ufffd.[key]", positions={"\ud800": {"epoch": "x", "seq": 0}}),
    *(wrong("invalid", "resume", "positions.1", positions={"1": value}) for value in NOT_OBJECTS),
    *(
        wrong("invalid", "resume", "positions.1.epoch", positions={"1": {"epoch": value, "seq": 0}})
        for value in (None, 1, "x" * 65, "\ud800")
    ),
    *(
        wrong("invalid", "resume", "positions.1.seq", positions={"1": {"epoch": "x", "seq": value}})
        for value in NOT_POSITIONS
    ),
    wrong("invalid", "resume", "positions.1.extra", positions={"1": {"epoch": "x", "seq": 0, "extra": 1}}),
]
NO_ACCESS = [
    *(wrong("not_found", kind, room=room) for kind in OF_A_ROOM for room in (OTHERS, FOREIGN, NOWHERE, 2**63 - 1)),
    wrong("not_found", "read", room=OTHERS, seq=0),
    wrong("not_found", "history", room=FOREIGN, around=1),
    wrong("not_found", "send", reply_to=NOWHERE),
    wrong("not_found", "send", reply_to=2**63 - 1),
    *(wrong("not_found", kind, message_id=value) for kind in OF_A_MESSAGE for value in (NOWHERE, 2**63 - 1)),
    *(elsewhere(kind, "message_id") for kind in OF_A_MESSAGE),
    elsewhere("send", "reply_to"),
    *(elsewhere(kind, "message_id", of_tenant="globex") for kind in OF_A_MESSAGE),
    elsewhere("send", "reply_to", of_tenant="globex"),
]


# Alice owns the room, and bob wrote the message 1 in it.
NO_RIGHT = [wrong("forbidden", "edit")]


@override_settings(TENANT_MESSAGING=UNLIMITED | {"MAX_BAD_FRAMES": 1_000})
@pytest.mark.parametrize("cases", [WRONG_FIELDS, NO_ACCESS, NO_RIGHT], ids=["wrong fields", "no access", "no right"])
async def test_wrong_contents_get_their_code_and_the_socket_lives_on(
    cases: list[Wrong], world: World, peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    alice, bob = await peers.connect(world.acme, "alice", resume=False), await peers.connect(world.acme, "bob")
    stranger = await peers.connect(world.globex, "alice")
    before = {tenant: await run_in_tenant(tenant.schema_name, stored, tenant) for tenant in (world.acme, world.globex)}
    for case in cases:
        reply = await alice.ask(case.kind, **case.fields(world))
        assert (reply["type"], reply.get("code")) == ("error", case.code), (case.label, reply)
        if case.named is not None:
            named = [error["field"] for error in reply["details"]["errors"]]
            assert named == [case.named], case.label
    for tenant, rows in before.items():
        assert await run_in_tenant(tenant.schema_name, stored, tenant) == rows
    assert caplog.records == []
    assert (await alice.ask("resume"))["type"] == "ok"
    assert bob.of_type("typing") == bob.of_type("read") == []
    await still_works(alice, bob)
    await stranger.ask("ping")
    assert stranger.of_type("message") == []


async def test_a_client_id_means_one_message_for_ever(world: World, peers: Peers) -> None:
    with world.acme.activated():
        await run_in_tenant("acme", actions.create_room, world.acme.users["alice"], name="second", members=())
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    first = await alice.post(MINE, "once", client_id=UUID)
    assert (first["type"], first["duplicate"]) == ("ok", False)
    after_first = await run_in_tenant("acme", stored, world.acme)

    for spelling in (UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}"):
        again = await alice.post(MINE, "once", client_id=spelling)
        assert (again["message"], again["duplicate"]) == (first["message"], True)
    for room, fields in ((MINE, {"content": "twice"}), (3, {}), (MINE, {"reply_to": 1})):
        reply = await alice.ask("send", room=room, client_id=UUID, **{"content": "once", **fields})
        assert reply["code"] == "conflict", fields
    assert await run_in_tenant("acme", stored, world.acme) == after_first

    # The id is the sender's own: another's equal one is another message.
    assert (await bob.post(MINE, "once", client_id=UUID))["duplicate"] is False
    await bob.until(lambda: len(bob.contents()) == 2)
    assert bob.contents() == ["once", "once"]


@pytest.mark.parametrize(
    "written", ["x" * LIMIT, "\U0001f44b" * LIMIT, "e\u0301" * LIMIT, "\u200d" * (LIMIT - 1) + "x"]
)
async def test_the_longest_content_fits_and_is_stored_as_nfc(written: str, world: World, peers: Peers) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    reply = await alice.post(MINE, written)
    assert reply["type"] == "ok", reply
    await bob.until(lambda: bool(bob.contents()))
    assert bob.contents() == [written if len(written) == LIMIT else "\u00e9" * LIMIT]


# Resuming


async def test_resuming_twice_is_a_conflict(world: World, peers: Peers) -> None:
    alice = await peers.connect(world.acme, "alice")
    reply = await alice.ask("resume")
    assert (reply["type"], reply["code"]) == ("error", "conflict")
    assert (await alice.ask("ping"))["type"] == "ok"


async def test_a_refused_resume_may_be_repeated(world: World, peers: Peers) -> None:
    alice = await peers.connect(world.acme, "alice", resume=False)
    assert (await alice.ask("resume", positions={"0": 1}))["code"] == "invalid"
    reply = await alice.ask("resume", positions={"1": {"epoch": world.epoch, "seq": 0}})
    assert reply["rooms"] == {"1": {"status": "ok", "seq": 0}}
    await alice.until(lambda: alice.contents() == ["first"])


async def test_a_position_of_another_history_is_reset(world: World, peers: Peers) -> None:
    with world.globex.activated():
        foreign_epoch = (await run_in_tenant("globex", ChatRoom.objects.get, pk=MINE)).epoch.hex
    for epoch, seq in ((uuid4().hex, 1), (foreign_epoch, 1), ("", 0), (world.epoch, 2), (world.epoch, 2**63 - 1)):
        alice = await peers.connect(world.acme, "alice", resume=False)
        reply = await alice.ask("resume", positions={"1": {"epoch": epoch, "seq": seq}})
        assert reply["rooms"] == {"1": {"status": "reset", "seq": 1}}, (epoch, seq)
        await alice.close()


async def test_rooms_of_others_are_gone_when_resuming(world: World, peers: Peers) -> None:
    alice, bob = await peers.connect(world.acme, "alice", resume=False), await peers.connect(world.acme, "bob")
    unknown = [str(room) for room in (OTHERS, FOREIGN, NOWHERE, 9_999_999_999_999_999_999)]
    reply = await alice.ask("resume", positions={room: {"epoch": world.epoch, "seq": 0} for room in unknown})
    assert {room: status["status"] for room, status in reply["rooms"].items()} == dict.fromkeys(unknown, "gone")
    assert (await bob.post(OTHERS, "still secret"))["type"] == "ok"
    await still_works_with_noise(alice, bob)


async def still_works_with_noise(alice: Peer, bob: Peer) -> None:
    assert (await alice.post(MINE, "a good one"))["type"] == "ok"
    await alice.until(lambda: bool(alice.contents()))
    assert alice.contents() == ["a good one"]
    await bob.until(lambda: "a good one" in bob.contents(MINE))


@override_settings(TENANT_MESSAGING={"RESUME_LIMIT": 3})
async def test_a_resume_that_missed_too_much_is_limited(world: World, peers: Peers) -> None:
    bob = await peers.connect(world.acme, "bob")
    for number in range(4):
        await bob.post(MINE, f"missed {number}")
    alice = await peers.connect(world.acme, "alice", resume=False)
    reply = await alice.ask("resume", positions={"1": {"epoch": world.epoch, "seq": 1}})
    assert reply["rooms"] == {"1": {"status": "limited", "seq": 5}}
    page = await alice.ask("history", room=MINE, after=1)
    assert [message["content"] for message in page["messages"]] == [f"missed {number}" for number in range(4)]
    await bob.post(MINE, "live")
    await alice.until(lambda: bool(alice.contents()))
    assert alice.contents() == ["live"]


# Frames that cost their sender the socket


def of_bytes(size: int, filler: str) -> str:
    """A frame of exactly this many bytes, that is valid but for its size."""
    frame = '{"type":"ping","id":"large"%s}'
    room = size - len(frame % "")
    width = len(filler.encode())
    if filler == " ":
        return frame % (" " * room)
    head = ',"x":"'
    count, rest = divmod(room - len(head) - 1, width)
    return frame % (head + filler * count + "x" * rest + '"')


@pytest.mark.parametrize("filler", [" ", "x", "é", "\U0001f44b"])
async def test_a_frame_has_at_most_so_many_bytes(filler: str, world: World, peers: Peers) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    most = messaging_settings.MAX_FRAME_BYTES
    largest = of_bytes(most, filler)
    assert len(largest.encode()) == most
    reply = await refused(alice, largest)
    assert reply["id"] == "large"

    alice.send_text(of_bytes(most + 1, filler))
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 4413
    await still_works(await peers.connect(world.acme, "alice"), bob)


@pytest.mark.parametrize("event", [{"bytes": b'{"type":"ping","id":"1"}'}, {"bytes": b"\xff", "text": None}])
async def test_a_binary_frame_ends_the_connection(event: dict[str, Any], world: World, peers: Peers) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    alice.send_event(type="websocket.receive", **event)
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 4413
    await still_works(await peers.connect(world.acme, "alice"), bob)


@override_settings(TENANT_MESSAGING=UNLIMITED)
async def test_too_many_bad_frames_end_the_connection(
    world: World, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "FORGIVEN", 0.001)
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    second = await peers.connect(world.acme, "alice")
    bad = ("hello", "[]", '{"type":"shout","id":"1"}', nested(9))
    for number in range(12):
        assert (await refused(alice, bad[number % 4]))["type"] == "error"
    for _ in range(7):
        assert (await alice.ask("ping", extra=1))["code"] == "invalid"
        # What is well-formed and refused for what it says doesn't count.
        assert (await alice.post(MINE, " "))["code"] == "invalid"
    alice.send_text("the twentieth")
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 4400
    await still_works(second, bob)


@override_settings(TENANT_MESSAGING=UNLIMITED | {"MAX_BAD_FRAMES": 3})
async def test_a_client_that_errs_now_and_then_is_forgiven(
    world: World, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "FORGIVEN", 1e6)
    alice = await peers.connect(world.acme, "alice")
    for _ in range(10):
        assert (await alice.ask("ping", extra=1))["code"] == "invalid"
        assert (await refused(alice, "hello"))["code"] == "bad_json"
    assert alice.close_code is None


class Clock:
    """The time that passes for the sockets, and for nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(asgi, "time", SimpleNamespace(monotonic=lambda: self.now))


LARGE = "x" * 120_000


@override_settings(TENANT_MESSAGING=UNLIMITED | {"MAX_FRAME_BYTES": len(LARGE)})
async def test_large_bad_frames_end_the_connection_although_one_is_forgiven_each_second(
    world: World, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await peers.connect(world.acme, "alice"), await peers.connect(world.acme, "bob")
    clock = Clock(monkeypatch)
    for _ in range(3):
        assert (await refused(alice, LARGE))["code"] == "bad_json"
        clock.now += 1
    alice.send_text(LARGE)
    await alice.until(lambda: alice.close_code is not None)
    assert alice.close_code == 4400
    await still_works(await peers.connect(world.acme, "alice"), bob)


@override_settings(TENANT_MESSAGING=UNLIMITED | {"MAX_FRAME_BYTES": len(LARGE)})
async def test_a_client_whose_large_frames_are_bad_now_and_then_is_forgiven(
    world: World, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await peers.connect(world.acme, "alice")
    clock = Clock(monkeypatch)
    for _ in range(20):
        assert (await refused(alice, LARGE))["code"] == "bad_json"
        clock.now += 6
    assert alice.close_code is None
