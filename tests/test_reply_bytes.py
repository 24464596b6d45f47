"""What the server says is bounded in bytes, whatever the tenant holds: each kind of frame, and each page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import CharField, QuerySet, Value
from django.db.models.functions import Concat
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_tenant_messaging import actions, selectors, urls
from django_tenant_messaging.events import MembersChanged
from django_tenant_messaging.exceptions import MessagingError
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Mention,
    Message,
    MessageRevision,
    Notification,
    RoomCounter,
    UserStatus,
)
from django_tenant_messaging.payloads import (
    MessagePayload,
    ServerFrame,
    parse_frame,
    sizes,
)
from django_tenant_messaging.payloads.client import MAX_BIGINT, MAX_POSITIONS
from django_tenant_messaging.payloads.server import (
    ChangedPayload,
    NotificationPayload,
    ReplyPayload,
    ResumeStatus,
    RevisionPayload,
    RoomPayload,
    SentPayload,
    UserPayload,
)
from django_tenant_messaging.realtime.commands import refusal
from django_tenant_messaging.realtime.hints import Hint
from django_tenant_messaging.realtime.hub import hub_of_this_loop
from django_tenant_messaging.realtime.outbox import JOINED_CHARACTERS
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.unlimited import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.peer import Peers
    from tests.harness.tenants import Tenant

PAGE = 262_144
WAVE = "\U0001f44b"
QUOTE = '"'
LONG_TEXT = WAVE * 10_000
ENVELOPE = 1_024
"""What a frame may have besides the list that it holds."""
NOW = timezone.now()
FRAME_ID = "~" * 64
USER = UserPayload(id="9" * 36, username=WAVE * 150)
MESSAGE = MessagePayload(
    id=MAX_BIGINT,
    seq=MAX_BIGINT,
    changed_seq=MAX_BIGINT,
    client_id="x" * 36,
    sender=USER,
    receiver=USER,
    content=LONG_TEXT,
    timestamp=NOW,
    reply_to=ReplyPayload(id=MAX_BIGINT, seq=MAX_BIGINT),
    mentioned_users=[USER] * 50,
    is_broadcast=False,
    is_read=False,
    edited_at=NOW,
    deleted_at=NOW,
)
ROOM = RoomPayload(id=MAX_BIGINT, kind="direct", name=WAVE * 150, epoch="e" * 32, seq=MAX_BIGINT, read_seq=MAX_BIGINT)
CHANGED = ChangedPayload(id=MAX_BIGINT, seq=MAX_BIGINT, changed_seq=MAX_BIGINT, edited_at=NOW, deleted_at=NOW)
SENT = SentPayload(id=MAX_BIGINT, seq=MAX_BIGINT, client_id="x" * 36, timestamp=NOW)
TOLD = NotificationPayload(
    id=MAX_BIGINT, text=WAVE * 500, room=MAX_BIGINT, message_id=MAX_BIGINT, created_at=NOW, is_read=False
)
STATUSES = {str(MAX_BIGINT - n): ResumeStatus(status="unfollowed", seq=MAX_BIGINT) for n in range(MAX_POSITIONS)}
PLACE = {"room": MAX_BIGINT, "after": MAX_BIGINT, "seq": MAX_BIGINT}
#: Of each kind the bound in bytes, and what makes the frame large. Those of a list are made from a tenant below.
BOUNDS: dict[str, tuple[int, dict[str, Any] | None]] = {
    "hello": (PAGE + ENVELOPE, None),
    "HistoryReply": (PAGE + ENVELOPE, None),
    "RevisionsReply": (PAGE + ENVELOPE, None),
    "members": (65_536 + ENVELOPE, None),
    "error": (24_576, None),
    "OkFrame": (128, {}),
    # Less than twice the resume, which was paid for.
    "ResumeReply": (151_552, {"rooms": STATUSES}),
    "SendReply": (ENVELOPE, {"room": MAX_BIGINT, "message": SENT, "duplicate": False}),
    "ChangeReply": (ENVELOPE, {"room": MAX_BIGINT, "message": CHANGED}),
    "RenameReply": (ENVELOPE, {"room": MAX_BIGINT, "name": WAVE * 120}),
    "ReadReply": (ENVELOPE, {"room": MAX_BIGINT, "seq": MAX_BIGINT}),
    "message": (76_800, {**PLACE, "message": MESSAGE}),
    "room": (ENVELOPE, {**PLACE, "name": WAVE * 120}),
    "skip": (ENVELOPE, PLACE),
    "read": (ENVELOPE, {"room": MAX_BIGINT, "user": USER, "seq": MAX_BIGINT}),
    "typing": (ENVELOPE, {"room": MAX_BIGINT, "user": USER, "is_typing": False, "expires_in": 0.123456789}),
    "presence": (ENVELOPE, {"user": USER, "is_online": False, "last_seen": NOW}),
    "notification": (3_072, {"notification": TOLD}),
    "room_added": (ENVELOPE, {"room": ROOM}),
    "room_removed": (128, {"room": MAX_BIGINT}),
    "heartbeat": (88_064, {"heads": {str(MAX_BIGINT - n): MAX_BIGINT for n in range(2 * 1_000)}}),
}


def name_of(frame: Any) -> str:
    kind: str = frame.model_fields["type"].default
    return frame.__name__ if kind == "ok" else kind


FRAMES = {name_of(frame): frame for frame in get_args(ServerFrame)}


def test_every_kind_has_a_bound() -> None:
    assert FRAMES.keys() == BOUNDS.keys()


@pytest.mark.parametrize("name", [name for name, (_bound, fields) in BOUNDS.items() if fields is not None])
def test_the_largest_frame_of_fixed_fields(name: str) -> None:
    bound, fields = BOUNDS[name]
    values = {"id": FRAME_ID} if "id" in FRAMES[name].model_fields else {}
    text = FRAMES[name](**values, **(fields or {})).model_dump_json()
    assert len(text.encode()) <= bound


def test_the_largest_resume_is_answered_by_hardly_more() -> None:
    positions = {key: {"epoch": "", "seq": 0} for key in STATUSES}
    asked = json.dumps({"type": "resume", "id": FRAME_ID, "positions": positions}, separators=(",", ":"))
    answer = FRAMES["ResumeReply"](id=FRAME_ID, rooms=STATUSES).model_dump_json()
    assert len(answer) < 2 * len(asked)


@pytest.mark.parametrize("key", [WAVE * 5_000, QUOTE * 5_000, "\ud800" * 5_000], ids=["wide", "escaped", "surrogates"])
def test_a_refusal_repeats_little_of_what_it_refuses(key: str) -> None:
    frame = {"type": "resume", "id": FRAME_ID, **{f"{number}{key}": 0 for number in range(3)}}
    _, error = parse_frame(json.dumps(frame))
    assert isinstance(error, MessagingError)
    assert len(refusal(FRAME_ID, error).model_dump_json().encode()) <= BOUNDS["error"][0]


REVISION = RevisionPayload(id=MAX_BIGINT, content=QUOTE * 9 + "\\\n\t", written_at=NOW, replaced_at=NOW)


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (MESSAGE, sizes.bytes_of_message),
        (ROOM, sizes.bytes_of_room),
        (USER, sizes.bytes_of_user),
        (REVISION, sizes.bytes_of_revision),
    ],
)
def test_what_is_counted_is_what_is_sent(payload: Any, size: Callable[[Any], int]) -> None:
    """Each with the comma after it; of the users of a message the fields have some bytes more or less."""
    counted = size(payload)
    assert counted - 80 <= len(payload.model_dump_json().encode()) + 1 <= counted


# Of a tenant that is as large as may be


@pytest.fixture
def crowd(acme: Tenant, globex: Tenant, people: Any, settings: Any) -> Tenant:
    """Twelve hundred users with the longest names, who are online; alice is in a room with each hundred of them. She is
    in as many rooms with the longest names."""
    settings.TENANT_MESSAGING = UNLIMITED
    with acme.activated():
        model = get_user_model()
        users = model.objects.bulk_create([model(username=f"{number:04d}".ljust(150, WAVE)) for number in range(1_200)])
        UserStatus.objects.bulk_create(
            [UserStatus(user=user, is_online=True, connections={"p": 1}) for user in users], ignore_conflicts=True
        )
        UserStatus.objects.update(is_online=True)
        alice = acme.users["alice"]
        rooms = ChatRoom.objects.bulk_create(
            [
                ChatRoom(kind="group", name=f"{number:04d}".ljust(120, WAVE), created_by_id=alice.pk)
                for number in range(1_200)
            ]
        )
        RoomCounter.objects.bulk_create([RoomCounter(room=room) for room in rooms])
        Membership.objects.bulk_create([Membership(room=room, user=alice, role="owner") for room in rooms])
        Membership.objects.bulk_create(
            [Membership(room=rooms[number // 100], user=user) for number, user in enumerate(users)]
        )
    return acme


def size_of(frame: dict[str, Any]) -> int:
    return len(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode())


async def test_a_hello_ends_early_and_says_so(crowd: Tenant, globex: Tenant, peers: Peers) -> None:
    peer = await peers.connect(crowd, "alice")
    hello = peer.hello
    assert PAGE * 0.9 < size_of(hello) <= BOUNDS["hello"][0]
    assert (hello["rooms_limited"], hello["online_limited"]) == (True, True)
    assert size_of({"online": hello["online"]}) <= PAGE // 4 + ENVELOPE
    # The rest is followed once it is named.
    others = {*range(1, 1_201)} - {room["id"] for room in hello["rooms"]}
    reply = await peer.ask("history", room=min(others))
    assert (reply["type"], peer.of_type("room_added")[0]["room"]["id"]) == ("ok", min(others))
    twin = await peers.connect(globex, "alice")
    assert (twin.hello["rooms"], twin.hello["rooms_limited"]) == ([], False)
    assert twin.hello["online_limited"] is False


async def test_a_hello_of_a_thousand_usual_names_is_whole(crowd: Tenant, peers: Peers) -> None:
    def rename() -> None:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_tenant_messaging_membership WHERE room_id > 1000")
            cursor.execute("UPDATE django_tenant_messaging_chatroom SET name = 'a room of this tenant ' || id")
            cursor.execute("UPDATE auth_user SET username = 'someone.' || id WHERE username <> 'alice'")

    await run_in_tenant("acme", rename)
    peer = await peers.connect(crowd, "alice", resume=False)
    assert (len(peer.hello["rooms"]), peer.hello["rooms_limited"]) == (1_000, False)
    assert (len(peer.hello["online"]), peer.hello["online_limited"]) == (1_000, True)


async def test_many_who_come_or_go_at_once_are_told_in_parts(crowd: Tenant, peers: Peers) -> None:
    alice = crowd.users["alice"]
    peer = await peers.connect(crowd, "alice")
    room_id = peer.hello["rooms"][-1]["id"]

    def come() -> list[str]:
        users = list(get_user_model().objects.filter(username__contains=WAVE)[:900])
        assert not Membership.objects.filter(room_id=room_id, user__in=users).exists()
        actions.add_members(alice, room_id=room_id, users=users)
        return [str(user.pk) for user in users]

    keys = await run_in_tenant("acme", come)
    await peer.until(lambda: sum(len(frame["joined"]) for frame in peer.of_type("members")) == len(keys))
    frames = peer.of_type("members")
    assert [user["id"] for frame in frames for user in frame["joined"]] == keys
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    assert 8 < len(frames) < 11
    assert max(map(size_of, frames)) <= BOUNDS["members"][0]

    def seen_again() -> list[int]:
        changes = selectors.read_changes(room_id, after=0, limit=200)
        return [len(event.joined) for event in changes.events if isinstance(event, MembersChanged)]

    assert await run_in_tenant("acme", seen_again) == [len(frame["joined"]) for frame in frames][:1]


async def test_a_crowd_that_comes_is_told_in_texts_of_a_bounded_size(crowd: Tenant, peers: Peers) -> None:
    peer = await peers.connect(crowd, "alice")
    room_id = peer.hello["rooms"][0]["id"]
    written: list[str] = []
    hub = hub_of_this_loop()
    (socket,) = hub.sockets_of("acme")
    frame = FRAMES["presence"](user=USER, is_online=False, last_seen=NOW).model_dump_json()
    hints = [Hint("acme", "presence", "all", frame, rooms=[room_id], left=["0"]) for _ in range(500)]
    before = len(peer.of_type("presence"))
    received = peer._from_app

    async def note(event: dict[str, Any]) -> None:
        written.append(event.get("text", ""))
        await received(event)

    socket.outbox._send = note
    hub._dispatch("acme", hints)
    await peer.until(lambda: len(peer.of_type("presence")) == before + 500)
    assert max(map(len, written)) < JOINED_CHARACTERS + 2 * len(frame)


def mention_all(tenant: Tenant) -> None:
    """Write two hundred short messages in room 1, each of which mentions fifty users, one of them with edits."""
    alice = tenant.users["alice"]
    keys = list(get_user_model().objects.order_by("-pk").values_list("pk", flat=True)[:50])
    get_user_model().objects.filter(pk__in=keys).update(username=Concat(Value("u"), "id", output_field=CharField()))
    messages = QuerySet[Message](Message).bulk_create(
        [
            Message(room_id=1, seq=seq, changed_seq=seq, sender=alice, content=f"message {seq}", client_id=uuid4())
            for seq in range(1, 201)
        ]
    )
    RoomCounter.objects.filter(room_id=1).update(last_seq=200)
    Mention.objects.bulk_create([Mention(message=message, user_id=key) for message in messages for key in keys])
    MessageRevision.objects.bulk_create(
        [
            MessageRevision(message=messages[0], content=QUOTE * 10_000, written_at=NOW, replaced_at=NOW)
            for _ in range(40)
        ]
    )


async def test_pages_of_what_is_stored_end_early_and_lead_to_the_rest(crowd: Tenant, peers: Peers) -> None:
    await run_in_tenant("acme", mention_all, crowd)
    peer = await peers.connect(crowd, "alice")
    seqs: list[int] = []
    place: dict[str, Any] = {}
    while place.get("before") != 1:
        page = await peer.ask("history", room=1, limit=200, **place)
        assert size_of(page) <= BOUNDS["HistoryReply"][0]
        seqs = [message["seq"] for message in page["messages"]] + seqs
        place = {"before": seqs[0]}
        assert page["has_before"] == (seqs[0] > 1)
    assert seqs == list(range(1, 201))
    page = await peer.ask("revisions", room=1, message_id=1, limit=200)
    assert 0.9 * PAGE < size_of(page) <= BOUNDS["RevisionsReply"][0]
    assert page["has_before"] is True
    before = page["revisions"][0]["id"]
    rest = [*range(1, before)]
    while rest:
        page = await peer.ask("revisions", room=1, message_id=1, limit=200, before=rest[-1] + 1)
        found = [revision["id"] for revision in page["revisions"]]
        assert found == rest[-len(found) :]
        del rest[-len(found) :]


PAGES = {
    # Texts are at most a page of history, and HTML writes an ampersand as five characters.
    "room": ("/messages/rooms/1/", 5 * PAGE + 524_288),
    "members": ("/messages/rooms/1/members/", 262_144),
    "room-list": ("/messages/", 524_288),
}
LED_TO_THEM = {
    *("create-room", "open-direct", "rename-room", "leave-room", "rejoin-room", "mark-notifications-read"),
}
"""They answer by a redirect, or show one of the pages again with what was wrong."""


def test_every_page_has_a_bound() -> None:
    assert {pattern.name for pattern in urls.urlpatterns} == PAGES.keys() | LED_TO_THEM


@pytest.fixture
def long_texts(crowd: Tenant) -> Tenant:
    """The first sixty rooms have sixty of the longest messages each; alice has as many of the longest notifications."""
    alice = crowd.users["alice"]
    with crowd.activated():
        messages = [
            Message(room_id=room, seq=seq, changed_seq=seq, sender=alice, content="&" * 10_000, client_id=uuid4())
            for room in range(1, 61)
            for seq in range(1, 61 if room == 1 else 2)
        ]
        QuerySet[Message](Message).bulk_create(messages)
        RoomCounter.objects.filter(room_id__lte=60).update(last_seq=60, last_activity_at=timezone.now())
        text = "&" * 500
        Notification.objects.bulk_create(
            [Notification(user=alice, message=message, notification_text=text) for message in messages[:60]]
        )
    return crowd


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_longest_texts(long_texts: Tenant, name: str) -> None:
    address, bound = PAGES[name]
    response = long_texts.client(long_texts.users["alice"]).get(address)
    assert response.status_code == 200
    assert 100_000 < len(response.content) <= bound


def test_the_list_of_conversations_reads_the_beginnings_of_texts(long_texts: Tenant) -> None:
    with long_texts.activated(), CaptureQueriesContext(connection) as captured:
        found = selectors.list_conversations(long_texts.users["alice"], limit=200)
    assert max(len(line.last_message.content) for line in found if line.last_message) == 201
    assert not [query["sql"] for query in captured if '"content", "' in query["sql"]]
