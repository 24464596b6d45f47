"""Editing, deleting and renaming: who may, what it writes, and many at once."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.db.models import F
from django.test import override_settings

from django_tenant_messaging import actions, signals
from django_tenant_messaging.actions import editing
from django_tenant_messaging.actions.mentions import resolve_mentions
from django_tenant_messaging.events import MessageDeleted, MessageEdited, NotificationCreated, RoomRenamed, bus
from django_tenant_messaging.exceptions import Conflict, Forbidden, Invalid, MessagingError, NotFound
from django_tenant_messaging.models import (
    ChatRoom,
    Membership,
    Mention,
    Message,
    MessageRevision,
    Notification,
    RoomCounter,
)
from django_tenant_messaging.selectors import (
    list_conversations,
    list_notifications,
    list_revisions,
    message_by_id,
    read_changes,
    room_history,
)
from django_tenant_messaging.tenancy import current_schema
from django_tenant_messaging.types import RevisionPage, UserRef
from tests.harness.queries import exactly
from tests.harness.together import outcomes, together
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.auth.models import User

    from django_tenant_messaging.types import MessageData
    from tests.harness.tenants import Tenant
    from tests.harness.world import World


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """All events, in order."""
    seen: list[Any] = []
    bus.connect_sink(seen.extend)
    yield seen
    bus._sinks.remove(seen.extend)


@pytest.fixture
def told() -> Iterator[list[tuple[Any, ...]]]:
    """What the signals told the host, as (signal, schema, what)."""
    seen: list[tuple[Any, ...]] = []

    def receiver(signal: Any, schema_name: str, **details: Any) -> None:
        assert current_schema() == schema_name
        if "message" in details:
            assert message_by_id(details["message"].id).changed_seq >= details["message"].changed_seq
            details["message"] = details["message"].content
        names = {signals.message_sent: "sent", signals.message_edited: "edited", signals.message_deleted: "deleted"}
        seen.append(
            (names.get(signal, "renamed"), schema_name, *(value for key, value in details.items() if key != "sender"))
        )

    connected = (signals.message_sent, signals.message_edited, signals.message_deleted, signals.room_renamed)
    for signal in connected:
        signal.connect(receiver)
    yield seen
    for signal in connected:
        signal.disconnect(receiver)


def say(world: World, content: str, *, sender: User | None = None, room: int = TEAM, **fields: Any) -> MessageData:
    return actions.send_message(sender or world.alice, room_id=room, content=content, **fields).message


def head(room_id: int = TEAM) -> int:
    return RoomCounter.objects.get(room_id=room_id).last_seq


def in_acme(world: World, call: Callable[..., Any], *args: Any, **fields: Any) -> Callable[[], Any]:
    def run() -> Any:
        with world.acme.activated():
            return call(*args, **fields)

    return run


def texts_before(message_id: int) -> list[str]:
    return list(MessageRevision.objects.filter(message_id=message_id).order_by("pk").values_list("content", flat=True))


# Editing


def test_edited_message(world: World, events: list[Any], told: list[Any]) -> None:
    first = say(world, "one")
    say(world, "two", sender=world.bob)
    events.clear()
    told.clear()
    edited = actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="uno")
    assert (edited.id, edited.seq, edited.changed_seq, edited.content) == (first.id, 1, 3, "uno")
    assert (edited.timestamp, edited.client_id, edited.deleted_at) == (first.timestamp, first.client_id, None)
    assert edited.edited_at is not None
    assert edited.edited_at > first.timestamp
    assert edited == message_by_id(first.id)
    assert head() == 3
    assert events == [MessageEdited("acme", TEAM, 3, 2, edited)]
    assert told == [("edited", "acme", "uno")]
    assert [message.content for message in room_history(world.bob, room_id=TEAM).messages] == ["uno", "two"]


def test_each_text_before_is_kept_with_its_time(world: World) -> None:
    first = say(world, "one")
    states = [
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
        for content in ("two", "three", "two")
    ]
    with exactly(4):
        revisions = list_revisions(world.bob, room_id=TEAM, message_id=first.id).revisions
    assert [revision.content for revision in revisions] == ["one", "two", "three"]
    moments = [first.timestamp, *(state.edited_at for state in states)]
    assert [(revision.written_at, revision.replaced_at) for revision in revisions] == list(pairwise(moments))
    assert [revision.id for revision in revisions] == sorted(revision.id for revision in revisions)


@pytest.mark.parametrize("content", ["Caf\u00e9", "Cafe\u0301"])
def test_the_same_text_changes_nothing(world: World, events: list[Any], content: str) -> None:
    first = say(world, "Caf\u00e9")
    events.clear()
    assert actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content) == first
    assert (head(), events, texts_before(first.id)) == (1, [], [])


@pytest.mark.parametrize("content", ["", " \n", "x" * 10_001, "a\0b", "\ud800"])
def test_texts_that_are_refused(world: World, content: str) -> None:
    first = say(world, "one")
    with pytest.raises(Invalid) as caught:
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
    assert [error["field"] for error in caught.value.details["errors"]] == ["content"]
    assert message_by_id(first.id) == first


def change_both_ways(actor: User, room_id: int, message_id: int) -> list[type[MessagingError]]:
    """Edit and delete, and return what each was refused with."""
    with pytest.raises(MessagingError) as edit:
        actions.edit_message(actor, room_id=room_id, message_id=message_id, content="forged")
    with pytest.raises(MessagingError) as deletion:
        actions.delete_message(actor, room_id=room_id, message_id=message_id)
    return [edit.type, deletion.type]


def test_what_is_not_there_can_not_be_changed(world: World, events: list[Any]) -> None:
    first = say(world, "one")
    direct = actions.open_direct_room(world.alice, other=world.bob)
    other = say(world, "elsewhere", room=direct.pk)
    with world.globex.activated():
        for number in range(4):
            say(world, str(number), sender=world.globex.users["alice"], room=TEAM)
    events.clear()
    for room_id, message_id in (
        (TEAM, 999),
        (TEAM, other.id),
        (TEAM, 0),
        (TEAM, -1),
        (TEAM, 2**63),
        (THEIRS, first.id),
        (0, first.id),
        (2**63, first.id),
        (999, first.id),
    ):
        assert change_both_ways(world.alice, room_id, message_id) == [NotFound, NotFound]
        with pytest.raises(NotFound):
            list_revisions(world.alice, room_id=room_id, message_id=message_id)
    # In the other tenant there are messages of these ids.
    assert change_both_ways(world.alice, TEAM, first.id + 2) == [NotFound, NotFound]
    assert events == []
    assert message_by_id(first.id) == first


def test_strangers_and_who_left_change_nothing(world: World) -> None:
    first, second = say(world, "one"), say(world, "two", sender=world.bob)
    assert change_both_ways(world.carol, TEAM, first.id) == [NotFound, NotFound]
    actions.leave_room(world.bob, room_id=TEAM)
    assert change_both_ways(world.bob, TEAM, second.id) == [NotFound, NotFound]
    with pytest.raises(NotFound):
        list_revisions(world.bob, room_id=TEAM, message_id=first.id)
    # Who comes back sees nothing from before, not even the own.
    actions.rejoin_room(world.bob, room_id=TEAM)
    assert change_both_ways(world.bob, TEAM, second.id) == [NotFound, NotFound]
    with pytest.raises(NotFound):
        list_revisions(world.bob, room_id=TEAM, message_id=first.id)
    assert message_by_id(second.id) == second


def test_only_the_sender_edits(world: World) -> None:
    first, second = say(world, "one"), say(world, "two", sender=world.bob)
    with pytest.raises(Forbidden):
        actions.edit_message(world.alice, room_id=TEAM, message_id=second.id, content="owners don't either")
    assert change_both_ways(world.bob, TEAM, first.id) == [Forbidden, Forbidden]
    world.bob.delete()
    with pytest.raises(Forbidden):
        actions.edit_message(world.alice, room_id=TEAM, message_id=second.id, content="nor those of the deleted")


def test_editing_ends_after_a_time(world: World) -> None:
    first = say(world, "one")
    with override_settings(TENANT_MESSAGING={"EDIT_WINDOW": 60}):
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="two")
        Message.objects.filter(pk=first.id).update(timestamp=F("timestamp") - timedelta(seconds=61))
        with pytest.raises(Forbidden) as caught:
            actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="three")
        assert caught.value.details == {"edit_window": 60}
        # A repeat of what succeeded in time is answered as before.
        assert actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="two").content == "two"
        actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
    with override_settings(TENANT_MESSAGING={"EDIT_WINDOW": 0}):
        late = say(world, "late")
        with pytest.raises(Forbidden):
            actions.edit_message(world.alice, room_id=TEAM, message_id=late.id, content="later")
    assert actions.edit_message(world.alice, room_id=TEAM, message_id=late.id, content="any time").content == "any time"


def test_edited_mentions(world: World, events: list[Any]) -> None:
    dave = world.acme.create_user("dave")
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol, dave])

    def edit(content: str) -> tuple[list[str], list[str], bool]:
        events.clear()
        edited = actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
        assert edited == message_by_id(first.id)
        told = [event.notification for event in events if isinstance(event, NotificationCreated)]
        stored = {row.pk: row for row in Notification.objects.all()}
        for notification in told:
            row = stored[notification.id]
            assert (str(row.user_id), row.notification_text, row.message_id, row.created_at, row.is_read) == (
                notification.user_id,
                notification.text,
                notification.message_id,
                notification.created_at,
                notification.is_read,
            )
        names = {str(user.pk): user.username for user in world.acme.users.values()}
        return (
            [user.username for user in edited.mentioned_users],
            sorted(names[notification.user_id] for notification in told),
            edited.is_broadcast,
        )

    first = say(world, "@bob look")
    assert edit("@bob and @carol look") == (["bob", "carol"], ["carol"], False)
    assert edit("everybody look") == ([], [], True)
    assert edit("@carol, @dave, @bob, @nobody and @alice look") == (["carol", "dave", "bob"], ["dave"], False)
    assert Notification.objects.count() == 3
    assert [row.text for row in list_notifications(dave)] == ["alice mentioned you"]


def test_an_edit_tells_nobody_who_may_not_see_the_message(world: World, events: list[Any]) -> None:
    first = say(world, "look")
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    second = say(world, "look again")
    with world.globex.activated():
        theirs = actions.send_message(world.globex.users["alice"], room_id=TEAM, content="look").message
    events.clear()
    edited = actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="@carol @bob look")
    assert [user.username for user in edited.mentioned_users] == ["bob"]
    told = [event.notification.user_id for event in events if isinstance(event, NotificationCreated)]
    assert told == [str(world.bob.pk)]
    assert list_notifications(world.carol) == []
    # What she sees, she is told of; and what was said before, where newcomers see the history.
    actions.edit_message(world.alice, room_id=TEAM, message_id=second.id, content="@carol look again")
    dave = world.acme.create_user("dave")
    with override_settings(TENANT_MESSAGING={"NEW_MEMBERS_SEE_HISTORY": True}):
        actions.add_members(world.alice, room_id=TEAM, users=[dave])
    actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="@dave look")
    assert [len(list_notifications(user)) for user in (world.carol, dave)] == [1, 1]
    with world.globex.activated():
        assert message_by_id(theirs.id).content == "look"
        assert Notification.objects.count() == Mention.objects.count() == 0


def test_an_edit_tells_nobody_who_left_before_the_room_was_locked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    first = say(world, "@carol look")

    def resolve_and_leave(*args: Any, **options: Any) -> Any:
        found = resolve_mentions(*args, **options)
        actions.leave_room(world.bob, room_id=TEAM)
        actions.leave_room(world.carol, room_id=TEAM)
        return found

    monkeypatch.setattr(editing, "resolve_mentions", resolve_and_leave)
    edited = actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="@bob @carol look")
    assert edited.mentioned_users == ()
    assert list_notifications(world.bob) == []


def test_edit_of_a_direct_message_notifies_nobody_again(world: World, events: list[Any]) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    first = say(world, "hello", room=room.pk)
    events.clear()
    edited = actions.edit_message(world.alice, room_id=room.pk, message_id=first.id, content="hello @bob")
    assert [type(event) for event in events] == [MessageEdited]
    assert [user.username for user in edited.mentioned_users] == ["bob"]
    assert (edited.receiver, edited.is_broadcast) == (UserRef(str(world.bob.pk), "bob"), False)
    assert Notification.objects.count() == 1


def test_queries_of_changes(world: World) -> None:
    for _ in range(2):
        first = say(world, "one")
        with exactly(4):
            actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="two")
        with exactly(5):
            actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="@bob three")
        for number in range(20):
            actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=f"@bob @alice {number}")
        with exactly(4):
            assert len(list_revisions(world.bob, room_id=TEAM, message_id=first.id).revisions) == 22
        with exactly(4):
            actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
        with exactly(3):
            actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)


def test_rolled_back_changes_announce_nothing(world: World, events: list[Any], told: list[Any]) -> None:
    first = say(world, "one")
    events.clear()
    told.clear()
    with transaction.atomic():
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="two @bob")
        actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
        actions.rename_room(world.alice, room_id=TEAM, name="other")
        transaction.set_rollback(True)
    assert (events, told, head()) == ([], [], 1)
    assert message_by_id(first.id) == first
    with transaction.atomic():
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="two")
        actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
        assert told == []
    assert [type(event) for event in events] == [MessageEdited, MessageDeleted]
    assert [kind for kind, *_ in told] == ["edited", "deleted"]


# Deleting


@pytest.mark.parametrize("by", ["alice", "bob"])
def test_deleted_message(world: World, events: list[Any], told: list[Any], by: str) -> None:
    """Alice owns the room, bob wrote the message."""
    first = say(world, "a secret, @alice", sender=world.bob)
    actions.edit_message(world.bob, room_id=TEAM, message_id=first.id, content="a secret for @alice")
    reply = say(world, "is it?", reply_to=first.id)
    events.clear()
    told.clear()
    actor = world.acme.users[by]
    deleted = actions.delete_message(actor, room_id=TEAM, message_id=first.id)
    assert (deleted.id, deleted.seq, deleted.changed_seq, deleted.content) == (first.id, 1, 4, "")
    assert (deleted.mentioned_users, deleted.is_broadcast, deleted.edited_at) == ((), False, None)
    assert (deleted.sender, deleted.timestamp, deleted.client_id) == (first.sender, first.timestamp, first.client_id)
    assert deleted.deleted_at is not None
    assert deleted == message_by_id(first.id)
    author = UserRef(str(actor.pk), by)
    assert events == [MessageDeleted("acme", TEAM, 4, 3, deleted, author)]
    assert told == [("deleted", "acme", "", author)]
    for model in (Mention, Notification, MessageRevision):
        assert not model._default_manager.filter(message_id=first.id).exists()
    assert list_revisions(world.bob, room_id=TEAM, message_id=first.id).revisions == ()
    assert message_by_id(reply.id) == reply
    assert [message.id for message in room_history(world.bob, room_id=TEAM).messages] == [first.id, reply.id]
    # Nothing of the text is left in the tenant.
    for found in (Message.objects.values_list("content"), Notification.objects.values_list("notification_text")):
        assert not any("secret" in text for (text,) in found)


def test_deleting_again_changes_nothing(world: World, events: list[Any]) -> None:
    first = say(world, "one", sender=world.bob)
    deleted = actions.delete_message(world.bob, room_id=TEAM, message_id=first.id)
    events.clear()
    for actor in (world.bob, world.alice):
        assert actions.delete_message(actor, room_id=TEAM, message_id=first.id) == deleted
    assert (head(), events) == (2, [])
    with pytest.raises(Conflict):
        actions.edit_message(world.bob, room_id=TEAM, message_id=first.id, content="back again")
    with pytest.raises(Conflict):
        actions.edit_message(world.bob, room_id=TEAM, message_id=first.id, content="one")


def test_only_senders_and_owners_delete(world: World) -> None:
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    first = say(world, "one", sender=world.bob)
    with pytest.raises(Forbidden):
        actions.delete_message(world.carol, room_id=TEAM, message_id=first.id)
    actions.delete_message(world.bob, room_id=TEAM, message_id=first.id)
    with pytest.raises(Forbidden):
        actions.delete_message(world.carol, room_id=TEAM, message_id=first.id)


def test_direct_messages_are_deleted_by_their_sender_only(world: World) -> None:
    room = actions.open_direct_room(world.alice, other=world.bob)
    first = say(world, "one", room=room.pk)
    # Not even by who is called an owner there, which no code of ours makes.
    Membership.objects.filter(room=room).update(role=Membership.Role.OWNER)
    with pytest.raises(Forbidden):
        actions.delete_message(world.bob, room_id=room.pk, message_id=first.id)
    actions.delete_message(world.alice, room_id=room.pk, message_id=first.id)
    assert list_notifications(world.bob) == []


def test_deleted_messages_are_not_unread_and_end_the_list(world: World) -> None:
    group = actions.create_room(world.alice, name="quiet", members=[world.bob])
    say(world, "in the quiet one", room=group.pk)
    messages = [say(world, str(number)) for number in range(4)]
    say(world, "newest activity", room=group.pk)
    actions.delete_message(world.alice, room_id=TEAM, message_id=messages[1].id)
    last = actions.delete_message(world.alice, room_id=TEAM, message_id=messages[3].id)
    lines = list_conversations(world.bob)
    # Neither an edit nor a deletion brings a conversation to the top.
    actions.edit_message(world.alice, room_id=TEAM, message_id=messages[0].id, content="edited")
    assert [line.room.room_id for line in list_conversations(world.bob)] == [group.pk, TEAM]
    assert [(line.unread_count, line.last_message) for line in lines][1] == (2, last)
    actions.mark_read(world.bob, room_id=TEAM, seq=head())
    assert list_conversations(world.bob)[1].unread_count == 0


# Sends that are repeated after the message was changed


def test_a_send_repeated_after_an_edit_is_the_same_message(world: World, told: list[Any]) -> None:
    client_id = uuid4()
    first = say(world, "one", client_id=client_id)
    for content in ("two", "three", "four"):
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
    repeated = actions.send_message(world.alice, room_id=TEAM, content="one", client_id=client_id)
    assert (repeated.message, repeated.duplicate) == (message_by_id(first.id), True)
    for other in ("three", "four"):
        with pytest.raises(Conflict):
            actions.send_message(world.alice, room_id=TEAM, content=other, client_id=client_id)
    assert [kind for kind, *_ in told] == ["sent", "edited", "edited", "edited"]


def test_a_send_repeated_after_the_deletion_is_the_same_message(world: World) -> None:
    client_id = uuid4()
    first = say(world, "one", client_id=client_id)
    deleted = actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
    repeated = actions.send_message(world.alice, room_id=TEAM, content="one", client_id=client_id)
    assert (repeated.message, repeated.duplicate, Message.objects.count()) == (deleted, True, 1)
    with pytest.raises(Conflict):
        actions.send_message(world.alice, room_id=TEAM, content="one", client_id=client_id, reply_to=first.id)


# Earlier versions


def test_earlier_versions_are_read_in_pages(world: World) -> None:
    first = say(world, "0")
    for number in range(1, 6):
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=str(number))

    def page(**place: int) -> RevisionPage:
        return list_revisions(world.bob, room_id=TEAM, message_id=first.id, **place)

    newest = page(limit=2)
    assert ([revision.content for revision in newest.revisions], newest.has_before) == (["3", "4"], True)
    for limit in (3, 50):
        older = page(before=newest.revisions[0].id, limit=limit)
        assert ([revision.content for revision in older.revisions], older.has_before) == (["0", "1", "2"], False)
    assert page(before=0) == RevisionPage((), has_before=False)
    for limit in (0, 201, -1):
        with pytest.raises(Invalid):
            list_revisions(world.bob, room_id=TEAM, message_id=first.id, limit=limit)


def test_pages_of_earlier_versions_end_early_where_they_are_long(world: World, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"HISTORY_PAGE_BYTES": 3 * (2_000 + 512)}
    first = say(world, "0")
    for number in range(1, 9):
        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=str(number) + "\u00e9" * 999)
    before, pages = None, []
    for _ in range(3):
        page = list_revisions(world.bob, room_id=TEAM, message_id=first.id, before=before)
        pages.append(("".join(revision.content[0] for revision in page.revisions), page.has_before))
        before = page.revisions[0].id
    assert pages == [("567", True), ("234", True), ("01", False)]


# Renaming


def test_renamed_room(world: World, events: list[Any], told: list[Any]) -> None:
    with exactly(4):
        renamed = actions.rename_room(world.bob, room_id=TEAM, name="Cafe\u0301")
    assert (renamed.room_id, renamed.name, renamed.seq) == (TEAM, "Caf\u00e9", 1)
    assert events == [RoomRenamed("acme", TEAM, 1, 0, "Caf\u00e9")]
    assert told == [("renamed", "acme", TEAM, "Caf\u00e9")]
    assert list_conversations(world.alice)[0].room.name == "Caf\u00e9"
    assert ChatRoom.objects.get(pk=TEAM).changed_seq == 1
    # The same again takes no number.
    assert actions.rename_room(world.alice, room_id=TEAM, name="Caf\u00e9").seq == 1
    assert len(events) == len(told) == 1
    with world.globex.activated():
        assert ChatRoom.objects.get(pk=TEAM).name == "theirs"


@pytest.mark.parametrize("name", ["", "   ", "x" * 121, "a\0b", "\ud800"])
def test_names_that_are_refused(world: World, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        actions.rename_room(world.alice, room_id=TEAM, name=name)
    assert [error["field"] for error in caught.value.details["errors"]] == ["name"]
    assert ChatRoom.objects.get(pk=TEAM).name == "team"


def test_who_may_not_rename(world: World) -> None:
    for room_id in (TEAM, THEIRS, 999, 0, -1, 2**63):
        with pytest.raises(NotFound):
            actions.rename_room(world.carol, room_id=room_id, name="mine")
    direct = actions.open_direct_room(world.alice, other=world.bob)
    with pytest.raises(Forbidden):
        actions.rename_room(world.alice, room_id=direct.pk, name="us")
    assert (head(), head(direct.pk)) == (0, 0)


# Reading it back


def test_changes_come_once_as_they_are_now(world: World) -> None:
    first, second, third = (say(world, content) for content in ("one", "two", "three"))
    actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="uno")
    actions.rename_room(world.bob, room_id=TEAM, name="crew")
    actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content="un")
    actions.rename_room(world.bob, room_id=TEAM, name="us")
    actions.delete_message(world.alice, room_id=TEAM, message_id=third.id)
    with exactly(4):
        changes = read_changes(TEAM, after=0, limit=10)
    found = [
        (type(event).__name__, event.after, event.seq, getattr(event, "name", None) or event.message.content)  # type: ignore[attr-defined]
        for event in changes.events
    ]
    assert found == [
        ("MessagePosted", 0, 2, "two"),
        ("MessageChanged", 2, 6, "un"),
        ("RoomRenamed", 6, 7, "us"),
        ("MessageChanged", 7, 8, ""),
    ]
    assert (changes.seq, changes.complete) == (8, True)
    # A part that ends before the renaming doesn't tell of it.
    part = read_changes(TEAM, after=0, limit=2)
    assert ([event.seq for event in part.events], part.seq, part.complete) == ([2, 6], 6, False)
    assert [event.seq for event in read_changes(TEAM, after=7, limit=10).events] == [8]
    assert second.changed_seq == 2


# At the same time


def test_many_edits_at_once_lose_no_text(world: World) -> None:
    """Each text is either the message's or one of its versions, and the mentions are those of the last."""
    actions.add_members(world.alice, room_id=TEAM, users=[world.carol])
    first = say(world, "start")
    names = ("@bob", "@carol", "")
    contents = [f"{number} {names[number % 3]}" for number in range(48)]

    def edit(share: list[str]) -> list[int]:
        with world.acme.activated():
            edited = [
                actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
                for content in share
            ]
            return [message.changed_seq for message in edited]

    seqs = together(*(lambda share=contents[start::8]: edit(share) for start in range(8)))
    assert sorted(seq for found in seqs for seq in found) == list(range(3, 51))
    last = message_by_id(first.id)
    assert sorted([*texts_before(first.id), last.content]) == sorted(["start", *contents])
    assert texts_before(first.id)[0] == "start"
    assert last.changed_seq == head() == 50
    mentioned = [user.username for user in last.mentioned_users]
    assert mentioned == [name for name in ("bob", "carol") if name in last.content]
    assert Notification.objects.filter(message_id=first.id).count() == 2
    revisions = list_revisions(world.bob, room_id=TEAM, message_id=first.id).revisions
    assert all(one.replaced_at == other.written_at for one, other in pairwise(revisions))


