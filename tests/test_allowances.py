"""What one user may do in a day: rooms, members and look-ups, over all processes and faces."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import transaction
from django.db.models import F
from django.test import override_settings

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Invalid, NotFound, RateLimited
from django_tenant_messaging.models import ChatRoom, DailyAllowance, Membership
from tests.harness.queries import exactly
from tests.harness.together import outcomes
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        for tenant in (acme, globex):
            with tenant.activated():
                DailyAllowance.objects.all().delete()
        yield world


def limits(**limits: tuple[float, float] | None) -> Any:
    return override_settings(TENANT_MESSAGING={f"DAILY_LIMIT_{name.upper()}": value for name, value in limits.items()})


def granted(attempt: Callable[[int], object], most: int = 20) -> tuple[int, RateLimited]:
    for number in range(most):
        try:
            attempt(number)
        except RateLimited as refused:
            return number, refused
    raise AssertionError("nothing was refused")


def pass_hours(hours: float) -> None:
    DailyAllowance.objects.update(full_at=F("full_at") - timedelta(hours=hours))


def test_rooms_are_made_at_once_and_then_as_many_as_a_day_has(world: World) -> None:
    with limits(rooms=(24, 3)):
        number, refused = granted(lambda number: actions.create_room(world.alice, name=f"{number}"))
        assert number == 3
        assert refused.details["scope"] == "rooms"
        assert refused.details["limit"] == {"rate": 24 / 86_400, "burst": 3}
        assert 3_500 < refused.retry_after <= 3_600
        assert ChatRoom.objects.count() == 4
        pass_hours(1)
        number, _refused = granted(lambda number: actions.create_room(world.alice, name=f"{number}"))
        assert number == 1
        pass_hours(100)
        number, _refused = granted(lambda number: actions.create_room(world.alice, name=f"{number}"))
        assert number == 3
        # Others have their own.
        actions.create_room(world.bob, name="his")
        with world.globex.activated():
            actions.create_room(world.globex.users["alice"], name="hers")


def test_direct_rooms_count_when_they_are_made(world: World) -> None:
    others = [world.bob, world.carol, world.acme.create_user("dave")]
    with limits(rooms=(24, 2)):
        number, _refused = granted(lambda number: actions.open_direct_room(world.alice, other=others[number]))
        assert number == 2
        with exactly(1):
            actions.open_direct_room(world.alice, other=world.bob)
        assert ChatRoom.objects.filter(kind="direct").count() == 2
        # Who is written to pays nothing, and may still write back.
        actions.open_direct_room(others[2], other=world.alice)


def test_members_are_counted_those_of_new_rooms_too(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(9)]
    with limits(members=(24, 5)):
        actions.create_room(world.alice, name="two", members=crowd[:2])
        actions.add_members(world.alice, room_id=TEAM, users=crowd[:2])
        with pytest.raises(RateLimited) as refused:
            actions.add_members(world.alice, room_id=TEAM, users=crowd[2:4])
        assert refused.value.details["scope"] == "members"
        with pytest.raises(RateLimited):
            actions.create_room(world.alice, name="three", members=crowd[:2])
        # What was refused was not used, the room of the refused call neither.
        actions.add_members(world.alice, room_id=TEAM, users=crowd[2:3])
        assert set(DailyAllowance.objects.values_list("kind", flat=True)) == {"rooms", "members"}
        with pytest.raises(Invalid) as invalid:
            actions.add_members(world.bob, room_id=TEAM, users=crowd)
        assert invalid.value.details["errors"] == [{"field": "users", "reason": "at most 5 at once, not 9"}]
    assert Membership.objects.filter(room_id=TEAM).count() == 5


def test_leaving_and_coming_back_is_counted(world: World) -> None:
    def go_and_come(_number: int) -> None:
        actions.leave_room(world.bob, room_id=TEAM)
        actions.rejoin_room(world.bob, room_id=TEAM)

    with limits(members=(24, 3)):
        number, _refused = granted(go_and_come)
        assert number == 3


def test_what_is_rolled_back_was_not_used(world: World) -> None:
    with limits(rooms=(24, 2)):
        for _ in range(4):
            with transaction.atomic():
                actions.create_room(world.alice, name="never")
                transaction.set_rollback(True)
        number, _refused = granted(lambda number: actions.create_room(world.alice, name=f"{number}"))
        assert number == 2


def test_eight_at_once_get_no_more(world: World) -> None:
    def make() -> ChatRoom:
        with world.acme.activated():
            return actions.create_room(world.alice, name="many")

    with limits(rooms=(24, 5)):
        made, refused = outcomes(*[make] * 8)
    assert len(made) == 5
    assert [type(error) for error in refused] == [RateLimited] * 3
    assert ChatRoom.objects.filter(name="many").count() == 5


def test_look_ups_are_counted_whether_there_is_such_a_user_or_not(world: World) -> None:
    with limits(lookups=(24, 5)):
        assert actions.look_up_users(world.alice, usernames=["bob", "carol"]) == [world.bob, world.carol]
        with pytest.raises(NotFound) as missing:
            actions.look_up_users(world.alice, usernames=["bob", "nobody"])
        assert missing.value.details == {"usernames": ["nobody"]}
        with pytest.raises(RateLimited) as refused, exactly(2):
            actions.look_up_users(world.alice, usernames=["bob", "nobody"])
        assert refused.value.details["scope"] == "lookups"
        with pytest.raises(Invalid), exactly(0):
            actions.look_up_users(world.alice, usernames=[f"user{number}" for number in range(300_000)])
        with world.globex.activated():
            alice = world.globex.users["alice"]
            assert actions.look_up_users(alice, usernames=["alice"]) == [alice]


def test_code_that_is_nobodys_goes_without(world: World) -> None:
    with limits(rooms=(24, 1), members=(24, 1)):
        with actions.unlimited():
            for number in range(5):
                actions.create_room(world.alice, name=f"{number}", members=[world.bob, world.carol])
        assert not DailyAllowance.objects.exists()
        number, _refused = granted(lambda number: actions.create_room(world.alice, name=f"{number}"))
        assert number == 1
    with limits(rooms=None):
        for number in range(40):
            actions.create_room(world.alice, name=f"{number}")


def test_a_deleted_user_takes_the_allowances_along(world: World) -> None:
    actions.create_room(world.alice, name="one", members=[world.bob])
    assert DailyAllowance.objects.count() == 2
    world.alice.delete()
    assert DailyAllowance.objects.count() == 0
