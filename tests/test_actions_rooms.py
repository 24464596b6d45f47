"""Making rooms, and who is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from django_tenant_messaging import actions, signals
from django_tenant_messaging.exceptions import Forbidden, Invalid, MessagingError, NotFound
from django_tenant_messaging.models import ChatRoom, Membership, Message, RoomCounter
from django_tenant_messaging.selectors import left_rooms, room_positions
from tests.harness.queries import exactly, queries
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
def changes() -> Iterator[list[tuple[Any, ...]]]:
    """What `members_changed` told, as (schema, room, joined, left)."""
    seen: list[tuple[Any, ...]] = []

    def receiver(room_id: int, joined: Any, left: Any, schema_name: str, **_kwargs: Any) -> None:
        seen.append((schema_name, room_id, [user.username for user in joined], [user.username for user in left]))

    signals.members_changed.connect(receiver)
    yield seen
    signals.members_changed.disconnect(receiver)


# Direct rooms


def test_direct_room_is_the_same_whoever_asks(world: World) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    assert actions.open_direct_room(world.bob, other=world.alice) == room
    assert actions.open_direct_room(world.alice, other=world.carol) != room
    assert (room.kind, set(room.members.all())) == ("direct", {world.alice, world.bob})
    assert RoomCounter.objects.get(room=room).last_seq == 0


def test_direct_room_queries(world: World) -> None:
    with exactly(6):
        actions.open_direct_room(world.alice, other=world.bob)
    with exactly(1):
        actions.open_direct_room(world.bob, other=world.alice)


def test_direct_room_needs_another_user_of_the_tenant(world: World) -> None:
    with pytest.raises(Invalid) as caught:
        actions.open_direct_room(world.alice, other=world.alice)
    assert caught.value.details["errors"][0]["field"] == "other"
    world.bob.is_active = False
    with pytest.raises(Forbidden) as refused:
        actions.open_direct_room(world.alice, other=world.bob)
    assert refused.value.details == {"usernames": ["bob"]}
    assert ChatRoom.objects.filter(kind="direct").count() == 0


def test_direct_room_opened_by_eight_at_once(world: World) -> None:
    def open_from(actor: User, other: User) -> int:
        with world.acme.activated():
            return actions.open_direct_room(actor, other=other).pk

    pairs = [(world.alice, world.bob), (world.bob, world.alice)] * 4
    found = together(*(lambda pair=pair: open_from(*pair) for pair in pairs))
    (room,) = ChatRoom.objects.filter(kind="direct")
    assert set(found) == {room.pk}
    assert room.memberships.count() == 2
    assert RoomCounter.objects.get(room=room).last_seq == 0


# Groups


def test_group_with_its_owner_and_members(world: World) -> None:
    room = actions.create_room(world.alice, name=" Cafe\u0301 ", members=[world.bob, world.alice])
    assert (room.kind, room.name, room.created_by) == ("group", " Caf\u00e9 ", world.alice)
    assert world.roles(room.pk) == {"alice": "owner", "bob": "member"}
    assert actions.create_room(world.alice, name="alone").memberships.count() == 1


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "a\0b", "\ud800"])
def test_group_needs_a_name(world: World, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        actions.create_room(world.alice, name=name)
    assert [error["field"] for error in caught.value.details["errors"]] == ["name"]
    assert ChatRoom.objects.count() == 1


def test_group_is_of_the_tenants_users(world: World) -> None:
    world.carol.is_active = False
    with pytest.raises(Forbidden, match="carol"):
        actions.create_room(world.alice, name="us", members=[world.bob, world.carol])
    with pytest.raises(Forbidden, match="carol"):
        actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    assert world.roles(TEAM) == {"alice": "owner", "bob": "member"}


def test_groups_have_a_size(world: World) -> None:
    with override_settings(TENANT_MESSAGING={"MAX_ROOM_MEMBERS": 2}):
        with pytest.raises(Invalid, match="at most 2"):
            actions.create_room(world.alice, name="us", members=[world.bob, world.carol])
        with pytest.raises(Invalid, match="would have 3"):
            actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
        actions.add_members(world.alice, room_id=TEAM, users=[world.bob])
    assert world.roles(TEAM) == {"alice": "owner", "bob": "member"}


def test_creating_costs_the_same_for_any_number_of_members(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(30)]
    with exactly(6):
        actions.create_room(world.alice, name="small", members=crowd[:3])
    with exactly(6):
        actions.create_room(world.alice, name="large", members=crowd)


# Adding, removing, leaving


def test_added_members_take_a_place_in_the_timeline(world: World, changes: list[Any]) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="before")
    actions.add_members(world.bob, room_id=TEAM, users=[world.carol, world.alice])
    row = Membership.objects.get(room_id=TEAM, user=world.carol)
    assert (row.joined_seq, row.changed_seq, row.visible_after_seq, row.last_read_seq, row.left_seq) == (
        2,
        2,
        2,
        2,
        None,
    )
    assert RoomCounter.objects.get(room_id=TEAM).last_seq == 2
    assert changes == [("acme", TEAM, ["carol"], [])]
    actions.add_members(world.bob, room_id=TEAM, users=[world.carol])
    actions.add_members(world.bob, room_id=TEAM, users=[])
    assert RoomCounter.objects.get(room_id=TEAM).last_seq == 2
    assert len(changes) == 1


@override_settings(TENANT_MESSAGING={"NEW_MEMBERS_SEE_HISTORY": True})
def test_added_members_may_see_the_history(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="before")
    actions.add_members(world.bob, room_id=TEAM, users=[world.carol])
    assert Membership.objects.get(room_id=TEAM, user=world.carol).visible_after_seq == 0


def test_removed_and_added_again(world: World, changes: list[Any]) -> None:
    actions.remove_member(world.alice, room_id=TEAM, user=world.bob)
    row = Membership.objects.get(room_id=TEAM, user=world.bob)
    assert (row.left_seq, row.changed_seq) == (1, 1)
    assert row.left_at is not None
    actions.send_message(world.alice, room_id=TEAM, content="without bob")
    actions.add_members(world.alice, room_id=TEAM, users=[world.bob])
    again = Membership.objects.get(room_id=TEAM, user=world.bob)
    assert again.pk == row.pk
    assert (again.joined_seq, again.visible_after_seq, again.left_seq, again.left_at) == (3, 3, None, None)
    assert changes == [("acme", TEAM, [], ["bob"]), ("acme", TEAM, ["bob"], [])]


def test_owner_who_leaves_is_followed_by_the_longest_member(world: World) -> None:
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.leave_room(world.alice, room_id=TEAM)
    roles = dict(Membership.objects.filter(left_seq=None).values_list("user__username", "role"))
    assert roles == {"bob": "owner", "carol": "member"}
    actions.leave_room(world.bob, room_id=TEAM)
    actions.leave_room(world.carol, room_id=TEAM)
    assert not Membership.objects.filter(left_seq=None).exists()


def test_returned_owner_is_a_member(world: World) -> None:
    actions.leave_room(world.alice, room_id=TEAM)
    actions.rejoin_room(world.alice, room_id=TEAM)
    assert world.roles(TEAM) == {"alice": "member", "bob": "owner"}


def test_only_an_owner_removes(world: World) -> None:
    with pytest.raises(Forbidden, match="owner"):
        actions.remove_member(world.bob, room_id=TEAM, user=world.alice)
    with pytest.raises(Invalid, match="leave"):
        actions.remove_member(world.alice, room_id=TEAM, user=world.alice)
    with pytest.raises(NotFound, match="not a member"):
        actions.remove_member(world.alice, room_id=TEAM, user=world.carol)
    actions.remove_member(world.alice, room_id=TEAM, user=world.bob)
    with pytest.raises(NotFound, match="not a member"):
        actions.remove_member(world.alice, room_id=TEAM, user=world.bob)


def test_direct_rooms_keep_their_members(world: World) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    changes: tuple[Callable[[], None], ...] = (
        lambda: actions.add_members(world.alice, room_id=room.pk, users=[world.carol]),
        lambda: actions.remove_member(world.alice, room_id=room.pk, user=world.bob),
        lambda: actions.leave_room(world.alice, room_id=room.pk),
    )
    for change in changes:
        with pytest.raises(Forbidden, match="direct"):
            change()
    assert room.memberships.filter(left_seq=None).count() == 2


@pytest.mark.parametrize("room_id", [TEAM, THEIRS, 999, 0, -1, 2**63, 2**80])
def test_strangers_change_nothing(world: World, room_id: int) -> None:
    """Carol is no member of the team, and owns the rooms of equal numbers in the other tenant."""
    changes: tuple[Callable[[], None], ...] = (
        lambda: actions.add_members(world.carol, room_id=room_id, users=[world.carol]),
        lambda: actions.remove_member(world.carol, room_id=room_id, user=world.bob),
        lambda: actions.leave_room(world.carol, room_id=room_id),
    )
    for change in changes:
        with pytest.raises(NotFound) as caught:
            change()
        assert caught.value.details == {"room": room_id}
    assert world.roles(TEAM) == {"alice": "owner", "bob": "member"}
    with world.globex.activated():
        positions = room_positions(world.globex.users["carol"], limit=9)
        assert {position.room_id for position in positions} == {TEAM, THEIRS}


def test_who_left_changes_nothing(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with pytest.raises(NotFound):
        actions.add_members(world.bob, room_id=TEAM, users=[world.bob])
    with pytest.raises(NotFound):
        actions.leave_room(world.bob, room_id=TEAM)


def test_changing_members_costs_the_same_for_any_number(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(33)]
    made = []
    for users in (crowd[:3], crowd[3:]):
        with queries() as found:
            actions.add_members(world.alice, room_id=TEAM, users=users)
        made.append(len(found))
    assert made == [9, 9]
    with exactly(4):
        actions.remove_member(world.alice, room_id=TEAM, user=crowd[0])
    with exactly(5):
        actions.leave_room(crowd[1], room_id=TEAM)


# Leaving and coming back


def test_who_left_is_brought_back_by_nobody_else(world: World, changes: list[Any]) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with world.globex.activated():
        actions.leave_room(world.globex.users["bob"], room_id=TEAM)
    changes.clear()
    with pytest.raises(Forbidden) as refused:
        actions.add_members(world.alice, room_id=TEAM, users=[world.carol, world.bob])
    assert refused.value.details == {"left": ["bob"]}
    assert world.roles(TEAM) == {"alice": "owner"}
    actions.rejoin_room(world.bob, room_id=TEAM)
    assert world.roles(TEAM) == {"alice": "owner", "bob": "member"}
    row = Membership.objects.get(room_id=TEAM, user=world.bob)
    assert (row.left_seq, row.left_by_choice, row.joined_seq, row.visible_after_seq) == (None, False, 2, 2)
    assert changes == [("acme", TEAM, ["bob"], [])]
    actions.rejoin_room(world.bob, room_id=TEAM)
    assert len(changes) == 1
    # What happened in one tenant is nothing to the other's room and user of the same numbers.
    with world.globex.activated(), pytest.raises(Forbidden):
        actions.add_members(world.globex.users["carol"], room_id=TEAM, users=[world.globex.users["bob"]])


@pytest.mark.parametrize("room_id", [TEAM, 99, 0, -1, 2**63])
def test_only_who_left_by_choice_comes_back(world: World, room_id: int) -> None:
    with pytest.raises(NotFound):
        actions.rejoin_room(world.carol, room_id=room_id)
    actions.remove_member(world.alice, room_id=TEAM, user=world.bob)
    with pytest.raises(NotFound):
        actions.rejoin_room(world.bob, room_id=room_id)
    # Being removed isn't leaving: a member may add them again.
    actions.add_members(world.alice, room_id=TEAM, users=[world.bob])
    actions.leave_room(world.bob, room_id=TEAM)
    actions.rejoin_room(world.bob, room_id=TEAM)
    actions.remove_member(world.alice, room_id=TEAM, user=world.bob)
    with pytest.raises(NotFound):
        actions.rejoin_room(world.bob, room_id=TEAM)


def test_a_room_that_all_left_has_an_owner_again(world: World) -> None:
    actions.leave_room(world.alice, room_id=TEAM)
    actions.leave_room(world.bob, room_id=TEAM)
    assert left_rooms(world.bob)[0].name == "team"
    actions.rejoin_room(world.bob, room_id=TEAM)
    actions.rejoin_room(world.alice, room_id=TEAM)
    assert world.roles(TEAM) == {"alice": "member", "bob": "owner"}


def test_a_full_room_takes_nobody_back(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    with override_settings(TENANT_MESSAGING={"MAX_ROOM_MEMBERS": 2}), pytest.raises(Invalid):
        actions.rejoin_room(world.bob, room_id=TEAM)


def test_rooms_that_were_left(world: World) -> None:
    made = [actions.create_room(world.alice, name=f"{number}", members=[world.bob]).pk for number in range(4)]
    assert left_rooms(world.bob) == []
    for room_id in made[:3]:
        actions.leave_room(world.bob, room_id=room_id)
    actions.remove_member(world.alice, room_id=made[3], user=world.bob)
    # What it is called now is for its members.
    actions.rename_room(world.alice, room_id=made[1], name="secret")
    with exactly(1):
        found = left_rooms(world.bob)
    assert [(room.room_id, room.name) for room in found] == [(made[2], "2"), (made[1], None), (made[0], "0")]
    assert [room.room_id for room in left_rooms(world.bob, limit=1)] == [made[2]]
    actions.rejoin_room(world.bob, room_id=made[2])
    assert [room.room_id for room in left_rooms(world.bob)] == [made[1], made[0]]
    with world.globex.activated():
        assert left_rooms(world.globex.users["bob"]) == []


# At the same time


def test_same_user_added_by_eight_at_once(world: World, changes: list[Any]) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(8)]
    actions.add_members(world.alice, room_id=TEAM, users=crowd)
    for turn in range(5):
        newcomer = world.acme.create_user(f"newcomer{turn}")

        def add(actor: User, newcomer: User = newcomer) -> None:
            with world.acme.activated():
                actions.add_members(actor, room_id=TEAM, users=[newcomer])

        changes.clear()
        together(*(lambda actor=actor: add(actor) for actor in crowd))
        assert Membership.objects.filter(room_id=TEAM, user=newcomer).count() == 1
        assert RoomCounter.objects.get(room_id=TEAM).last_seq == turn + 2
        assert changes == [("acme", TEAM, [newcomer.username], [])]


def test_members_come_and_go_without_deadlock(world: World) -> None:
    """Eight threads add, remove, leave and send in one room; what each was refused is a typed error."""
    crowd = [world.acme.create_user(f"user{number}") for number in range(6)]
    actions.add_members(world.alice, room_id=TEAM, users=[*crowd, world.carol])

    def churn(number: int) -> list[str]:
        refusals = []
        actor, other = (world.alice, crowd[number % 6]) if number % 2 else (crowd[number % 6], crowd[(number + 1) % 6])
        with world.acme.activated():
            for _ in range(12):
                for change in (
                    lambda: actions.send_message(actor, room_id=TEAM, content="hello"),
                    lambda: actions.remove_member(actor, room_id=TEAM, user=other),
                    lambda: actions.add_members(actor, room_id=TEAM, users=crowd[::-1]),
                    lambda: actions.leave_room(other, room_id=TEAM),
                    lambda: actions.add_members(world.alice, room_id=TEAM, users=crowd),
                ):
                    try:
                        change()
                    except MessagingError as error:
                        refusals.append(error.code)
        return refusals

    refusals, failures = outcomes(*(lambda number=number: churn(number) for number in range(8)))
    assert failures == []
    assert {code for codes in refusals for code in codes} <= {"not_found", "forbidden"}
    assert Membership.objects.filter(room_id=TEAM).count() == 9
    seqs = list(Message.objects.filter(room_id=TEAM).order_by("seq").values_list("seq", flat=True))
    assert len(seqs) == len(set(seqs))
    assert seqs[-1] <= RoomCounter.objects.get(room_id=TEAM).last_seq


def test_nothing_of_the_removed_after_the_removal(world: World) -> None:
    """Whoever's send comes through after the removal got an earlier number; the others are refused."""
    crowd = [world.acme.create_user(f"user{number}") for number in range(7)]
    actions.add_members(world.alice, room_id=TEAM, users=crowd)

    def send_until_refused(user: User) -> int:
        sent = 0
        with world.acme.activated():
            while sent < 1_000:
                try:
                    actions.send_message(user, room_id=TEAM, content="still here")
                except NotFound:
                    break
                sent += 1
        return sent

    def remove_all() -> int:
        with world.acme.activated():
            for user in crowd:
                while not Message.objects.filter(sender=user).exists():
                    pass
                actions.remove_member(world.alice, room_id=TEAM, user=user)
        return 0

    calls = [lambda user=user: send_until_refused(user) for user in crowd]
    sent = together(remove_all, *calls)[1:]
    for user, count in zip(crowd, sent, strict=True):
        left_seq = Membership.objects.get(room_id=TEAM, user=user).left_seq
        assert left_seq is not None
        seqs = list(Message.objects.filter(sender=user).values_list("seq", flat=True))
        assert 0 < len(seqs) == count < 1_000
        assert max(seqs) < left_seq