def test_two_edits_to_the_same_text_take_one_number(world: World) -> None:
    first = say(world, "one")
    for number in range(5):
        edit = in_acme(
            world, actions.edit_message, world.alice, room_id=TEAM, message_id=first.id, content=f"@bob {number}"
        )
        together(*[edit] * 6)
        assert (head(), len(texts_before(first.id))) == (number + 2, number + 1)
    assert Notification.objects.count() == 1


def test_edits_and_the_deletion_at_once(world: World) -> None:
    """Whatever comes first, nothing of the text is left; edits after the deletion are refused."""
    for turn in range(8):
        first = say(world, "a secret")
        before = head()

        def edit(number: int, first: MessageData = first) -> int:
            done = 0
            with world.acme.activated():
                for step in range(10):
                    try:
                        content = f"@bob {number}.{step}"
                        actions.edit_message(world.alice, room_id=TEAM, message_id=first.id, content=content)
                    except Conflict:
                        break
                    done += 1
            return done

        def delete(first: MessageData = first, enough: int = before + turn) -> int:
            with world.acme.activated():
                while head() < enough:
                    pass
                actions.delete_message(world.alice, room_id=TEAM, message_id=first.id)
            return 1

        done = together(lambda: edit(1), lambda: edit(2), delete, delete)
        deleted = message_by_id(first.id)
        assert (deleted.content, deleted.mentioned_users, deleted.edited_at) == ("", (), None)
        assert deleted.deleted_at is not None
        assert deleted.changed_seq == head() == before + done[0] + done[1] + 1
        for model in (Mention, Notification, MessageRevision):
            assert not model._default_manager.filter(message_id=first.id).exists()


