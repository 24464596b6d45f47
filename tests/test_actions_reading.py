"""Read positions, notifications, typing and online status."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from django_tenant_messaging import actions
from django_tenant_messaging.actions import notifications as marking
from django_tenant_messaging.actions import reading
from django_tenant_messaging.events import PresenceChanged, ReadPositionMoved, TypingChanged, bus
from django_tenant_messaging.exceptions import Invalid, NotFound
from django_tenant_messaging.models import Membership, Message, Notification, UserStatus
from django_tenant_messaging.types import UserRef
from tests.harness.presence import connection_closed, connection_opened
from tests.harness.queries import exactly
from tests.harness.together import together
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User

    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


@pytest.fixture
def events(world: World) -> Iterator[list[Any]]:
    """What happens after the world was made."""
    seen: list[Any] = []
    bus.connect_sink(seen.extend)
    yield seen
    bus._sinks.remove(seen.extend)


def ref(user: User) -> UserRef:
    return UserRef(str(user.pk), user.username)


def unread(user: User) -> int:
    return user.notifications.filter(is_read=False).count()


# Read positions


def test_reading_a_direct_conversation(world: World, events: list[Any]) -> None:
    messages = [Message.objects.create(sender=world.alice, receiver=world.bob, content=str(n)) for n in range(3)]
    back = Message.objects.create(sender=world.bob, receiver=world.alice, content="3")
    room_id = back.room_id
    events.clear()
    assert actions.mark_read(world.bob, room_id=room_id, seq=2) == 2
    assert [Message.objects.get(pk=message.pk).is_read for message in (*messages, back)] == [True, True, False, False]
    assert (unread(world.bob), unread(world.alice)) == (1, 1)
    assert events == [ReadPositionMoved("acme", room_id, ref(world.bob), 2)]
    assert actions.mark_read(world.bob, room_id=room_id, seq=1) == 2
    assert len(events) == 1
    assert actions.mark_read(world.alice, room_id=room_id, seq=4) == 4
    assert Message.objects.get(pk=back.pk).is_read
    assert not Message.objects.get(pk=messages[2].pk).is_read


def test_reading_a_group(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="@bob one")
    actions.send_message(world.alice, room_id=TEAM, content="@bob two")
    assert actions.mark_read(world.bob, room_id=TEAM, seq=1) == 1
    assert unread(world.bob) == 1
    assert not Message.objects.filter(is_read=True).exists()
    assert Membership.objects.get(room_id=TEAM, user=world.alice).last_read_seq == 0


@pytest.mark.parametrize("seq", [-1, 2, 2**63, -(2**70)])
def test_reading_what_is_not_there(world: World, seq: int) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="one")
    with pytest.raises(Invalid) as caught:
        actions.mark_read(world.bob, room_id=TEAM, seq=seq)
    assert caught.value.details["errors"][0]["field"] == "seq"


@pytest.mark.parametrize("room_id", [TEAM, THEIRS, 999, 0, 2**63])
def test_strangers_read_nothing(world: World, room_id: int, events: list[Any]) -> None:
    with pytest.raises(NotFound):
        actions.mark_read(world.carol, room_id=room_id, seq=0)
    with pytest.raises(NotFound):
        actions.set_typing(world.carol, room_id=room_id, is_typing=True)
    assert events == []


def test_who_left_reads_nothing(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with pytest.raises(NotFound):
        actions.mark_read(world.bob, room_id=TEAM, seq=1)


def test_reading_queries(world: World) -> None:
    for number in range(30):
        actions.send_message(world.alice, room_id=TEAM, content=f"@bob {number}")
    for seq in (1, 30):
        with exactly(2):
            actions.mark_read(world.bob, room_id=TEAM, seq=seq)
    with exactly(1):
        actions.mark_read(world.bob, room_id=TEAM, seq=30)
    room_id = Message.objects.create(sender=world.alice, receiver=world.bob, content="Hi").room_id
    with exactly(2):
        actions.mark_read(world.bob, room_id=room_id, seq=1)


def test_reading_without_waiting_costs_one_query_more(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="@bob hello")
    with exactly(3):
        assert actions.mark_read_where_free(world.bob, room_id=TEAM, seq=1) == 1
    with exactly(1):
        assert actions.mark_read_where_free(world.bob, room_id=TEAM, seq=1) == 1
    assert unread(world.bob) == 0


@pytest.mark.parametrize("model", [Membership, Notification])
def test_reading_without_waiting_does_nothing_when_anything_is_locked(
    world: World, events: list[Any], database_url: str, model: type[Membership | Notification]
) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="@bob hello")
    events.clear()
    with psycopg.connect(database_url) as other:
        mine = f"SELECT FROM acme.{model._meta.db_table} WHERE user_id = %s FOR UPDATE"
        assert other.execute(mine, [world.bob.pk]).rowcount
        assert actions.mark_read_where_free(world.bob, room_id=TEAM, seq=1) is None
        assert unread(world.bob) == 1
        assert Membership.objects.get(room_id=TEAM, user=world.bob).last_read_seq == 0
    assert events == []
    assert actions.mark_read_where_free(world.bob, room_id=TEAM, seq=1) == 1
    assert [type(event) for event in events] == [ReadPositionMoved]


def test_reading_without_waiting_raises_what_is_no_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_args: Any) -> None:
        raise OperationalError("gone")

    actions.send_message(world.alice, room_id=TEAM, content="hello")
    monkeypatch.setattr(reading, "emit_on_commit", ended)
    with pytest.raises(OperationalError):
        actions.mark_read_where_free(world.bob, room_id=TEAM, seq=1)


def test_read_positions_never_go_back(world: World) -> None:
    for number in range(40):
        actions.send_message(world.alice, room_id=TEAM, content=str(number))

    def read(seqs: range) -> None:
        with world.acme.activated():
            for seq in seqs:
                assert actions.mark_read(world.bob, room_id=TEAM, seq=seq) >= seq

    together(*(lambda step=step: read(range(step, 41, 4)) for step in range(1, 5)))
    assert Membership.objects.get(room_id=TEAM, user=world.bob).last_read_seq == 40


@pytest.fixture
def steps_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 2)


@pytest.mark.usefixtures("steps_of_two")
def test_much_is_read_in_steps_that_each_leave_a_true_position(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    last = [Message.objects.create(sender=world.alice, receiver=world.bob, content=str(n)) for n in range(5)][-1]
    place = Membership.objects.get(room_id=last.room_id, user=world.bob)
    with exactly(4):
        assert actions.mark_read(world.bob, room_id=last.room_id, seq=5) == 5
    assert unread(world.bob) == 0
    Membership.objects.update(last_read_seq=0)
    Message.objects.update(is_read=False)
    Notification.objects.update(is_read=False)
    step = reading._step
    done: list[Any] = []

    def step_or_die(*args: Any) -> Any:
        if done:
            raise OperationalError("killed")
        done.append(step(*args))
        return done[0]

    monkeypatch.setattr(reading, "_step", step_or_die)
    with pytest.raises(OperationalError):
        actions.mark_read(world.bob, room_id=last.room_id, seq=5)
    place.refresh_from_db()
    assert place.last_read_seq == Message.objects.filter(is_read=True).count() == 2
    assert unread(world.bob) == 3
    monkeypatch.setattr(reading, "_step", step)
    assert actions.mark_read(world.bob, room_id=last.room_id, seq=5) == 5
    assert unread(world.bob) == Message.objects.filter(is_read=False).count() == 0


@pytest.mark.usefixtures("steps_of_two")
def test_who_has_many_notifications_reads_one_room_of_them(world: World, events: list[Any]) -> None:
    for number in range(3):
        Message.objects.create(sender=world.alice, receiver=world.bob, content=str(number))
        actions.send_message(world.alice, room_id=TEAM, content=f"@bob {number}")
    assert actions.mark_read(world.bob, room_id=TEAM, seq=2) == 2
    assert unread(world.bob) == 4
    assert actions.mark_read(world.bob, room_id=TEAM, seq=3) == 3
    assert unread(world.bob) == 3
    # An edit of what was read before tells Bob of it again.
    first = Message.objects.filter(room_id=TEAM).earliest("seq")
    Notification.objects.filter(message=first).delete()
    actions.edit_message(world.alice, room_id=TEAM, message_id=first.pk, content="@bob once more")
    assert unread(world.bob) == 4
    assert actions.mark_read(world.bob, room_id=TEAM, seq=4) == 4
    assert unread(world.bob) == 3
    assert [event.seq for event in events if isinstance(event, ReadPositionMoved)] == [2, 3, 4]


def test_messages_that_were_made_unread_again_are_read_with_the_next(world: World) -> None:
    last = [Message.objects.create(sender=world.alice, receiver=world.bob, content=str(n)) for n in range(5)][-1]
    actions.mark_read(world.bob, room_id=last.room_id, seq=4)
    Message.objects.update(is_read=False)
    assert actions.mark_read(world.bob, room_id=last.room_id, seq=5) == 5
    assert not Message.objects.filter(is_read=False).exists()


# Notifications


def test_marking_notifications(world: World) -> None:
    for number in range(3):
        Message.objects.create(sender=world.alice, receiver=world.bob, content=str(number))
    Message.objects.create(sender=world.bob, receiver=world.alice, content="back")
    first, second, third = Notification.objects.filter(user=world.bob).order_by("pk")
    foreign = Notification.objects.get(user=world.alice)
    with exactly(1):
        assert actions.mark_notifications_read(world.bob, notification_ids=[first.pk, foreign.pk, 999]) == 1
    assert actions.mark_notifications_read(world.bob, notification_ids=[first.pk]) == 0
    assert actions.mark_notifications_read(world.bob, notification_ids=[]) == 0
    assert (unread(world.bob), unread(world.alice)) == (2, 1)
    with exactly(1):
        assert actions.mark_notifications_read(world.bob) == 2
    assert (unread(world.bob), unread(world.alice)) == (0, 1)
    assert {second.pk, third.pk} <= set(Notification.objects.filter(is_read=True).values_list("pk", flat=True))


def test_many_notifications_are_marked_in_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "BATCH", 2)
    for number in range(5):
        Message.objects.create(sender=world.alice, receiver=world.bob, content=str(number))
    keys = [key for (key,) in Notification.objects.filter(user=world.bob).values_list("pk")]
    with exactly(2):
        assert actions.mark_notifications_read(world.bob, notification_ids=[*keys[:3], 2**63, -1]) == 3
    Notification.objects.update(is_read=False)
    with exactly(3):
        assert actions.mark_notifications_read(world.bob) == 5
    assert unread(world.bob) == 0


def test_notifications_with_impossible_ids(world: World) -> None:
    assert actions.mark_notifications_read(world.bob, notification_ids=[2**63, -1, 2**90]) == 0


def test_each_user_is_told_once_about_a_message(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="@bob @BOB, @bob!")
    assert Notification.objects.count() == 1


# Typing


def test_typing(world: World, events: list[Any]) -> None:
    with exactly(1):
        actions.set_typing(world.bob, room_id=TEAM, is_typing=True)
    actions.set_typing(world.bob, room_id=TEAM, is_typing=False)
    assert events == [
        TypingChanged("acme", TEAM, ref(world.bob), is_typing=True),
        TypingChanged("acme", TEAM, ref(world.bob), is_typing=False),
    ]


# Online status


def online(user: User) -> bool:
    return UserStatus.objects.get(user=user).is_online


def test_status_is_made_once(world: World) -> None:
    def ensure() -> int:
        with world.acme.activated():
            return actions.ensure_userstatus_exists(world.alice).pk

    assert len(set(together(*[ensure] * 8))) == 1
    status = world.alice.chat_status
    assert (status.is_online, status.last_seen) == (False, None)
    with exactly(1):
        actions.ensure_userstatus_exists(world.alice)


def test_several_processes_count_once(world: World, events: list[Any]) -> None:
    connection_opened(world.bob, process="one")
    connection_opened(world.bob, process="two")
    connection_opened(world.bob, process="one")
    assert events == [PresenceChanged("acme", (TEAM,), ref(world.bob), is_online=True, last_seen=None)]
    connection_closed(world.bob, process="one")
    assert online(world.bob)
    connection_closed(world.bob, process="two")
    connection_closed(world.bob, process="two")
    assert not online(world.bob)
    (_came, went) = events
    assert (went.schema_name, went.room_ids, went.user, went.is_online) == ("acme", (TEAM,), ref(world.bob), False)
    assert went.last_seen <= timezone.now()
    assert not online(world.alice)


def test_dead_process_leaves_no_ghost(world: World, events: list[Any]) -> None:
    with override_settings(TENANT_MESSAGING={"PRESENCE_TTL": 1}):
        connection_opened(world.bob, process="dead")
        connection_opened(world.alice, process="dead")
    actions.renew_connections([world.alice.pk], process="alive")
    events.clear()
    UserStatus.objects.filter(user=world.bob).update(online_until=timezone.now() - timedelta(seconds=1))
    actions.expire_connections()
    assert (online(world.bob), online(world.alice)) == (False, True)
    assert [(event.user.username, event.is_online) for event in events] == [("bob", False)]
    with exactly(1):
        actions.expire_connections()
    assert len(events) == 1


def test_renewing_costs_one_statement_for_all(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(30)]
    for user in crowd:
        connection_opened(user, process="here")
    for users in (crowd[:3], crowd):
        with exactly(1):
            actions.renew_connections([user.pk for user in users], process="here")


def test_processes_renew_the_same_users_without_deadlock(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(20)]
    for user in crowd:
        connection_opened(user, process="here")

    def renew(process: int) -> None:
        keys = [user.pk for user in (crowd if process % 2 else crowd[::-1])]
        with world.acme.activated():
            for _ in range(30):
                actions.renew_connections(keys, process=str(process))
                actions.expire_connections()

    together(*(lambda process=process: renew(process) for process in range(6)))
    assert UserStatus.objects.filter(is_online=True).count() == 20
    assert all(len(status.connections) == 7 for status in UserStatus.objects.filter(is_online=True))
