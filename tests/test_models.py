"""The tables: how many there are, and what the deletion of a user does to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from django_tenant_messaging import actions
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Mention,
    Message,
    Notification,
    RoomCounter,
    UserStatus,
)
from django_tenant_messaging.selectors import list_conversations, list_members, message_by_id, room_history
from tests.harness.presence import connection_opened
from tests.harness.queries import queries
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World

MOST_TABLES = 16
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


def rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def test_tables_stay_few(acme: Tenant) -> None:
    """Locks grow with tables times tenants."""
    found = rows(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'acme' AND tablename LIKE 'django_tenant_messaging%'"
    )
    assert 0 < len(found) <= MOST_TABLES
    models = apps.get_app_config("django_tenant_messaging").get_models(include_auto_created=True)
    tables = {model._meta.db_table for model in models}
    assert {name for (name,) in found} == tables
    listed = (DOCS / "architecture.md").read_text().partition("## Tables")[2].partition("\n## ")[0]
    assert {f"django_tenant_messaging_{name}" for name in re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)} == tables


def test_database_carries_out_the_rule_of_every_user_key(acme: Tenant) -> None:
    found = rows(
        "SELECT c.conrelid::regclass::text, a.attname, c.confdeltype, c.condeferrable AND c.condeferred"
        " FROM pg_constraint AS c JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)"
        " WHERE c.contype = 'f' AND c.connamespace = 'acme'::regnamespace"
        " AND c.confrelid = 'acme.auth_user'::regclass AND c.conrelid::regclass::text LIKE '%messaging%'"
    )
    rules = {(table.removeprefix("acme."), column): (rule, deferred) for table, column, rule, deferred in found}
    assert len(rules) == len(found)
    expected: dict[tuple[str, str], tuple[str, bool]] = {}
    for model in apps.get_app_config("django_tenant_messaging").get_models(include_auto_created=True):
        for field in model._meta.concrete_fields:
            if field.related_model is get_user_model():
                rule = "n" if field.null else "c"
                expected[model._meta.db_table, str(field.column)] = (rule, True)
    assert rules == expected
    assert len(expected) == 8


def test_models_and_migrations_agree(acme: Tenant) -> None:
    call_command("makemigrations", "django_tenant_messaging", check=True, dry_run=True, verbosity=0)


# Deleting users


def test_deleted_sender_leaves_the_thread(world: World) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="@bob one").message
    reply = actions.send_message(world.bob, room_id=TEAM, content="@alice two", reply_to=first.id).message
    client_id = Message.objects.get(pk=first.id).client_id
    world.alice.delete()
    page = room_history(world.bob, room_id=TEAM)
    assert [(message.sender and message.sender.username, message.content) for message in page.messages] == [
        (None, "@bob one"),
        ("bob", "@alice two"),
    ]
    assert page.messages[1].reply_to == reply.reply_to
    assert page.messages[1].mentioned_users == ()
    assert Message.objects.get(pk=first.id).client_id == client_id
    assert [member.user.username for member in list_members(world.bob, TEAM)] == ["bob"]
    assert world.bob.notifications.count() == 1
    assert ChatRoom.objects.get(pk=TEAM).created_by is None
    assert actions.send_message(world.bob, room_id=TEAM, content="still works").message.seq == 3


@pytest.mark.parametrize("deleted", ["alice", "bob"])
def test_deleted_half_of_a_direct_conversation(world: World, deleted: str) -> None:
    message = Message.objects.create(sender=world.alice, receiver=world.bob, content="Hello")
    other = world.bob if deleted == "alice" else world.alice
    (world.alice if deleted == "alice" else world.bob).delete()
    data = message_by_id(message.pk)
    assert (data.sender is None, data.receiver is None) == (deleted == "alice", deleted == "bob")
    (line,) = [line for line in list_conversations(other) if line.room.kind == "direct"]
    assert (line.other_user, line.last_message, line.unread_count) == (None, data, int(deleted == "alice"))
    assert Notification.objects.count() == (deleted == "alice")
    assert actions.mark_read(other, room_id=message.room_id, seq=1) == 1
    sent = actions.send_message(other, room_id=message.room_id, content="are you there?").message
    assert (sent.receiver, sent.seq) == (None, 2)


def test_own_rows_of_the_deleted_go(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="@bob")
    connection_opened(world.bob, process="here")
    bob = world.bob.pk
    world.bob.delete()
    assert Membership.objects.count() == 1
    assert Mention.objects.count() == Notification.objects.count() == 0
    assert not UserStatus.objects.filter(user_id=bob).exists()
    assert Message.objects.count() == 1


def test_deleting_many_users(world: World) -> None:
    type(world.alice).objects.all().delete()
    assert (ChatRoom.objects.count(), RoomCounter.objects.count(), Membership.objects.count()) == (1, 1, 0)
    with world.globex.activated():
        assert Membership.objects.count() == 4


def test_deleting_a_user_does_not_load_the_rows(world: World) -> None:
    for number in range(30):
        actions.send_message(world.alice, room_id=TEAM, content=f"@bob {number}")
    with queries() as made:
        world.alice.delete()
    assert [sql for sql in made if "messaging" in sql] == []


def test_new_user_of_an_old_key_gets_no_old_room(world: World) -> None:
    """The direct room of a deleted user isn't opened by another who got the same key."""
    room = actions.open_direct_room(world.alice, other=world.bob)
    key = world.bob.pk
    world.bob.delete()
    again = world.acme.create_user("newcomer", pk=key)
    fresh = actions.open_direct_room(world.alice, other=again)
    assert fresh != room
    assert set(fresh.members.all()) == {world.alice, again}
    assert actions.open_direct_room(again, other=world.alice) == fresh
    assert set(room.members.all()) == {world.alice}