def test_nothing_of_the_removed_is_changed_after_the_removal(world: World) -> None:
    crowd = [world.acme.create_user(f"user{number}") for number in range(6)]
    actions.add_members(world.alice, room_id=TEAM, users=crowd)
    messages = {user: say(world, "mine", sender=user) for user in crowd}

    def edit_until_refused(user: User) -> int:
        edits = 0
        with world.acme.activated():
            while edits < 1_000:
                try:
                    actions.edit_message(user, room_id=TEAM, message_id=messages[user].id, content=str(edits))
                except NotFound:
                    break
                edits += 1
        return edits

    def remove_all() -> int:
        with world.acme.activated():
            for user in crowd:
                while not Message.objects.filter(sender=user, edited_at__isnull=False).exists():
                    pass
                actions.remove_member(world.alice, room_id=TEAM, user=user)
        return 0

    edits = together(remove_all, *(lambda user=user: edit_until_refused(user) for user in crowd))[1:]
    for user, count in zip(crowd, edits, strict=True):
        left_seq = Membership.objects.get(room_id=TEAM, user=user).left_seq
        message = message_by_id(messages[user].id)
        assert 0 < count < 1_000
        assert (message.content, len(texts_before(message.id))) == (str(count - 1), count)
        assert left_seq is not None
        assert message.changed_seq < left_seq


