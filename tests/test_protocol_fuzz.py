"""Whatever a client sends, its socket answers or closes as documented, and the database holds what was accepted."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from django_tenant_messaging import actions, exceptions
from django_tenant_messaging.models import Message
from django_tenant_messaging.realtime import asgi
from django_tenant_messaging.realtime.allowance import FREE_BYTES
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import Peer, scope_for, session_of
from tests.harness.unlimited import UNLIMITED

if TYPE_CHECKING:
    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

ROOM, CLOSED_ROOM = 1, 2
LONGEST, LARGEST, MOST_BAD = 60, 2_000, 12
SECRET = "for-members-only"
PROFILE = settings(
    max_examples=150,
    # The same examples in every run: a red build means a change, not bad luck.
    derandomize=True,
    database=None,
    deadline=None,
    # No shrinking: each example finds what the ones before it wrote, and a dead socket costs the peer's patience.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def codes_of(base: type[exceptions.MessagingError]) -> set[str]:
    return {base.code}.union(*(codes_of(kind) for kind in base.__subclasses__()))


UNREADABLE = codes_of(exceptions.FrameError) - {exceptions.FrameError.code}
REFUSALS = UNREADABLE | {
    kind.code for kind in (exceptions.NotFound, exceptions.Forbidden, exceptions.Invalid, exceptions.Conflict)
}

# What frames are made of

# All of Unicode: lone surrogates, NUL and what isn't assigned.
CHARACTERS = st.characters(exclude_categories=())
TEXTS = st.text(CHARACTERS, max_size=8)
NUMBERS = (
    st.integers(-2, 5)
    | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**70, -(2**70), 10**400])
    | st.floats(allow_nan=True, allow_infinity=True)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=8,
)
CONTENTS = (
    st.text(CHARACTERS, max_size=LONGEST + 5)
    | st.text(st.sampled_from(" \t\n\u00a0\u2028"), max_size=5)
    | st.sampled_from(["x" * LONGEST, "x" * (LONGEST + 1), "\U0001d160" * (LONGEST // 3 + 1), "e\u0301" * LONGEST])
    | st.sampled_from(["@bob", "@" * 30, "`@bob", "a\x00b", "\ud800", "\u200b"])
).map(lambda text: text + SECRET if len(text) == 3 else text)
ROOMS = st.sampled_from([ROOM, ROOM, ROOM, CLOSED_ROOM, 3, 0, 2**63])
CLIENT_IDS = st.uuids().map(str) | st.sampled_from([str(UUID(int=number)) for number in range(5)])
MESSAGES = st.integers(1, 12) | NUMBERS
POSITIONS = st.fixed_dictionaries({"epoch": st.just("x") | TEXTS, "seq": NUMBERS})
IDS = st.from_regex(r"\A[!-~]{1,64}\Z")


def frames(kind: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(kind), "id": IDS, **parts})


FRAMES = st.one_of(
    frames("send", room=st.just(ROOM), client_id=CLIENT_IDS, content=CONTENTS),
    frames("send", room=ROOMS, client_id=CLIENT_IDS, content=CONTENTS, reply_to=st.none() | NUMBERS),
    frames("edit", room=st.just(ROOM), message_id=st.integers(1, 12), content=CONTENTS),
    frames("edit", room=ROOMS, message_id=MESSAGES, content=CONTENTS),
    frames("delete", room=ROOMS, message_id=MESSAGES),
    frames("revisions", room=ROOMS, message_id=MESSAGES, limit=st.integers(1, 50), before=st.none() | NUMBERS),
    frames("rename", room=ROOMS, name=CONTENTS),
    frames("read", room=ROOMS, seq=NUMBERS),
    frames("typing", room=ROOMS, is_typing=st.booleans()),
    frames("history", room=ROOMS, limit=st.integers(1, 50), before=st.none() | NUMBERS),
    frames("resume", positions=st.dictionaries(st.sampled_from(["1", "2", "0", "x"]), POSITIONS, max_size=2)),
    frames("ping"),
)


def as_text(value: Any) -> str:
    """JSON as clients write it. A lone surrogate reaches a server as an escape only: the frame is UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or not re.search("[\ud800-\udfff]", text) else json.dumps(value)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A frame in which a field was replaced, left out or added."""
    frame = dict(draw(FRAMES))
    key = draw(st.sampled_from(sorted(frame)) | TEXTS)
    if draw(st.booleans()):
        frame[key] = draw(VALUES)
    else:
        frame.pop(key, None)
    return frame


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The text of a frame with a part cut out, replaced or repeated."""
    text = as_text(draw(FRAMES))
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 12)))
    return text[:start] + draw(st.text(max_size=3) | st.just(text[start:end] * 2)) + text[end:]


