"""Writing messages: by the action, through the ORM, and by many at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction
from django.db.models.signals import post_save
from django.test import override_settings

from django_tenant_messaging import actions, signals
from django_tenant_messaging.events import MessagePosted, NotificationCreated, bus
from django_tenant_messaging.exceptions import Conflict, Invalid, MessagingError, NotFound
from django_tenant_messaging.models import ChatRoom, Membership, Message, Notification, RoomCounter
from django_tenant_messaging.selectors import message_by_id
from django_tenant_messaging.tenancy import current_schema
from django_tenant_messaging.types import ReplyRef, SentMessage, UserRef
from tests.harness.queries import exactly
from tests.harness.together import outcomes, together
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User

    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


@pytest.fixture
def told() -> Iterator[list[tuple[str, str]]]:
    """What `message_sent` told the host, as (schema, content)."""
    seen: list[tuple[str, str]] = []

    def receiver(message: Any, schema_name: str, **_kwargs: Any) -> None:
        assert current_schema() == schema_name
        assert message_by_id(message.id) == message
        seen.append((schema_name, message.content))

    signals.message_sent.connect(receiver)
    yield seen
    signals.message_sent.disconnect(receiver)


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """All events, in order."""
    seen: list[Any] = []
    bus.connect_sink(seen.extend)
    yield seen
    bus._sinks.remove(seen.extend)


def head(room_id: int = TEAM) -> int:
    return RoomCounter.objects.get(room_id=room_id).last_seq


def in_acme(world: World, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with world.acme.activated():
            return call()

    return run


# The action


def test_sent_message(world: World, events: list[Any], told: list[Any]) -> None:
    client_id = uuid4()
    before = datetime.now(UTC)
    sent = actions.send_message(world.alice, room_id=TEAM, content="Hello", client_id=client_id)
    message = sent.message
    assert not sent.duplicate
    assert (message.room_id, message.seq, message.changed_seq, message.client_id) == (TEAM, 1, 1, str(client_id))
    assert (message.sender, message.receiver) == (UserRef(str(world.alice.pk), "alice"), None)
    assert (message.content, message.reply_to, message.is_broadcast, message.is_read) == ("Hello", None, True, False)
    assert before <= message.timestamp <= datetime.now(UTC)
    assert message_by_id(message.id) == message
    assert events == [MessagePosted("acme", TEAM, 1, 0, message)]
    assert told == [("acme", "Hello")]
    assert Notification.objects.count() == 0


def test_direct_message_notifies_its_receiver(world: World, events: list[Any]) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    events.clear()
    message = actions.send_message(world.alice, room_id=room.pk, content="@bob hello @alice").message
    assert message.receiver == UserRef(str(world.bob.pk), "bob")
    assert not message.is_broadcast
    assert message_by_id(message.id) == message
    (notification,) = Notification.objects.all()
    assert (notification.user, notification.message_id) == (world.bob, message.id)
    assert notification.notification_text == "You have a new message from alice"
    posted, told = events
    assert isinstance(posted, MessagePosted)
    assert isinstance(told, NotificationCreated)
    assert (told.schema_name, told.notification.id, told.notification.user_id) == (
        "acme",
        notification.pk,
        str(world.bob.pk),
    )


def test_content_is_stored_in_nfc_and_raw(world: World) -> None:
    sent = actions.send_message(world.alice, room_id=TEAM, content=" <b>Cafe\u0301</b>\n\u2028 ")
    assert sent.message.content == " <b>Caf\u00e9</b>\n\u2028 "
    assert Message.objects.get().content == sent.message.content


@pytest.mark.parametrize("content", ["", " \n\t\u00a0", "x" * 11, "x" * 1_000, "a\0", "\ud800", "a\udfff"])
def test_content_that_is_refused(world: World, content: str) -> None:
    with override_settings(TENANT_MESSAGING={"MAX_CONTENT_LENGTH": 10}), pytest.raises(Invalid) as caught:
        actions.send_message(world.alice, room_id=TEAM, content=content)
    assert [error["field"] for error in caught.value.details["errors"]] == ["content"]
    assert (Message.objects.count(), head()) == (0, 0)


@override_settings(TENANT_MESSAGING={"MAX_CONTENT_LENGTH": 10})
def test_length_counts_after_nfc(world: World) -> None:
    assert actions.send_message(world.alice, room_id=TEAM, content="e\u0301" * 10).message.content == "\u00e9" * 10


@pytest.mark.parametrize("room_id", [TEAM, THEIRS, 999, 0, -5, 2**63, 2**100])
def test_strangers_send_nothing(world: World, room_id: int, told: list[Any]) -> None:
    with pytest.raises(NotFound) as caught:
        actions.send_message(world.carol, room_id=room_id, content="let me in")
    assert caught.value.details == {"room": room_id}
    assert (Message.objects.count(), head(), told) == (0, 0, [])


def test_who_left_sends_nothing(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with pytest.raises(NotFound):
        actions.send_message(world.bob, room_id=TEAM, content="one more thing")
    assert head() == 1


def test_reply(world: World) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="Lunch?").message
    reply = actions.send_message(world.bob, room_id=TEAM, content="Yes", reply_to=first.id).message
    assert reply.reply_to == ReplyRef(first.id, 1)
    assert message_by_id(reply.id) == reply


def test_reply_to_what_is_not_there(world: World) -> None:
    other = actions.create_room(world.alice, name="other", members=[world.bob])
    elsewhere = actions.send_message(world.alice, room_id=other.pk, content="elsewhere").message
    early = actions.send_message(world.alice, room_id=TEAM, content="early").message
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    with world.globex.activated():
        for number in range(5):
            actions.send_message(world.globex.users["alice"], room_id=TEAM, content=f"foreign {number}")
    tries = [(world.bob, elsewhere.id), (world.carol, early.id), (world.bob, 5), (world.bob, 0), (world.bob, 2**70)]
    for actor, reply_to in tries:
        with pytest.raises(NotFound) as caught:
            actions.send_message(actor, room_id=TEAM, content="what?", reply_to=reply_to)
        assert caught.value.details == {"reply_to": reply_to}
    assert head() == 2


def test_repeated_send(world: World, told: list[Any]) -> None:
    client_id = uuid4()
    first = actions.send_message(world.alice, room_id=TEAM, content="Cafe\u0301", client_id=client_id)
    again = actions.send_message(world.alice, room_id=TEAM, content="Caf\u00e9", client_id=client_id)
    assert again == SentMessage(first.message, duplicate=True)
    assert (Message.objects.count(), head(), len(told)) == (1, 1, 1)
    assert not actions.send_message(world.bob, room_id=TEAM, content="Caf\u00e9", client_id=client_id).duplicate


def test_client_id_used_for_something_else(world: World) -> None:
    client_id = uuid4()
    other = actions.create_room(world.alice, name="other")
    first = actions.send_message(world.alice, room_id=TEAM, content="one", client_id=client_id).message
    for changed in ({"content": "two"}, {"room_id": other.pk}, {"reply_to": first.id}):
        wanted: dict[str, Any] = {"room_id": TEAM, "content": "one", **changed}
        with pytest.raises(Conflict) as caught:
            actions.send_message(world.alice, client_id=client_id, **wanted)
        assert caught.value.details == {"client_id": str(client_id)}
    assert (Message.objects.count(), head(), head(other.pk)) == (1, 1, 0)


def test_repeat_after_leaving_is_still_answered(world: World) -> None:
    """The acknowledgement may have been lost; the message stands."""
    client_id = uuid4()
    first = actions.send_message(world.bob, room_id=TEAM, content="bye", client_id=client_id)
    actions.leave_room(world.bob, room_id=TEAM)
    again = actions.send_message(world.bob, room_id=TEAM, content="bye", client_id=client_id)
    assert again == SentMessage(first.message, duplicate=True)


@pytest.mark.parametrize("messages", [0, 30])
def test_sending_costs_one_query(world: World, messages: int) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="first").message
    for number in range(messages):
        actions.send_message(world.alice, room_id=TEAM, content=str(number))
    with exactly(1):
        actions.send_message(world.alice, room_id=TEAM, content="plain", reply_to=first.id)
    with exactly(2):
        actions.send_message(world.alice, room_id=TEAM, content="@bob @carol @nobody")
    direct = actions.open_direct_room(world.alice, other=world.bob)
    with exactly(1):
        actions.send_message(world.alice, room_id=direct.pk, content="just you")


def test_rolled_back_send_announces_nothing(world: World, events: list[Any], told: list[Any]) -> None:
    with transaction.atomic():
        actions.send_message(world.alice, room_id=TEAM, content="never")
        transaction.set_rollback(True)
    assert (events, told, head()) == ([], [], 0)
    with transaction.atomic():
        actions.send_message(world.alice, room_id=TEAM, content="later")
        assert events == told == []
    assert told == [("acme", "later")]


def test_refused_repeat_leaves_the_hosts_transaction_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_tenant_messaging.actions.sending import single

    client_id = uuid4()
    first = actions.send_message(world.alice, room_id=TEAM, content="hello", client_id=client_id)
    # A statement that doesn't see the first message yet, as when both run at once.
    statement, seen = single._statement, []

    def blind_at_first(shape: Any) -> str:
        seen.append(statement(shape))
        if len(seen) > 1:
            return seen[-1]
        blind = seen[0].replace("client_id = %(client_id)s::uuid)", "client_id = %(client_id)s::uuid AND false)")
        assert blind != seen[0]
        return blind

    monkeypatch.setattr(single, "_statement", blind_at_first)
    with transaction.atomic():
        again = actions.send_message(world.alice, room_id=TEAM, content="hello", client_id=client_id)
        assert Message.objects.count() == 1
    assert again == SentMessage(first.message, duplicate=True)
    assert len(seen) == 2


# Many at once


def test_many_senders_in_one_room(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(8)]
    actions.add_members(world.alice, room_id=TEAM, users=crowd)

    def send(user: User) -> list[SentMessage]:
        return [actions.send_message(user, room_id=TEAM, content=f"{user} {turn}") for turn in range(40)]

    acks = together(*(in_acme(world, lambda user=user: send(user)) for user in crowd))  # type: ignore[misc]
    seqs = [sent.message.seq for own in acks for sent in own]
    assert sorted(seqs) == list(range(2, 322))
    for own in acks:
        assert [sent.message.seq for sent in own] == sorted(sent.message.seq for sent in own)
    stored = dict(Message.objects.values_list("seq", "content"))
    assert stored == {sent.message.seq: sent.message.content for own in acks for sent in own}
    assert head() == 321


def test_order_of_numbers_is_the_order_of_commits(world: World) -> None:
    """While a transaction holds a number, nobody gets a later one: a reader of the head has seen all before it."""
    import threading

    has_number, may_commit, is_sent = threading.Event(), threading.Event(), threading.Event()

    def hold() -> int:
        with transaction.atomic():
            seq = actions.send_message(world.alice, room_id=TEAM, content="first").message.seq
            has_number.set()
            may_commit.wait(20)
        return seq

    def follow() -> int:
        has_number.wait(20)
        seq = actions.send_message(world.bob, room_id=TEAM, content="second").message.seq
        is_sent.set()
        return seq

    def watch() -> int:
        has_number.wait(20)
        assert not is_sent.wait(0.5)
        assert list(Message.objects.values_list("seq", flat=True)) == []
        may_commit.set()
        return 0

    assert together(*(in_acme(world, call) for call in (hold, follow, watch))) == [1, 2, 0]


def test_one_client_id_sent_by_eight_at_once(world: World, told: list[Any]) -> None:
    for _ in range(10):
        client_id = uuid4()
        before = head()

        def send(client_id: UUID = client_id) -> SentMessage:
            return actions.send_message(world.alice, room_id=TEAM, content="once", client_id=client_id)

        acks = together(*[in_acme(world, send)] * 8)
        assert {ack.message.id for ack in acks} == {Message.objects.get(client_id=client_id).pk}
        assert [ack.duplicate for ack in acks].count(False) == 1
        assert len({ack.message for ack in acks}) == 1
        assert head() == before + 1
    assert len(told) == 10


def test_one_client_id_with_another_text_at_once(world: World) -> None:
    for _ in range(10):
        client_id = uuid4()

        def send(content: str, client_id: UUID = client_id) -> SentMessage:
            return actions.send_message(world.alice, room_id=TEAM, content=content, client_id=client_id)

        calls = [in_acme(world, lambda content=content: send(content)) for content in ("one", "other")]  # type: ignore[misc]
        (ack,), (error,) = outcomes(*calls)
        assert isinstance(error, Conflict)
        assert Message.objects.get(client_id=client_id).content == ack.message.content


# Through the ORM


def test_create_finds_or_makes_the_room(world: World, events: list[Any], told: list[Any]) -> None:
    saved: list[bool] = []

    def receiver(created: bool, **_kwargs: Any) -> None:
        saved.append(created)

    post_save.connect(receiver, sender=Message)
    try:
        first = Message.objects.create(sender=world.alice, receiver=world.bob, content="Hello")
        second = Message.objects.create(sender=world.bob, receiver=world.alice, content="Hello back")
    finally:
        post_save.disconnect(receiver, sender=Message)
    assert saved == [True, True]
    assert first.room == second.room == ChatRoom.objects.get(kind="direct")
    assert (first.seq, second.seq, first.is_read) == (1, 2, False)
    assert list(world.bob.received_messages.all()) == [first]
    assert list(world.bob.sent_messages.all()) == [second]
    (notification,) = world.bob.notifications.all()
    assert notification.notification_text == "You have a new message from alice"
    assert list(first.notifications.all()) == [notification]
    assert told == [("acme", "Hello"), ("acme", "Hello back")]
    posted = [event for event in events if isinstance(event, MessagePosted)]
    assert [event.message for event in posted] == [message_by_id(first.pk), message_by_id(second.pk)]
    assert [event.notification.text for event in events if isinstance(event, NotificationCreated)] == [
        "You have a new message from alice",
        "You have a new message from bob",
    ]


def test_create_and_send_write_the_same(world: World) -> None:
    """Both ways of writing end in equal rows, but for what tells them apart."""
    direct = actions.open_direct_room(world.alice, other=world.bob)
    sent = [
        actions.send_message(world.alice, room_id=direct.pk, content="Cafe\u0301 @bob").message,
        actions.send_message(world.alice, room_id=TEAM, content="@bob look").message,
    ]
    made = [
        Message.objects.create(sender=world.alice, receiver=world.bob, content="Cafe\u0301 @bob"),
        Message.objects.create(sender=world.alice, room_id=TEAM, content="@bob look"),
    ]

    def seen(message_id: int) -> Any:
        data = message_by_id(message_id)
        told = Notification.objects.filter(message=message_id).values_list("user", "notification_text", "is_read")
        return (data.room_id, data.sender, data.receiver, data.content, data.mentioned_users, data.is_broadcast, *told)

    assert [seen(message.id) for message in sent] == [seen(message.pk) for message in made]


def test_saving_again_announces_nothing(world: World, events: list[Any]) -> None:
    message = Message.objects.create(sender=world.alice, receiver=world.bob, content="Hello")
    events.clear()
    message.is_read = True
    message.save()
    assert (events, head(message.room_id), Notification.objects.count()) == ([], 1, 1)


def test_created_in_a_transaction_is_announced_after_it(world: World, events: list[Any], told: list[Any]) -> None:
    with transaction.atomic():
        Message.objects.create(sender=world.alice, receiver=world.bob, content="never")
        transaction.set_rollback(True)
    assert (events, told, Message.objects.count(), ChatRoom.objects.filter(kind="direct").count()) == ([], [], 0, 0)
    with transaction.atomic():
        Message.objects.create(sender=world.alice, receiver=world.bob, content="later")
        assert events == []
    assert told == [("acme", "later")]


def test_create_without_a_place(world: World) -> None:
    for wrong in (
        {},
        {"sender": world.alice},
        {"receiver": world.bob},
        {"sender": world.alice, "receiver": world.alice},
        {"sender": world.alice, "receiver": world.bob, "room_id": TEAM},
    ):
        with pytest.raises(Invalid):
            Message.objects.create(content="Hello", **wrong)
    with pytest.raises(Invalid):
        Message.objects.create(sender=world.alice, receiver=world.bob, content=" ")
    assert (Message.objects.count(), head()) == (0, 0)


def test_create_with_a_used_client_id(world: World) -> None:
    client_id = uuid4()
    Message.objects.create(sender=world.alice, room_id=TEAM, content="one", client_id=client_id)
    with pytest.raises(IntegrityError):
        Message.objects.create(sender=world.alice, room_id=TEAM, content="two", client_id=client_id)
    assert (Message.objects.count(), head()) == (1, 1)


def test_bulk_create_is_refused(world: World) -> None:
    with pytest.raises(TypeError, match=r"send_message"):
        Message.objects.bulk_create([Message(room_id=TEAM, sender=world.alice, content="Hello")])
    with pytest.raises(TypeError):
        ChatRoom.objects.get(pk=TEAM).messages.bulk_create([])


def test_created_by_eight_at_once(world: World, told: list[Any]) -> None:
    def create(sender: User, receiver: User) -> list[int]:
        return [Message.objects.create(sender=sender, receiver=receiver, content="Hi").seq for _ in range(10)]

    pairs = [(world.alice, world.bob), (world.bob, world.alice)] * 4
    seqs = together(*(in_acme(world, lambda pair=pair: create(*pair)) for pair in pairs))  # type: ignore[misc]
    assert sorted(seq for own in seqs for seq in own) == list(range(1, 81))
    assert Membership.objects.filter(room__kind="direct").count() == 2
    assert len(told) == 80


# Hosts' receivers


def test_receiver_that_fails_disturbs_nobody(world: World, told: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    def fail(**_kwargs: Any) -> None:
        raise LookupError("a host's mistake")

    signals.message_sent.connect(fail)
    try:
        assert not actions.send_message(world.alice, room_id=TEAM, content="Hello").duplicate
    finally:
        signals.message_sent.disconnect(fail)
    assert told == [("acme", "Hello")]
    assert "a host's mistake" in caplog.text
    assert current_schema() == "acme"


def test_receiver_may_write(world: World) -> None:
    """A bot that answers from within the signal, also when it is refused."""

    def answer(message: Any, **_kwargs: Any) -> None:
        if message.content == "ping":
            actions.send_message(world.bob, room_id=message.room_id, content="pong")
            with pytest.raises(MessagingError):
                actions.send_message(world.carol, room_id=message.room_id, content="pong")

    signals.message_sent.connect(answer)
    try:
        with transaction.atomic():
            actions.send_message(world.alice, room_id=TEAM, content="ping")
    finally:
        signals.message_sent.disconnect(answer)
    assert list(Message.objects.order_by("seq").values_list("content", flat=True)) == ["ping", "pong"]
