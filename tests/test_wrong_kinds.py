"""Values of a wrong kind, and users who are no more: each action and selector says which it is, and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from django_tenant_messaging import actions, selectors
from django_tenant_messaging.events import bus
from django_tenant_messaging.exceptions import Invalid, NotFound
from django_tenant_messaging.models import ChatRoom, Membership, Message, RoomCounter
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World

NO_NUMBERS: list[Any] = [1.5, 1.0, True, "1", b"1", None, [1], object()]
"""Each of them is, or is taken for, the number of a room by a database or a driver, or breaks it."""


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


@pytest.fixture
def events() -> Iterator[list[Any]]:
    seen: list[Any] = []
    bus.connect_sink(seen.extend)
    yield seen
    bus._sinks.remove(seen.extend)


def stored() -> tuple[Any, ...]:
    heads = RoomCounter.objects.order_by("pk").values_list("pk", "last_seq")
    places = Membership.objects.order_by("pk").values_list("pk", "left_seq", "last_read_seq")
    rooms = ChatRoom.objects.order_by("pk").values_list("pk", "name")
    return list(heads), list(places), list(rooms), Message.objects.count()


Calls = dict[str, tuple[str, "Callable[[World, Any], Any]"]]
NUMBERS: Calls = {
    "send": ("room_id", lambda w, bad: actions.send_message(w.alice, room_id=bad, content="x")),
    "edit, room": ("room_id", lambda w, bad: actions.edit_message(w.alice, room_id=bad, message_id=1, content="@bob")),
    "edit, id": ("message_id", lambda w, bad: actions.edit_message(w.alice, room_id=TEAM, message_id=bad, content="x")),
    "delete, room": ("room_id", lambda w, bad: actions.delete_message(w.alice, room_id=bad, message_id=1)),
    "delete, id": ("message_id", lambda w, bad: actions.delete_message(w.alice, room_id=TEAM, message_id=bad)),
    "rename": ("room_id", lambda w, bad: actions.rename_room(w.alice, room_id=bad, name="x")),
    "read, room": ("room_id", lambda w, bad: actions.mark_read(w.alice, room_id=bad, seq=1)),
    "read, seq": ("seq", lambda w, bad: actions.mark_read(w.alice, room_id=TEAM, seq=bad)),
    "typing": ("room_id", lambda w, bad: actions.set_typing(w.alice, room_id=bad, is_typing=True)),
    "add": ("room_id", lambda w, bad: actions.add_members(w.alice, room_id=bad, users=[w.carol])),
    "remove": ("room_id", lambda w, bad: actions.remove_member(w.alice, room_id=bad, user=w.bob)),
    "leave": ("room_id", lambda w, bad: actions.leave_room(w.alice, room_id=bad)),
    "rejoin": ("room_id", lambda w, bad: actions.rejoin_room(w.alice, room_id=bad)),
    "told": ("notification_ids", lambda w, bad: actions.mark_notifications_read(w.alice, notification_ids=[bad])),
    "history, room": ("room_id", lambda w, bad: selectors.room_history(w.alice, room_id=bad)),
    "history, limit": ("limit", lambda w, bad: selectors.room_history(w.alice, room_id=TEAM, limit=bad)),
    "earlier, room": ("room_id", lambda w, bad: selectors.list_revisions(w.alice, room_id=bad, message_id=1)),
    "earlier, id": ("message_id", lambda w, bad: selectors.list_revisions(w.alice, room_id=TEAM, message_id=bad)),
    "members": ("room_id", lambda w, bad: selectors.list_members(w.alice, bad)),
    "members, limit": ("limit", lambda w, bad: selectors.list_members(w.alice, TEAM, limit=bad)),
    "number of members": ("room_id", lambda w, bad: selectors.count_members(w.alice, bad)),
    "room": ("room_id", lambda w, bad: selectors.access_room(w.alice, bad)),
}
MAY_BE_NONE: Calls = {
    "reply": ("reply_to", lambda w, bad: actions.send_message(w.alice, room_id=TEAM, content="x", reply_to=bad)),
    "before": ("before", lambda w, bad: selectors.room_history(w.alice, room_id=TEAM, before=bad)),
    "after": ("after", lambda w, bad: selectors.room_history(w.alice, room_id=TEAM, after=bad)),
    "around": ("around", lambda w, bad: selectors.room_history(w.alice, room_id=TEAM, around=bad)),
    "earlier": ("before", lambda w, bad: selectors.list_revisions(w.alice, room_id=TEAM, message_id=1, before=bad)),
}
OTHERS: Calls = {
    "client id": ("client_id", lambda w, bad: actions.send_message(w.alice, room_id=TEAM, content="x", client_id=bad)),
    "content": ("content", lambda w, bad: actions.send_message(w.alice, room_id=TEAM, content=bad)),
    "new content": ("content", lambda w, bad: actions.edit_message(w.alice, room_id=TEAM, message_id=1, content=bad)),
    "name": ("name", lambda w, bad: actions.create_room(w.alice, name=bad)),
    "new name": ("name", lambda w, bad: actions.rename_room(w.alice, room_id=TEAM, name=bad)),
    "typing": ("is_typing", lambda w, bad: actions.set_typing(w.alice, room_id=TEAM, is_typing=bad)),
    "other": ("users", lambda w, bad: actions.open_direct_room(w.alice, other=bad)),
    "members": ("users", lambda w, bad: actions.create_room(w.alice, name="x", members=[bad])),
    "added": ("users", lambda w, bad: actions.add_members(w.alice, room_id=TEAM, users=[bad])),
    "removed": ("user", lambda w, bad: actions.remove_member(w.alice, room_id=TEAM, user=bad)),
}


def require_refused(world: World, field: str, call: Callable[[World, Any], Any], bad: Any) -> None:
    before = stored()
    with pytest.raises(Invalid) as caught:
        call(world, bad)
    assert [error["field"] for error in caught.value.details["errors"]] == [field]
    assert stored() == before


@pytest.fixture
def written(world: World, events: list[Any]) -> World:
    message = actions.send_message(world.alice, room_id=TEAM, content="first").message
    assert message.id == 1
    events.clear()
    return world


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_names_no_row(written: World, events: list[Any], name: str) -> None:
    for bad in NO_NUMBERS:
        require_refused(written, *NUMBERS[name], bad)
    assert events == []


@pytest.mark.parametrize("name", MAY_BE_NONE)
def test_what_may_be_left_out_is_a_number_too(written: World, events: list[Any], name: str) -> None:
    for bad in NO_NUMBERS:
        if bad is not None:
            require_refused(written, *MAY_BE_NONE[name], bad)
    assert events == []


@pytest.mark.parametrize("name", OTHERS)
def test_other_values_are_of_their_kind(written: World, events: list[Any], name: str) -> None:
    for bad in (5, "" if name == "client id" else 5.5, b"x", ["x"]):
        require_refused(written, *OTHERS[name], bad)
    assert events == []


def test_a_client_id_as_a_text_is_refused(written: World) -> None:
    for bad in ("not one", "3b241101-e2bb-4255-8caf-4136c566a962"):
        require_refused(written, *OTHERS["client id"], bad)


@pytest.mark.parametrize("name", [*NUMBERS, *MAY_BE_NONE])
def test_a_number_of_no_row_breaks_nothing(written: World, name: str) -> None:
    _field, call = (NUMBERS | MAY_BE_NONE)[name]
    for number in (-(2**63) - 1, -1, 0, 2**31, 2**63 - 1, 2**63, 2**200):
        try:
            call(written, number)
        except (NotFound, Invalid):
            continue


def deleted(world: World) -> list[Any]:
    """A user as code has it that read it before the deletion, and one that was never stored."""
    gone = type(world.alice)._default_manager.get(pk=world.carol.pk)
    world.carol.delete()
    return [gone, type(world.alice)(username="nobody")]


def test_users_who_are_no_more_are_not_found(written: World, events: list[Any]) -> None:
    users = deleted(written)
    events.clear()
    for user in users:
        before = stored()
        calls: list[Callable[[Any], Any]] = [
            lambda user: actions.add_members(written.alice, room_id=TEAM, users=[written.bob, user]),
            lambda user: actions.create_room(written.alice, name="x", members=[user]),
            lambda user: actions.open_direct_room(written.alice, other=user),
            lambda user: actions.remove_member(written.alice, room_id=TEAM, user=user),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                call(user)
        assert stored() == before
    assert events == []


def test_the_actor_may_be_no_more_too(written: World, events: list[Any]) -> None:
    actors = deleted(written)
    events.clear()
    for actor in actors:
        calls: list[Callable[[Any], Any]] = [
            lambda actor: actions.send_message(actor, room_id=TEAM, content="x"),
            lambda actor: actions.add_members(actor, room_id=TEAM, users=[written.bob]),
            lambda actor: actions.create_room(actor, name="x", members=[written.bob]),
            lambda actor: actions.create_room(actor, name="x"),
            lambda actor: actions.open_direct_room(actor, other=written.bob),
            lambda actor: actions.rejoin_room(actor, room_id=TEAM),
            lambda actor: actions.leave_room(actor, room_id=TEAM),
        ]
        before = stored()
        for call in calls:
            with pytest.raises(NotFound):
                call(actor)
        assert stored() == before
    assert events == []


def test_the_same_user_twice_is_added_once(written: World) -> None:
    actions.add_members(written.alice, room_id=TEAM, users=[written.carol, written.carol])
    assert written.roles(TEAM) == {"alice": "owner", "bob": "member", "carol": "member"}