# Deleting rooms


def test_deleted_room_takes_all_along(world: World) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="@bob one").message
    actions.send_message(world.bob, room_id=TEAM, content="two", reply_to=first.id)
    actions.delete_room(room_id=TEAM)
    for model in (RoomCounter, Membership, Message, Mention, Notification):
        assert model._default_manager.count() == 0


def test_deleted_message_leaves_its_replies(world: World) -> None:
    first = actions.send_message(world.alice, room_id=TEAM, content="one").message
    reply = actions.send_message(world.bob, room_id=TEAM, content="two", reply_to=first.id).message
    Message.objects.get(pk=first.id).delete()
    assert message_by_id(reply.id).reply_to is None


# What the tables refuse


def test_tables_refuse_what_no_code_should_write(world: World) -> None:
    message = actions.send_message(world.alice, room_id=TEAM, content="one").message
    notification = Notification.objects.create(user=world.bob, message_id=message.id, notification_text="x")
    refused: list[Callable[[], Any]] = [
        lambda: ChatRoom.objects.create(kind="direct"),
        lambda: ChatRoom.objects.create(kind="group", direct_key="1:2"),
        lambda: Membership.objects.create(room_id=TEAM, user=world.bob),
        lambda: Message.objects.filter(pk=message.id).update(seq=None),
        lambda: Mention.objects.bulk_create([Mention(message_id=message.id, user=world.bob) for _ in range(2)]),
        lambda: Notification.objects.create(user=world.bob, message_id=message.id, notification_text="again"),
    ]
    for write in refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            write()
    assert str(notification) == "x"


def test_names_of_rows(world: World) -> None:
    message = Message.objects.create(sender=world.alice, receiver=world.bob, content="secret")
    connection_opened(world.bob, process="here")
    shown = [
        str(row) for model in (ChatRoom, Membership, RoomCounter, UserStatus) for row in model._default_manager.all()
    ]
    assert "team" in shown
    assert f"direct conversation {message.room_id}" in shown
    assert f"{world.bob.pk}: online" in shown
    assert "secret" not in str(message)
