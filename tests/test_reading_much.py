"""Marking a room as read when the room or the user's unread notifications are many: in steps, at a bounded cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connection

from django_tenant_messaging import actions
from django_tenant_messaging.actions import reading
from django_tenant_messaging.events import ReadPositionMoved, bus
from django_tenant_messaging.models import Membership, Message, Notification
from tests.harness.explaining import LABEL, WAYS, Explained, explained
from tests.harness.queries import exactly
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World

ELSEWHERE = 2
"""A second room, of alice and bob."""

MANY = f"""
INSERT INTO {LABEL}_message (room_id, seq, changed_seq, sender_id, receiver_id, content, timestamp, is_read, client_id)
SELECT %(room)s, n, n, %(sender)s, %(receiver)s, 'message ' || n, now(), false, gen_random_uuid()
FROM generate_series(1, %(messages)s) n;
UPDATE {LABEL}_roomcounter SET last_seq = %(messages)s WHERE room_id = %(room)s;
INSERT INTO {LABEL}_notification (user_id, message_id, notification_text, is_read, created_at)
SELECT %(told)s, id, 'told', false, now() FROM {LABEL}_message WHERE room_id = %(room)s AND seq %% %(every)s = 0;
"""
"""Messages that alice wrote in an empty room, each so many of which bob was told about."""


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    """Globex has the same: nothing of it may be marked."""
    with made_world(acme, globex) as world:
        elsewhere = actions.create_room(world.alice, name="elsewhere", members=[world.bob])
        assert elsewhere.id == ELSEWHERE
        with globex.activated():
            users = globex.users
            actions.add_members(users["carol"], room_id=THEIRS, users=[users["alice"], users["bob"]])
            for _ in range(5):
                actions.send_message(users["alice"], room_id=TEAM, content="@bob")
        yield world
        with globex.activated():
            assert not Notification.objects.filter(is_read=True).exists()
            assert not Membership.objects.filter(room_id=TEAM, last_read_seq__gt=0).exists()


@pytest.fixture
def moved(world: World) -> Iterator[list[int]]:
    """The positions that were told, after the world was made."""
    seen: list[int] = []

    def sink(events: Any) -> None:
        seen.extend(event.seq for event in events if isinstance(event, ReadPositionMoved))

    bus.connect_sink(sink)
    yield seen
    bus._sinks.remove(sink)


@pytest.fixture
def steps_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 2)


def fill(world: World, room_id: int, messages: int, *, told_of_every: int, is_direct: bool = False) -> None:
    values = {
        "room": room_id,
        "messages": messages,
        "every": told_of_every,
        "sender": world.alice.pk,
        "receiver": world.bob.pk if is_direct else None,
        "told": world.bob.pk,
    }
    with connection.cursor() as cursor:
        cursor.execute(MANY, values)


def unread(room_id: int) -> int:
    return Notification.objects.filter(message__room_id=room_id, is_read=False).count()


def position() -> int:
    return Membership.objects.get(room_id=TEAM, user__username="bob").last_read_seq


def told_in_turn(world: World, number: int) -> None:
    """Tell bob of messages here and elsewhere."""
    for _ in range(number):
        for room_id in (TEAM, ELSEWHERE):
            actions.send_message(world.alice, room_id=room_id, content="@bob")


def between_steps(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Any]) -> None:
    """Let something happen once, after the first step."""
    step = reading._step

    def step_later(*args: Any) -> Any:
        monkeypatch.setattr(reading, "_step", then_step)
        return step(*args)

    def then_step(*args: Any) -> Any:
        monkeypatch.setattr(reading, "_step", step)
        happen()
        return step(*args)

    monkeypatch.setattr(reading, "_step", step_later)


def read_explained(world: World, way: str, room_id: int, seq: int) -> list[Explained]:
    found = explained(world.acme.schema_name, lambda: actions.mark_read(world.bob, room_id=room_id, seq=seq), [way])
    access, *steps = found[way]
    assert access.buffers < 100
    return steps


@pytest.mark.parametrize("way", WAYS)
def test_the_cost_is_that_of_the_unread_notifications_and_not_of_the_room(world: World, way: str) -> None:
    fill(world, ELSEWHERE, 2_000, told_of_every=1)
    fill(world, TEAM, 20_000, told_of_every=200)
    steps = read_explained(world, way, TEAM, 20_000)
    assert len(steps) == 3
    assert sum(step.buffers for step in steps) < 20_000, "\n".join(map(str, steps))
    with exactly(4):
        assert actions.mark_read(world.bob, room_id=TEAM, seq=19_999) == 19_999
    assert (unread(TEAM), unread(ELSEWHERE), position()) == (1, 2_000, 19_999)


@pytest.mark.parametrize("way", WAYS)
def test_where_little_is_new_the_unread_notifications_are_not_gone_through(world: World, way: str) -> None:
    fill(world, ELSEWHERE, 8_000, told_of_every=1)
    fill(world, TEAM, 1_000, told_of_every=10)
    (step,) = read_explained(world, way, TEAM, 1_000)
    assert step.buffers < 10_000, step


@pytest.mark.parametrize("way", WAYS)
def test_no_step_of_a_direct_room_looks_at_what_those_before_it_marked(world: World, way: str) -> None:
    room_id = actions.open_direct_room(world.alice, other=world.bob).id
    fill(world, room_id, 8_000, told_of_every=1, is_direct=True)
    # All in one transaction, so that the index keeps what was marked, as it does for an old snapshot.
    steps = read_explained(world, way, room_id, 8_000)
    assert len(steps) == 8
    first, last = steps[0], steps[-1]
    assert last.buffers < first.buffers * 1.2, f"{first}\n\nbecame\n\n{last}"
    with exactly(9):
        assert actions.mark_read(world.bob, room_id=room_id, seq=8_000) == 8_000
    assert unread(room_id) == Message.objects.filter(room_id=room_id, is_read=False).count() == 0


@pytest.mark.usefixtures("steps_of_two")
def test_what_is_interrupted_has_not_moved_the_position_and_is_resumed(
    world: World, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told_in_turn(world, 4)

    def die() -> None:
        raise OperationalError("killed")

    between_steps(monkeypatch, die)
    with pytest.raises(OperationalError):
        actions.mark_read(world.bob, room_id=TEAM, seq=3)
    assert (position(), unread(TEAM), moved) == (0, 4, [])
    between_steps(monkeypatch, lambda: between_steps(monkeypatch, die))
    with pytest.raises(OperationalError):
        actions.mark_read(world.bob, room_id=TEAM, seq=3)
    assert (position(), unread(TEAM), moved) == (0, 2, [])
    assert actions.mark_read(world.bob, room_id=TEAM, seq=3) == 3
    assert (position(), unread(TEAM), unread(ELSEWHERE), moved) == (3, 1, 4, [3])


@pytest.mark.usefixtures("steps_of_two")
def test_what_comes_meanwhile_stays_unread_until_it_is_read(
    world: World, moved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="plain").message
    told_in_turn(world, 3)

    def come() -> None:
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="@bob now")
        told_in_turn(world, 1)

    between_steps(monkeypatch, come)
    # Six notifications by two, and a look that finds no more.
    assert actions.mark_read(world.bob, room_id=TEAM, seq=4) == 4
    told = Notification.objects.filter(message__room_id=TEAM, is_read=False).values_list("message__seq", flat=True)
    assert sorted(told) == [1, 6]
    assert actions.mark_read(world.bob, room_id=TEAM, seq=6) == 6
    assert (unread(TEAM), unread(ELSEWHERE), moved) == (0, 4, [4, 6])


@pytest.mark.usefixtures("steps_of_two")
def test_who_returns_reads_what_they_were_told_of_before(world: World) -> None:
    told_in_turn(world, 3)
    actions.remove_member(world.alice, room_id=TEAM, user=world.bob)
    actions.add_members(world.alice, room_id=TEAM, users=[world.bob])
    told_in_turn(world, 1)
    head = position() + 1
    assert actions.mark_read(world.bob, room_id=TEAM, seq=head) == head
    assert (unread(TEAM), unread(ELSEWHERE)) == (0, 4)
    # What is new after that is little again, and looked for alone.
    told_in_turn(world, 1)
    with exactly(2):
        actions.mark_read(world.bob, room_id=TEAM, seq=head + 1)
    assert (unread(TEAM), unread(ELSEWHERE)) == (0, 5)


@pytest.mark.usefixtures("steps_of_two")
def test_who_leaves_meanwhile_reads_no_more(world: World, moved: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    told_in_turn(world, 3)
    between_steps(monkeypatch, lambda: actions.leave_room(world.bob, room_id=TEAM))
    assert actions.mark_read(world.bob, room_id=TEAM, seq=3) == 3
    assert (position(), unread(TEAM), moved) == (0, 2, [])


@pytest.mark.usefixtures("steps_of_two")
def test_much_is_read_without_waiting_too(world: World, moved: list[int]) -> None:
    told_in_turn(world, 3)
    # Four steps, each with a lock.
    with exactly(1 + 2 * 4):
        assert actions.mark_read_where_free(world.bob, room_id=TEAM, seq=3) == 3
    assert (unread(TEAM), unread(ELSEWHERE), moved) == (0, 3, [3])
