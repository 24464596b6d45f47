"""Pages of a room's history."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Invalid, NotFound
from django_tenant_messaging.models import Message
from django_tenant_messaging.selectors import read_changes, room_history
from tests.harness.queries import exactly, queries
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_tenant_messaging.types import HistoryPage
    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    """Ten messages in the team's room: 1 to 10."""
    with made_world(acme, globex) as world:
        for number in range(1, 11):
            actions.send_message((world.alice, world.bob)[number % 2], room_id=TEAM, content=f"{number} @alice @bob")
        yield world


def shown(page: HistoryPage) -> tuple[list[int], bool, bool]:
    return [message.seq for message in page.messages], page.has_before, page.has_after


@pytest.mark.parametrize(
    ("place", "limit", "expected"),
    [
        ({}, 50, (range(1, 11), False, False)),
        ({}, 10, (range(1, 11), False, False)),
        ({}, 3, ([8, 9, 10], True, False)),
        ({"before": 8}, 3, ([5, 6, 7], True, True)),
        ({"before": 4}, 3, ([1, 2, 3], False, True)),
        ({"before": 1}, 3, ([], False, True)),
        ({"before": 11}, 3, ([8, 9, 10], True, False)),
        ({"before": 2**70}, 3, ([8, 9, 10], True, False)),
        ({"before": -(2**70)}, 3, ([], False, True)),
        ({"after": 0}, 3, ([1, 2, 3], False, True)),
        ({"after": 7}, 3, ([8, 9, 10], True, False)),
        ({"after": 10}, 3, ([], True, False)),
        ({"after": 2**70}, 3, ([], True, False)),
        ({"after": -5}, 2, ([1, 2], False, True)),
        ({"around": 5}, 4, ([3, 4, 5, 6], True, True)),
        ({"around": 5}, 1, ([5], True, True)),
        ({"around": 1}, 4, ([1, 2], False, True)),
        ({"around": 10}, 4, ([8, 9, 10], True, False)),
        ({"around": 0}, 4, ([1, 2], False, True)),
        ({"around": 2**70}, 4, ([9, 10], True, False)),
    ],
    ids=str,
)
def test_page(world: World, place: dict[str, int], limit: int, expected: tuple[Any, bool, bool]) -> None:
    page = room_history(world.alice, room_id=TEAM, limit=limit, **place)
    assert shown(page) == (list(expected[0]), *expected[1:])
    assert (page.room.room_id, page.room.seq) == (TEAM, 10)


def test_pages_follow_each_other_over_changes_of_members(world: World) -> None:
    """Numbers taken by joins and leaves are missing from the messages, and nothing else is."""
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.send_message(world.alice, room_id=TEAM, content="12")
    actions.leave_room(world.carol, room_id=TEAM)
    seqs: list[int] = []
    page = room_history(world.alice, room_id=TEAM, limit=4)
    while True:
        seqs = [message.seq for message in page.messages] + seqs
        if not page.has_before:
            break
        page = room_history(world.alice, room_id=TEAM, limit=4, before=seqs[0])
    assert seqs == [*range(1, 11), 12]
    assert room_history(world.alice, room_id=TEAM).room.seq == 13


def test_newcomer_sees_what_came_after(world: World) -> None:
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    actions.send_message(world.alice, room_id=TEAM, content="welcome")
    assert shown(room_history(world.carol, room_id=TEAM)) == ([12], False, False)
    for place in ({"before": 5}, {"after": 0}, {"around": 5}):
        page = room_history(world.carol, room_id=TEAM, **place)
        assert [message.seq for message in page.messages] in ([], [12])
        assert not page.has_before


def test_newcomer_sees_all_where_the_host_allows(world: World) -> None:
    with override_settings(TENANT_MESSAGING={"NEW_MEMBERS_SEE_HISTORY": True}):
        actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    assert shown(room_history(world.carol, room_id=TEAM, limit=2)) == ([9, 10], True, False)


@pytest.mark.parametrize("limit", [0, -1, 201, 2**70])
def test_limit_out_of_range(world: World, limit: int) -> None:
    with pytest.raises(Invalid) as caught:
        room_history(world.alice, room_id=TEAM, limit=limit)
    assert caught.value.details["errors"][0]["field"] == "limit"


