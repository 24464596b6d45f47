"""A room is deleted in steps: its members leave at once, and nobody else waits."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from django_tenant_messaging import actions, signals
from django_tenant_messaging.actions import room_deletion
from django_tenant_messaging.exceptions import Invalid, NotFound
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Mention,
    Message,
    MessageRevision,
    Notification,
    RoomCounter,
)
from django_tenant_messaging.selectors import left_rooms, list_conversations, room_history
from django_tenant_messaging.tenancy import run_in_tenant
from tests.harness.peer import another_hub
from tests.harness.queries import queries
from tests.harness.together import together
from tests.test_delivery import LossyLayer

if TYPE_CHECKING:
    from django.test import Client

    from tests.harness.peer import Peer, Peers
    from tests.harness.tenants import Tenant

ROOM, OTHER = 1, 2
ADMIN = "/admin/django_tenant_messaging/chatroom/"

pytestmark = pytest.mark.usefixtures("team")


def fill(tenant: Tenant, messages: int = 10) -> None:
    """Another room for all, and messages in both: mentions, answers, earlier versions, notifications."""
    alice, bob, carol = (tenant.users[name] for name in ("alice", "bob", "carol"))
    with tenant.activated():
        assert actions.create_room(alice, name="other", members=[bob, carol]).pk == OTHER
        for room_id in (ROOM, OTHER):
            first = actions.send_message(alice, room_id=room_id, content="first, @bob").message
            for number in range(messages - 1):
                actions.send_message(bob, room_id=room_id, content=f"{number} @alice", reply_to=first.id)
            actions.edit_message(alice, room_id=room_id, message_id=first.id, content="edited, @bob")


def rows(tenant: Tenant) -> dict[str, int]:
    with tenant.activated():
        models: tuple[Any, ...] = (ChatRoom, RoomCounter, Membership, Message, Mention, MessageRevision, Notification)
        return {model.__name__: model.objects.count() for model in models}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_deletion, "BATCH", 2)


@pytest.fixture
def after_each_lock(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Functions, of which each step of a deletion calls the next one when it has locked the room."""
    calls: list[Any] = []
    original = room_deletion._lock_room

    def lock_room(room_id: int) -> None:
        original(room_id)
        if calls:
            calls.pop(0)()

    monkeypatch.setattr(room_deletion, "_lock_room", lock_room)
    return calls