NONSENSE = st.one_of(
    damaged(), VALUES.map(as_text), st.text(max_size=30), st.sampled_from(["[" * 1_000, '{"x":' * 300, "9" * 1_500])
)
TEXT_FRAMES = st.one_of(
    FRAMES.map(as_text), changed().map(as_text), NONSENSE, st.just('{"type":"ping","id":"' + "x" * LARGEST)
)
SEQUENCES = st.one_of(
    st.lists(TEXT_FRAMES, min_size=1, max_size=25),
    st.lists(FRAMES.map(as_text), min_size=3, max_size=25),
    st.lists(NONSENSE, min_size=8, max_size=20),
)


@dataclass(frozen=True)
class Stored:
    """A message's row."""

    client_id: UUID
    room: int
    content: str
    first_content: str
    is_deleted: bool


@dataclass
class Talk:
    """Alice, who sends anything; bob, who listens; and what is there so far, by the messages' ids."""

    peers: Peers
    acme: Tenant
    globex: Tenant
    cookie: str
    bob: Peer
    held: dict[int, Stored] = field(default_factory=dict)

    async def send(self, texts: list[str]) -> tuple[list[dict[str, Any]], int | None]:
        """Send frames on a new connection; return the replies in order, and the code if it was closed."""
        alice = await self.peers.open(scope_for(self.acme.host, cookie=self.cookie))
        end = f"end-{uuid4()}"
        for text in [*texts, json.dumps({"type": "ping", "id": end})]:
            alice.send_text(text)
        await alice.until(lambda: alice.close_code is not None or any(reply["id"] == end for reply in alice.unasked))
        await alice.close()
        self.peers.opened.remove(alice)
        return in_order(texts, [reply for reply in alice.unasked if reply["id"] != end]), alice.close_code

    def heard(self) -> dict[int, str]:
        """What the messages say by what bob was told, the newest state of each."""
        return {frame["message"]["id"]: frame["message"]["content"] for frame in self.bob.of_type("message")}