def test_one_place_at_a_time(world: World) -> None:
    for places in ({"before": 1, "after": 1}, {"after": 0, "around": 0}, {"before": 1, "after": 1, "around": 1}):
        with pytest.raises(Invalid, match="not several"):
            room_history(world.alice, room_id=TEAM, **places)


@pytest.mark.parametrize("room_id", [TEAM, THEIRS, 999, 0, 2**64])
def test_no_history_for_strangers(world: World, room_id: int) -> None:
    with pytest.raises(NotFound):
        room_history(world.carol, room_id=room_id)


def test_no_history_for_who_left(world: World) -> None:
    actions.leave_room(world.bob, room_id=TEAM)
    with pytest.raises(NotFound):
        room_history(world.bob, room_id=TEAM)


@pytest.mark.parametrize("limit", [2, 10])
def test_pages_cost_the_same_for_any_history(world: World, limit: int) -> None:
    with exactly(4):
        room_history(world.alice, room_id=TEAM, limit=limit)
    with exactly(4):
        room_history(world.alice, room_id=TEAM, limit=limit, before=8)
    with exactly(4):
        room_history(world.alice, room_id=TEAM, limit=limit, after=2)
    with exactly(7):
        room_history(world.alice, room_id=TEAM, limit=limit, around=5)


@pytest.fixture
def long(world: World, settings: Any) -> None:
    """Of the room's ten messages all are long but the last; three of the long ones fit into a page."""
    settings.TENANT_MESSAGING = {"HISTORY_PAGE_BYTES": 3 * (2_000 + 600)}
    Message.objects.filter(room_id=TEAM, seq__lt=10).update(content="\U0001f44b" * 500)


@pytest.mark.parametrize(
    ("place", "seqs"),
    [
        ({}, [8, 9, 10]),
        ({"before": 6}, [3, 4, 5]),
        ({"before": 4}, [1, 2, 3]),
        ({"after": 0}, [1, 2, 3]),
        ({"after": 6}, [7, 8, 9]),
        ({"after": 7}, [8, 9, 10]),
        # Half of the bytes for each side.
        ({"around": 5}, [4, 5]),
        ({"before": 6, "limit": 2}, [4, 5]),
    ],
)
def test_a_page_of_long_messages_ends_early(world: World, long: None, place: dict[str, int], seqs: list[int]) -> None:
    page = room_history(world.alice, room_id=TEAM, **place)
    assert shown(page) == (seqs, seqs[0] > 1, seqs[-1] < 10)


def test_a_page_holds_one_message_however_long(world: World, long: None, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"HISTORY_PAGE_BYTES": 100}
    assert shown(room_history(world.alice, room_id=TEAM, before=5)) == ([4], True, True)
    assert shown(room_history(world.alice, room_id=TEAM, after=5)) == ([6], True, True)
    assert shown(room_history(world.alice, room_id=TEAM, around=5)) == ([4, 5], True, True)


def test_what_does_not_fit_is_not_read(world: World, long: None) -> None:
    with CaptureQueriesContext(connection) as captured:
        room_history(world.alice, room_id=TEAM)
    (reading,) = [query["sql"] for query in captured if '."content",' in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(reading)
        assert len(cursor.fetchall()) == 3


PLACES = st.one_of(
    st.just({}), *(st.fixed_dictionaries({name: st.integers()}) for name in ("before", "after", "around"))
)


def test_any_page_is_a_piece_of_the_history(world: World) -> None:
    @examples(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(PLACES, st.integers(1, 12))
    def check(place: dict[str, int], limit: int) -> None:
        page = room_history(world.alice, room_id=TEAM, limit=limit, **place)
        seqs = [message.seq for message in page.messages]
        assert len(seqs) <= limit
        assert all(later == earlier + 1 for earlier, later in pairwise(seqs))
        if seqs:
            assert (page.has_before, page.has_after) == (seqs[0] > 1, seqs[-1] < 10)

    check()


@pytest.mark.parametrize("place", [{}, {"before": 8}, {"after": 2}, {"around": 5}])
def test_a_page_names_its_number_of_rows(world: World, place: dict[str, int]) -> None:
    # By its positions alone the planner takes a page for a good part of a long room, and joins all there is.
    with queries() as made:
        room_history(world.alice, room_id=TEAM, limit=4, **place)
        read_changes(TEAM, after=2, limit=4)
    of_messages = [statement for statement in made if '"client_id"' in statement]
    assert len(of_messages) == (3 if "around" in place else 2)
    assert all("LIMIT" in statement for statement in of_messages)