@pytest.mark.usefixtures("small_steps")
def test_all_of_the_room_goes_and_nothing_else(acme: Tenant, globex: Tenant) -> None:
    for tenant in (acme, globex):
        fill(tenant)
    before = rows(globex)
    with acme.activated():
        assert actions.delete_room(room_id=ROOM) is True
        assert [room.pk for room in ChatRoom.objects.all()] == [OTHER]
    assert rows(acme) == {name: number // 2 for name, number in before.items()}
    assert rows(globex) == before
    with acme.activated():
        # Nothing is there any more, nor ever was.
        assert actions.delete_room(room_id=ROOM) is True
        assert actions.delete_room(room_id=2**70) is True
    assert rows(acme) == {name: number // 2 for name, number in before.items()}


def test_queries(acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(acme, 12)
    made = []
    for batch in (3, 6):
        monkeypatch.setattr(room_deletion, "BATCH", batch)
        with acme.activated(), transaction.atomic(), queries() as asked:
            actions.delete_room(room_id=ROOM)
            transaction.set_rollback(True)
        made.append(len(asked))
    # For each step two queries; the last finds less than it could.
    assert made[0] - made[1] == 2 * (5 - 3)
    assert made[1] <= 22


@pytest.mark.usefixtures("small_steps")
def test_members_leave_at_once_and_nobody_comes_back(acme: Tenant) -> None:
    fill(acme)
    alice, bob, carol = (acme.users[name] for name in ("alice", "bob", "carol"))
    heard: list[Any] = []

    def hear(room_id: int, left: Any, **_kwargs: Any) -> None:
        heard.append((room_id, {user.username for user in left}))

    signals.members_changed.connect(hear)
    with acme.activated():
        actions.leave_room(carol, room_id=ROOM)
        heard.clear()
        assert actions.delete_room(room_id=ROOM, seconds=0) is False
        assert heard == [(ROOM, {"alice", "bob"})]
        assert Message.objects.filter(room_id=ROOM).count() == 8
        for refused in (
            lambda: actions.send_message(alice, room_id=ROOM, content="still here"),
            lambda: actions.add_members(alice, room_id=ROOM, users=[bob]),
            lambda: actions.rejoin_room(carol, room_id=ROOM),
            lambda: actions.rejoin_room(bob, room_id=ROOM),
            lambda: room_history(alice, room_id=ROOM),
            lambda: actions.mark_read(bob, room_id=ROOM, seq=1),
        ):
            with pytest.raises(NotFound):
                refused()
        assert [found.room.room_id for found in list_conversations(alice)] == [OTHER]
        assert left_rooms(carol) == []
        assert actions.delete_room(room_id=ROOM) is True
        assert heard == [(ROOM, {"alice", "bob"})]


@pytest.mark.usefixtures("small_steps")
def test_two_begin_another_direct_conversation(acme: Tenant) -> None:
    alice, bob = acme.users["alice"], acme.users["bob"]
    with acme.activated():
        room = actions.open_direct_room(alice, other=bob)
        for number in range(3):
            actions.send_message(alice, room_id=room.pk, content=f"{number}")
        assert actions.delete_room(room_id=room.pk, seconds=0) is False
        another = actions.open_direct_room(bob, other=alice)
        assert another.pk != room.pk
        assert actions.delete_room(room_id=room.pk) is True
        actions.send_message(alice, room_id=another.pk, content="hello again")
        assert actions.open_direct_room(alice, other=bob).pk == another.pk


@pytest.mark.usefixtures("small_steps")
def test_killed_in_the_middle_and_resumed(acme: Tenant, after_each_lock: list[Any]) -> None:
    fill(acme)
    expected = {name: number // 2 for name, number in rows(acme).items()}

    def die() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    after_each_lock += [lambda: None, lambda: None, die]
    with acme.activated(), pytest.raises(OperationalError):
        actions.delete_room(room_id=ROOM)
    connection.close()
    with acme.activated():
        assert Message.objects.filter(room_id=ROOM).count() == 6
        assert actions.delete_room(room_id=ROOM) is True
    assert rows(acme) == expected


@pytest.mark.usefixtures("small_steps")
def test_several_at_once(acme: Tenant) -> None:
    fill(acme, 30)
    expected = {name: number // 2 for name, number in rows(acme).items()}

    def delete() -> bool:
        with acme.activated():
            return actions.delete_room(room_id=ROOM)

    assert together(delete, delete, delete) == [True] * 3
    assert rows(acme) == expected


@pytest.mark.usefixtures("small_steps")
def test_what_the_host_writes_meanwhile_goes_too(acme: Tenant, after_each_lock: list[Any]) -> None:
    fill(acme)

    def write() -> None:
        with acme.activated():
            room = ChatRoom.objects.get(pk=ROOM)
            Message.objects.create(room=room, sender=acme.users["alice"], content="meanwhile")

    # Six steps, of which the last finds nothing; then the room itself.
    after_each_lock += [*([lambda: None] * 6), lambda: together(write)]
    with acme.activated():
        assert actions.delete_room(room_id=ROOM) is True
        assert after_each_lock == []
        assert not Message.objects.filter(room_id=ROOM).exists()
        assert not ChatRoom.objects.filter(pk=ROOM).exists()


def test_an_answer_in_another_room_stays(acme: Tenant) -> None:
    fill(acme)
    with acme.activated():
        answered = Message.objects.filter(room_id=ROOM).order_by("seq")[0]
        other = ChatRoom.objects.get(pk=OTHER)
        answer = Message.objects.create(room=other, sender=acme.users["bob"], content="yes", reply_to=answered)
        assert actions.delete_room(room_id=ROOM) is True
        answer.refresh_from_db()
        assert answer.reply_to_id is None


@pytest.mark.usefixtures("small_steps")
def test_rows_of_the_host_are_named(acme: Tenant) -> None:
    fill(acme)
    with acme.activated():
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE pinned (message_id bigint REFERENCES django_tenant_messaging_message);"
                " INSERT INTO pinned SELECT min(id) FROM django_tenant_messaging_message"
            )
        try:
            with pytest.raises(IntegrityError, match="pinned"):
                actions.delete_room(room_id=ROOM)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE pinned")
        assert actions.delete_room(room_id=ROOM) is True


def test_others_write_and_read_whatever_it_has_locked(acme: Tenant) -> None:
    """All steps at once in one transaction that isn't committed: no other room waits."""
    fill(acme)
    alice, bob = acme.users["alice"], acme.users["bob"]

    def go_on() -> None:
        with acme.activated():
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '2s'")
            actions.send_message(bob, room_id=OTHER, content="hello @alice")
            actions.mark_read(alice, room_id=OTHER, seq=3)
            actions.create_room(alice, name="third", members=[bob])
            actions.send_message(alice, room_id=actions.open_direct_room(alice, other=bob).pk, content="you")
            assert len(list_conversations(alice)) >= 3
            assert room_history(alice, room_id=ROOM).messages

    with acme.activated(), transaction.atomic():
        actions.delete_room(room_id=ROOM)
        together(go_on)


def test_others_go_on_while_thousands_of_messages_go(
    acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in (acme, globex):
        fill(tenant, 2)
    with acme.activated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_tenant_messaging_message"
            " (room_id, seq, changed_seq, sender_id, content, timestamp, is_read, client_id)"
            " SELECT 1, n, n, 1, 'message ' || n, now(), false, gen_random_uuid() FROM generate_series(4, 5000) n"
        )
        RoomCounter.objects.filter(room_id=ROOM).update(last_seq=5000)
    monkeypatch.setattr(room_deletion, "BATCH", 100)
    has_begun, is_done = threading.Event(), threading.Event()
    alice = acme.users["alice"]
    sent: list[int] = []
    refused: list[int] = []

    def begun(**_kwargs: Any) -> None:
        has_begun.set()

    signals.members_changed.connect(begun)

    def send() -> None:
        assert has_begun.wait(30)
        with acme.activated():
            while not is_done.is_set():
                sent.append(actions.send_message(alice, room_id=OTHER, content=f"{len(sent)}").message.seq)
                with pytest.raises(NotFound):
                    actions.send_message(alice, room_id=ROOM, content="no")
                refused.append(1)

    def delete() -> None:
        try:
            with acme.activated():
                assert actions.delete_room(room_id=ROOM) is True
        finally:
            is_done.set()

    before = rows(globex)
    together(send, delete)
    assert len(sent) > 3
    assert len(refused) == len(sent)
    assert sent == list(range(sent[0], sent[0] + len(sent)))
    assert rows(acme)["Message"] == 2 + len(sent)
    assert rows(globex) == before


def test_the_orm_refuses_and_names_the_action(acme: Tenant) -> None:
    with acme.activated():
        room = ChatRoom.objects.get(pk=ROOM)
        with pytest.raises(TypeError, match=r"actions\.delete_room\(room_id=1\)"):
            room.delete()
        for rooms in (ChatRoom.objects.filter(pk=ROOM), acme.users["alice"].chat_rooms.all()):
            with pytest.raises(TypeError, match=r"actions\.delete_room"):
                rooms.delete()
        assert ChatRoom.objects.filter(pk=ROOM).exists()


# Sockets


def has_removed(peer: Peer) -> bool:
    return bool(peer.of_type("room_removed"))


async def test_sockets_drop_the_room(acme: Tenant, globex: Tenant, peers: Peers) -> None:
    alice, bob = [await peers.connect(acme, name) for name in ("alice", "bob")]
    stranger = await peers.connect(globex, "alice")
    await run_in_tenant("acme", lambda: actions.delete_room(room_id=ROOM))
    for peer in (alice, bob):
        await peer.until(partial(has_removed, peer))
        assert [event["room"] for event in peer.of_type("room_removed")] == [ROOM]
    assert (await alice.post(ROOM, "anybody?"))["code"] == "not_found"
    assert (await stranger.post(ROOM, "all here"))["type"] == "ok"
    assert stranger.of_type("room_removed") == []


async def test_sockets_of_a_process_that_is_told_nothing(
    acme: Tenant, globex: Tenant, peers: Peers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room is gone, with all that could be read about it, before the process compares."""
    layer = LossyLayer()
    layer.fate = lambda _message: 0
    monkeypatch.setattr("django_tenant_messaging.realtime.link.get_channel_layer", lambda _alias: layer)
    settings.TENANT_MESSAGING = {"RECONCILE_INTERVAL": 0.1}
    async with another_hub(peers) as hub:
        alice = await peers.connect(acme, "alice", hub=hub)
        stranger = await peers.connect(globex, "alice", hub=hub)
        await run_in_tenant("acme", lambda: actions.delete_room(room_id=ROOM))
        await alice.until(partial(has_removed, alice))
        await stranger.ask("ping")
        assert stranger.of_type("room_removed") == []


# The admin


@pytest.fixture
def operator(acme: Tenant) -> Client:
    return acme.client(acme.create_user("root", is_staff=True, is_superuser=True))


@pytest.fixture(params=["page", "list"])
def deleting(request: Any) -> tuple[str, dict[str, Any]]:
    """Both ways to delete a room in the admin: address and form."""
    if request.param == "page":
        return f"{ADMIN}{ROOM}/delete/", {}
    return ADMIN, {"action": "delete_selected", "_selected_action": [ROOM]}


def test_admin(acme: Tenant, globex: Tenant, operator: Client, deleting: tuple[str, dict[str, Any]]) -> None:
    for tenant in (acme, globex):
        fill(tenant)
    before = rows(globex)
    path, form = deleting
    asked = operator.post(path, form) if form else operator.get(path)
    assert "Are you sure" in asked.content.decode()
    assert rows(acme) == before
    answer = operator.post(path, {**form, "post": "yes"}, follow=True).content.decode()
    assert "1 room deleted." in answer
    assert "successfully" not in answer
    assert rows(acme) == {name: number // 2 for name, number in before.items()}
    assert rows(globex) == before


def test_admin_deletes_as_much_as_fits(
    acme: Tenant, operator: Client, deleting: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(acme)
    monkeypatch.setattr(room_deletion, "BATCH", 2)
    monkeypatch.setattr("django_tenant_messaging.admin.room_deletion.SECONDS", 0)
    path, form = deleting
    answer = operator.post(path, {**form, "post": "yes"}, follow=True).content.decode()
    assert "Nobody is in 1 of the rooms any more, but it still holds messages. Delete it again." in answer
    with acme.activated():
        assert Message.objects.filter(room_id=ROOM).count() == 8
        assert not Membership.objects.filter(room_id=ROOM, left_seq=None).exists()
    monkeypatch.undo()
    assert "1 room deleted." in operator.post(path, {**form, "post": "yes"}, follow=True).content.decode()
    with acme.activated():
        assert not ChatRoom.objects.filter(pk=ROOM).exists()


def test_admin_asks_for_the_permission(acme: Tenant, deleting: tuple[str, dict[str, Any]]) -> None:
    from django.contrib.auth.models import Permission

    staff = acme.create_user("staff", is_staff=True)
    with acme.activated():
        staff.user_permissions.add(Permission.objects.get(codename="view_chatroom"))
    path, form = deleting
    client = acme.client(staff)
    assert client.post(path, {**form, "post": "yes"}).status_code == (200 if form else 403)
    with acme.activated():
        assert Membership.objects.filter(room_id=ROOM, left_seq=None).count() == 3
        staff.user_permissions.add(Permission.objects.get(codename="delete_chatroom"))
    client.post(path, {**form, "post": "yes"})
    with acme.activated():
        assert not ChatRoom.objects.filter(pk=ROOM).exists()


@pytest.mark.parametrize("room_id", [True, "1", 1.0, None])
def test_what_is_no_id_deletes_nothing(acme: Tenant, team: None, room_id: Any) -> None:
    with acme.activated():
        with pytest.raises(Invalid, match="room_id: must be a whole number"):
            actions.delete_room(room_id=room_id)
        assert actions.delete_room(room_id=-1)
        assert actions.delete_room(room_id=2**63)
        assert ChatRoom.objects.filter(pk=1).exists()