def in_order(texts: list[str], replies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The replies in the order of the frames: sends that follow each other may be answered in any."""
    ordered: list[dict[str, Any]] = []
    run: list[str] = []
    for text in [*texts, ""]:
        if is_send(text):
            run.append(str(readable_id(text)))
            continue
        answers = replies[len(ordered) : len(ordered) + len(run)]
        for frame_id in run:
            # A close overtakes replies that still wait.
            place = next((n for n, answer in enumerate(answers) if answer["id"] == frame_id), None)
            if place is not None:
                ordered.append(answers.pop(place))
        ordered += replies[len(ordered) : len(ordered) + 1]
        run = []
    return ordered


def is_send(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("type") == "send" and readable_id(text) is not None


def stored() -> dict[int, Stored]:
    rows = Message.objects.order_by("seq").prefetch_related("revisions")
    return {
        row.pk: Stored(
            row.client_id,
            row.room_id,
            row.content,
            min((revision.pk, revision.content) for revision in row.revisions.all())[1]
            if row.revisions.all()
            else row.content,
            row.deleted_at is not None,
        )
        for row in rows
    }


@pytest.fixture
def small_limits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "FORGIVEN", 0.001)
    settings.TENANT_MESSAGING = UNLIMITED | {
        # Hypothesis asks the collector who holds its random numbers, and isn't told of what was put aside.
        "COLLECTION_PAUSE": None,
        "MAX_CONTENT_LENGTH": LONGEST,
        "MAX_FRAME_BYTES": LARGEST,
        "MAX_BAD_FRAMES": MOST_BAD,
    }


@pytest.fixture
async def talk(small_limits: None, acme: Tenant, globex: Tenant, people: Any, peers: Peers) -> Talk:
    def furnish() -> str:
        for tenant in (globex, acme):
            with tenant.activated():
                alice, bob, carol = (tenant.users[name] for name in people)
                actions.create_room(alice, name="open", members=[bob])
                actions.create_room(bob, name="closed", members=[carol])
        with acme.activated():
            return session_of(acme.users["alice"])

    cookie = await run_in_tenant("acme", furnish)
    bob = await peers.connect(acme, "bob")
    await bob.post(ROOM, "not alice's to edit")
    return Talk(peers, acme, globex, cookie, bob, await run_in_tenant("acme", stored))


def readable_id(text: str) -> str | None:
    """The id of a frame, read as leniently as anyone could."""
    value = json.loads(text)
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and re.fullmatch("[!-~]{1,64}", found) else None


def expected(held: dict[int, Stored], texts: list[str], replies: list[dict[str, Any]]) -> dict[int, Stored]:
    """What has to be there after frames and their replies: what was accepted, and nothing else."""
    held = dict(held)
    for text, reply in zip(texts, replies, strict=False):
        if reply["type"] == "ok" and "message" in reply:
            frame, key = json.loads(text), reply["message"]["id"]
            content = unicodedata.normalize("NFC", frame.get("content", ""))
            if frame["type"] == "send" and reply["duplicate"]:
                assert (held[key].client_id, held[key].room) == (UUID(frame["client_id"]), frame["room"])
                assert held[key].is_deleted or held[key].first_content == content
            elif frame["type"] == "send":
                assert key not in held
                held[key] = Stored(UUID(frame["client_id"]), frame["room"], content, content, is_deleted=False)
            elif frame["type"] == "edit":
                assert not held[key].is_deleted
                held[key] = replace(held[key], content=content)
            else:
                assert frame["type"] == "delete"
                held[key] = replace(held[key], content="", first_content="", is_deleted=True)
    return held


def check(text: str, reply: dict[str, Any]) -> None:
    """A reply is of the frame it answers, and says `ok` or a documented code."""
    if reply["type"] == "ok":
        assert reply["id"] == readable_id(text)
        return
    assert set(reply) == {"type", "id", "code", "message", "details"}
    assert reply["code"] in REFUSALS, reply
    assert reply["message"]
    assert SECRET not in json.dumps(reply)
    if reply["code"] in {"bad_json", "too_deep"}:
        assert reply["id"] is None
    else:
        assert reply["id"] == readable_id(text)


def weight(text: str) -> float:
    """For how many bad frames one of this size counts."""
    size = len(text.encode("utf-8", "surrogatepass"))
    return 1 if size <= FREE_BYTES else 1 + MOST_BAD / 4 * size / LARGEST


@PROFILE
@given(texts=SEQUENCES)
async def test_every_frame_is_answered_or_ends_the_connection(
    texts: list[str], talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replies, close_code = await talk.send(texts)

    for text, reply in zip(texts, replies, strict=False):
        check(text, reply)
    bad = sum(reply.get("code") in UNREADABLE for reply in replies)
    match close_code:
        case None:
            assert len(replies) == len(texts)
            assert bad < MOST_BAD
        case 4413:
            assert any(len(text.encode()) > LARGEST for text in texts)
        case _:
            # The close overtakes replies that still wait.
            assert close_code == 4400
            # Once there is no room for one more.
            assert sum(map(weight, texts)) > MOST_BAD - 1
    held = await run_in_tenant("acme", stored)
    accepted = expected(talk.held, texts, replies)
    # Of a closed connection the last replies are missing, not what they would have said.
    assert held == accepted or (close_code is not None and set(held) >= set(accepted))
    talk.held = held
    for message in held.values():
        assert message.room == ROOM
        assert message.is_deleted == (message.content == "")
        assert len(message.content) <= LONGEST
        assert message.is_deleted or message.content.strip()
        assert not re.search("[\x00\ud800-\udfff]", message.content + message.first_content)
    assert await run_in_tenant(talk.globex.schema_name, stored) == {}

    await talk.bob.until(lambda: talk.heard() == {key: message.content for key, message in held.items()})
    assert list(talk.heard()) == list(held)
    assert (await talk.bob.ask("ping"))["type"] == "ok"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert SECRET not in caplog.text


@PROFILE
@given(text=TEXT_FRAMES | st.text(CHARACTERS, max_size=50))
def test_reading_a_frame_never_raises(text: str, small_limits: None) -> None:
    from django_tenant_messaging.payloads import parse_frame
    from django_tenant_messaging.realtime.commands import refusal

    frame_id, frame = parse_frame(text)
    if isinstance(frame, exceptions.MessagingError):
        assert frame.code in REFUSALS
        json.loads(refusal(frame_id, frame).model_dump_json())
    else:
        assert frame.id == frame_id == readable_id(text)