def test_a_hosts_transaction_locks_in_the_same_order(world: World) -> None:
    """A send holds the counter when the edit or the deletion after it wants the message."""
    first = say(world, "first", sender=world.bob)

    def send_and_change(number: int) -> int:
        with world.acme.activated():
            for step in range(15):
                with transaction.atomic():
                    say(world, "along", sender=world.bob)
                    actions.rename_room(world.bob, room_id=TEAM, name=f"{number} {step}")
                    actions.edit_message(world.bob, room_id=TEAM, message_id=first.id, content=f"{number} {step}")
        return 0

    def change(number: int) -> int:
        with world.acme.activated():
            for step in range(30):
                actions.edit_message(world.bob, room_id=TEAM, message_id=first.id, content=f"{number} {step}")
                actions.rename_room(world.alice, room_id=TEAM, name=f"{number} {step}")
        return 0

    together(
        *(lambda number=number: send_and_change(number) for number in range(2)),
        *(lambda number=number: change(number) for number in range(2, 4)),
    )
    assert head() == 1 + 2 * 15 * 3 + 2 * 30 * 2


def test_everything_at_once_without_deadlock(world: World) -> None:
    """Eight threads send, answer, edit, delete, read, rename, add and remove in two rooms."""
    crowd = [world.acme.create_user(f"user{number}") for number in range(4)]
    actions.add_members(world.alice, room_id=TEAM, users=crowd)
    direct = actions.open_direct_room(world.alice, other=world.bob)
    targets = [say(world, f"target {number}", sender=crowd[number % 4]).id for number in range(4)]
    private = say(world, "private", room=direct.pk).id

    def changes(number: int, step: int) -> list[Callable[[], Any]]:
        actor, other = crowd[number % 4], crowd[(number + 1) % 4]
        target, text = targets[number % 4], f"{number} {step} @{crowd[step % 4].username} @bob"
        return [
            lambda: say(world, text, sender=actor, reply_to=target),
            lambda: actions.edit_message(actor, room_id=TEAM, message_id=target, content=text),
            lambda: actions.mark_read(actor, room_id=TEAM, seq=head()),
            lambda: actions.edit_message(world.alice, room_id=direct.pk, message_id=private, content=text),
            lambda: actions.mark_read(world.bob, room_id=direct.pk, seq=head(direct.pk)),
            lambda: actions.mark_notifications_read(world.bob),
            lambda: actions.rename_room(actor, room_id=TEAM, name=text),
            lambda: actions.delete_message(world.alice, room_id=TEAM, message_id=say(world, text, sender=actor).id),
            lambda: actions.remove_member(world.alice, room_id=TEAM, user=other),
            lambda: actions.add_members(world.alice, room_id=TEAM, users=crowd),
        ]

    def churn(number: int) -> list[str]:
        refusals = []
        with world.acme.activated():
            for step in range(12):
                for change in changes(number, step)[step % 3 :]:
                    try:
                        change()
                    except MessagingError as error:
                        refusals.append(error.code)
        return refusals

    with override_settings(TENANT_MESSAGING={"NEW_MEMBERS_SEE_HISTORY": True}):
        refusals, failures = outcomes(*(lambda number=number: churn(number) for number in range(8)))
    assert failures == []
    assert {code for codes in refusals for code in codes} <= {"not_found"}
    for room_id in (TEAM, direct.pk):
        found = read_changes(room_id, after=0, limit=10_000)
        assert (found.seq, found.complete) == (head(room_id), True)
        seqs = [event.seq for event in found.events]
        assert seqs == sorted(set(seqs))
    assert not Message.objects.filter(changed_seq__lt=F("seq")).exists()
