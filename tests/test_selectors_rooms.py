"""Reading rooms, members, notifications and users."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.test import override_settings
from django.utils import timezone

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import NotFound
from django_tenant_messaging.models import Membership, Message, RoomCounter, UserStatus
from django_tenant_messaging.selectors import (
    access_membership,
    access_room,
    find_users,
    list_conversations,
    list_members,
    list_notifications,
    online_contacts_of,
    quiet_room_ids,
    read_changes,
    read_heads,
    read_joins,
    room_positions,
    rooms_among,
)
from django_tenant_messaging.types import RoomPosition, UserRef
from tests.harness.presence import connection_opened
from tests.harness.queries import exactly, fresh_statement
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


def many_rooms(world: World, count: int) -> None:
    for number in range(count):
        with actions.unlimited():
            room = actions.create_room(world.alice, name=f"room {number}", members=[world.bob])
        actions.send_message(world.bob, room_id=room.pk, content=f"@alice look at {number}")


# Access


def test_access_to_a_room(world: World) -> None:
    with exactly(1):
        position = access_room(world.bob, TEAM)
    epoch = Membership.objects.get(room_id=TEAM, user=world.bob).room.epoch.hex
    assert position == RoomPosition(TEAM, "group", "team", epoch, 0, 0, 0, 0)
    with exactly(1):
        assert access_membership(world.bob, TEAM).room.name == "team"


@pytest.mark.parametrize("room_id", [TEAM, THEIRS, 999, 0, -1, 2**63, 2**90])
def test_no_access_for_strangers(world: World, room_id: int) -> None:
    with pytest.raises(NotFound):
        access_room(world.carol, room_id)
    with pytest.raises(NotFound):
        list_members(world.carol, room_id)


def test_no_access_for_who_left(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with pytest.raises(NotFound):
        access_room(world.bob, TEAM)
    assert (room_positions(world.bob, limit=9), list_conversations(world.bob)) == ([], [])
    assert quiet_room_ids([world.bob.pk]) == {}
    actions.rejoin_room(world.bob, room_id=TEAM)
    assert access_room(world.bob, TEAM).joined_seq == 2


def test_direct_room_has_the_others_name(world: World) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    assert (access_room(world.alice, room.pk).name, access_room(world.bob, room.pk).name) == ("bob", "alice")
    conversations = {line.room.room_id: line.other_user for line in list_conversations(world.bob)}
    assert conversations == {room.pk: UserRef(str(world.alice.pk), "alice"), TEAM: None}


# Conversations


def test_conversations_by_newest_activity(world: World) -> None:
    many_rooms(world, 3)
    actions.send_message(world.bob, room_id=TEAM, content="newest")
    lines = list_conversations(world.alice)
    assert [line.room.name for line in lines] == ["team", "room 2", "room 1", "room 0"]
    assert [line.last_message and line.last_message.content for line in lines][:2] == ["newest", "@alice look at 2"]
    assert [line.room.name for line in list_conversations(world.alice, limit=2)] == ["team", "room 2"]
    assert [position.room_id for position in room_positions(world.alice, limit=9)] == [1, 4, 3, 2]
    assert [position.room_id for position in room_positions(world.alice, limit=2)] == [1, 4]


def test_rooms_among_some_and_those_joined_of_late(world: World) -> None:
    many_rooms(world, 3)
    long_ago = timezone.now() - timedelta(hours=1)
    assert {position.room_id for position in rooms_among(world.alice, [])} == {1, 2, 3, 4}
    Membership.objects.exclude(room_id=3).update(joined_at=long_ago)
    assert {position.room_id for position in rooms_among(world.alice, [TEAM, 999])} == {TEAM, 3}
    assert rooms_among(world.carol, [TEAM]) == []
    actions.leave_room(world.alice, room_id=3)
    assert {position.room_id for position in rooms_among(world.alice, [TEAM, 3])} == {TEAM}


def test_empty_conversation(world: World) -> None:
    (line,) = list_conversations(world.alice)
    assert (line.unread_count, line.last_message, line.room.seq) == (0, None, 0)
    assert list_conversations(world.carol) == []


def test_unread_counts(world: World) -> None:
    for number in range(4):
        actions.send_message(world.alice, room_id=TEAM, content=str(number))
    actions.send_message(world.bob, room_id=TEAM, content="my own")
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.send_message(world.alice, room_id=TEAM, content="after carol came")

    def counts() -> list[int]:
        return [list_conversations(user)[0].unread_count for user in (world.alice, world.bob, world.carol)]

    assert counts() == [1, 5, 1]
    actions.mark_read(world.bob, room_id=TEAM, seq=3)
    assert counts() == [1, 2, 1]
    with override_settings(TENANT_MESSAGING={"UNREAD_COUNT_LIMIT": 1}):
        assert counts() == [1, 1, 1]
    world.alice.delete()
    assert list_conversations(world.bob)[0].unread_count == 2


def test_newcomer_does_not_see_the_last_message_before(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="before")
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    (line,) = list_conversations(world.carol)
    assert (line.last_message, line.unread_count) == (None, 0)


@pytest.mark.parametrize("rooms", [3, 30])
def test_lists_cost_the_same_for_any_number(world: World, rooms: int) -> None:
    many_rooms(world, rooms)
    with exactly(3):
        assert len(list_conversations(world.alice, limit=100)) == rooms + 1
    with exactly(1):
        assert len(room_positions(world.alice, limit=99)) == rooms + 1
    with exactly(1):
        assert len(list_notifications(world.alice, limit=100)) == rooms
    with exactly(1):
        assert len(quiet_room_ids([world.alice.pk])[world.alice.pk]) == rooms + 1
    with exactly(3):
        assert len(read_heads({"acme": range(1, rooms + 2)}, kept_as=fresh_statement())["acme"].seqs) == rooms + 1
    with exactly(1):
        assert len(read_joins({"acme": [world.alice.pk]})["acme"]) == rooms + 1


# Members


def test_members_with_their_status(world: World) -> None:
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.leave_room(world.carol, room_id=TEAM)
    connection_opened(world.bob, process="here")
    members = list_members(world.alice, TEAM)
    assert [(member.user.username, member.role, member.is_online) for member in members] == [
        ("alice", "owner", False),
        ("bob", "member", True),
    ]
    assert members[1].last_seen == UserStatus.objects.get(user=world.bob).last_seen
    of_alice, of_bob, of_carol, again = online_contacts_of([world.alice, world.bob, world.carol, world.alice])
    assert [user.username for user in of_alice] == ["bob"]
    assert of_bob == of_carol == []
    assert again == of_alice


@pytest.mark.parametrize("count", [3, 30])
def test_members_cost_the_same_for_any_number(world: World, count: int) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(count)]
    room = actions.create_room(world.alice, name="crowd", members=crowd)
    for user in crowd:
        connection_opened(user, process="here")
    with exactly(3):
        assert len(list_members(world.alice, room.pk)) == count + 1
    with exactly(1):
        assert len(online_contacts_of([world.alice])[0]) == count


# Notifications


def test_notifications_newest_first(world: World) -> None:
    for number in range(3):
        Message.objects.create(sender=world.alice, receiver=world.bob, content=str(number))
    Message.objects.create(sender=world.bob, receiver=world.alice, content="mine")
    found = list_notifications(world.bob)
    messages = list(Message.objects.filter(receiver=world.bob).order_by("-pk"))
    assert [notification.message_id for notification in found] == [message.pk for message in messages]
    assert {notification.room_id for notification in found} == {messages[0].room_id}
    assert [notification.id for notification in list_notifications(world.bob, limit=1)] == [found[0].id]
    actions.mark_notifications_read(world.bob, notification_ids=[found[0].id])
    assert list_notifications(world.bob, unread_only=True) == found[1:]
    with world.globex.activated():
        assert list_notifications(world.globex.users["bob"]) == []


# Users


def test_users_by_name(world: World) -> None:
    with exactly(1):
        assert find_users(usernames=["carol", "alice", "carol"]) == [world.carol, world.alice]
    assert find_users(usernames=[]) == []
    world.bob.is_active = False
    world.bob.save()
    with pytest.raises(NotFound) as caught:
        find_users(usernames=["alice", "bob", "nobody", "ALICE"])
    assert caught.value.details == {"usernames": ["bob", "nobody", "ALICE"]}


def test_users_of_the_other_tenant_are_not_found(world: World) -> None:
    world.globex.create_user("dave")
    with pytest.raises(NotFound):
        find_users(usernames=["dave"])


# Timelines


def test_changes_bring_a_reader_to_the_head(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="one")
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.send_message(world.alice, room_id=TEAM, content="two")
    actions.leave_room(world.carol, room_id=TEAM)
    with exactly(4):
        changes = read_changes(TEAM, after=0, limit=10)
    assert (changes.seq, changes.complete) == (4, True)
    # Carol's join was replaced by her leaving: its number is skipped.
    assert [(event.after, event.seq) for event in changes.events] == [(0, 1), (1, 3), (3, 4)]
    assert {event.schema_name for event in changes.events} == {"acme"}
    with exactly(1):
        assert read_changes(TEAM, after=4, limit=10).events == ()


def test_changes_in_pages(world: World) -> None:
    for number in range(5):
        actions.send_message(world.alice, room_id=TEAM, content=str(number))
    seen, after, complete = [], 0, False
    while not complete:
        changes = read_changes(TEAM, after=after, limit=2)
        seen += [event.seq for event in changes.events]
        after, complete = changes.seq, changes.complete
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [3, 30])
def test_changes_cost_the_same_for_any_number(world: World, count: int) -> None:
    for number in range(count):
        actions.send_message(world.alice, room_id=TEAM, content=f"@bob {number}")
    # Where they may be many bytes, one says how many.
    with exactly(5 if count == 30 else 4):
        assert len(read_changes(TEAM, after=0, limit=100).events) == count


def test_changes_of_a_room_that_is_not_there(world: World) -> None:
    assert read_changes(999, after=7, limit=10).seq == 7


def test_heads_and_recent_joins(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="one")
    asked = [TEAM, THEIRS, 999]
    with exactly(3):
        found = read_heads({"acme": asked, "globex": asked}, kept_as=fresh_statement())
    heads = found["acme"]
    assert heads.seqs == dict(RoomCounter.objects.values_list("room_id", "last_seq")) == {TEAM: 1}
    assert heads.has_joins
    with exactly(1):
        assert read_joins({"acme": [world.bob.pk, world.carol.pk]}) == {"acme": {(str(world.bob.pk), TEAM)}}
    assert read_heads({"acme": []}, kept_as=fresh_statement())["acme"].seqs == {}


def test_new_rooms_of_others_push_no_conversation_out(world: World) -> None:
    with actions.unlimited():
        actions.send_message(world.bob, room_id=TEAM, content="hello")
        own = actions.create_room(world.bob, name="his own").pk
        flood = [actions.create_room(world.alice, name=f"{n}", members=[world.bob]).pk for n in range(5)]
        flood.append(actions.open_direct_room(world.alice, other=world.bob).pk)
    expected = [own, TEAM, *reversed(flood)]
    assert [position.room_id for position in room_positions(world.bob, limit=9)] == expected
    assert [conversation.room.room_id for conversation in list_conversations(world.bob)] == expected
    assert [position.room_id for position in room_positions(world.bob, limit=2)] == [own, TEAM]
    assert [conversation.room.room_id for conversation in list_conversations(world.bob, limit=2)] == [own, TEAM]
    # Who made them sees them first, and so does everybody once something is said.
    assert [position.room_id for position in room_positions(world.alice, limit=2)] == [flood[4], flood[3]]
    actions.send_message(world.alice, room_id=flood[0], content="hello")
    assert [position.room_id for position in room_positions(world.bob, limit=2)] == [flood[0], own]
    with world.globex.activated():
        assert room_positions(world.globex.users["bob"], limit=9)[0].room_id == TEAM
