"""Several messages in one statement: what each gets, what it costs, and many batches at once."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_tenant_messaging import actions, signals
from django_tenant_messaging.actions import Draft, send_messages, send_messages_where_free
from django_tenant_messaging.actions.sending import writing as sending
from django_tenant_messaging.exceptions import Conflict, Invalid, MessagingError, NotFound
from django_tenant_messaging.models import ChatRoom, Membership, Mention, Message, Notification, RoomCounter
from django_tenant_messaging.selectors import message_by_id
from django_tenant_messaging.types import SentMessage
from tests.harness.queries import exactly
from tests.harness.tenants import empty_tenants
from tests.harness.together import together
from tests.harness.world import TEAM, THEIRS, made_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.auth.models import User

    from tests.harness.tenants import Tenant
    from tests.harness.world import World

Send = "Callable[[Sequence[Draft]], list[SentMessage | Exception | None]]"
both = pytest.mark.parametrize("send", [send_messages, send_messages_where_free])


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The texts of which `message_sent` told."""
    seen: list[str] = []

    def receiver(message: Any, **_kwargs: Any) -> None:
        assert message_by_id(message.id) == message
        seen.append(message.content)

    signals.message_sent.connect(receiver)
    yield seen
    signals.message_sent.disconnect(receiver)


def head(room_id: int = TEAM) -> int:
    return RoomCounter.objects.get(room_id=room_id).last_seq


def sent(answer: Any) -> SentMessage:
    assert isinstance(answer, SentMessage), answer
    return answer


def timeline(room_id: int) -> list[tuple[int, str]]:
    return list(Message.objects.filter(room_id=room_id).order_by("seq").values_list("seq", "content"))


@contextmanager
def locked(database_url: str, schema_name: str, table: str, condition: str) -> Iterator[psycopg.Connection[Any]]:
    """Lock rows as somebody else."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(f'SELECT 1 FROM "{schema_name}".{table} WHERE {condition} FOR UPDATE').fetchall()
        assert rows
        yield connection


@contextmanager
def short_patience() -> Iterator[None]:
    """Fail rather than wait for a lock for ever."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        yield


def counter_of(room_id: int) -> tuple[str, str]:
    return RoomCounter._meta.db_table, f"room_id = {room_id}"


def place_of(user: User, room_id: int) -> tuple[str, str]:
    return Membership._meta.db_table, f"room_id = {room_id} AND user_id = {user.pk}"


# What each gets


@both
def test_rooms_of_all_kinds_at_once(world: World, send: Any, told: list[str]) -> None:
    direct = actions.open_direct_room(world.alice, other=world.bob).pk
    other = actions.create_room(world.bob, name="other", members=[world.carol]).pk
    first = actions.send_message(world.bob, room_id=TEAM, content="first").message
    drafts = [
        Draft(world.alice, TEAM, "to the team"),
        Draft(world.alice, direct, "to you"),
        Draft(world.bob, other, "@carol look, @alice isn't here"),
        Draft(world.bob, TEAM, "@alice and all", reply_to=first.id),
        Draft(world.bob, direct, "@alice back"),
        Draft(world.alice, TEAM, "last"),
    ]
    answers = [sent(answer).message for answer in send(drafts)]
    assert [message_by_id(answer.id) for answer in answers] == answers
    assert [(answer.room_id, answer.seq) for answer in answers] == [
        (TEAM, 2),
        (direct, 1),
        (other, 1),
        (TEAM, 3),
        (direct, 2),
        (TEAM, 4),
    ]
    assert [answer.content for answer in answers] == [draft.content for draft in drafts]
    mentioned = [[user.username for user in answer.mentioned_users] for answer in answers]
    assert mentioned == [[], [], ["carol"], ["alice"], ["alice"], []]
    assert [answer.receiver and answer.receiver.username for answer in answers] == [
        None,
        "bob",
        None,
        None,
        "alice",
        None,
    ]
    assert [answer.is_broadcast for answer in answers] == [True, False, False, False, False, True]
    assert answers[3].reply_to is not None
    assert answers[3].reply_to.id == first.id
    notifications = Notification.objects.order_by("message__seq", "pk")
    assert sorted(notifications.values_list("user__username", "notification_text", "message_id")) == sorted(
        [
            ("bob", "You have a new message from alice", answers[1].id),
            ("carol", "bob mentioned you", answers[2].id),
            ("alice", "bob mentioned you", answers[3].id),
            ("alice", "You have a new message from bob", answers[4].id),
        ]
    )
    assert told == ["first", *(draft.content for draft in drafts)]
    with world.globex.activated():
        assert not Message.objects.exists()
        assert (head(TEAM), head(THEIRS)) == (0, 0)


@both
def test_nothing_to_send(world: World, send: Any) -> None:
    with exactly(0):
        assert send([]) == []


@both
def test_a_bad_one_fails_alone(world: World, send: Any, told: list[str]) -> None:
    used = uuid4()
    actions.send_message(world.alice, room_id=TEAM, content="used", client_id=used)
    gone = world.acme.create_user("gone")
    actions.add_members(world.alice, room_id=TEAM, users=[gone])
    Membership.objects.get(user=gone)
    type(gone).objects.filter(pk=gone.pk).delete()
    told.clear()
    drafts = [
        Draft(world.alice, TEAM, "1"),
        Draft(world.alice, TEAM, ""),
        Draft(world.bob, TEAM, "nul\0"),
        Draft(world.bob, TEAM, "2"),
        Draft(world.carol, TEAM, "a stranger"),
        Draft(world.alice, 999, "no room"),
        Draft(world.alice, 2**70, "no number"),
        Draft(world.bob, TEAM, "3"),
        Draft(world.bob, TEAM, "no such", reply_to=12345),
        Draft(world.bob, TEAM, "no number", reply_to=-1),
        Draft(world.alice, TEAM, "another text", client_id=used),
        Draft(world.alice, TEAM, "used", client_id=used),
        Draft(gone, TEAM, "a ghost"),
        Draft(world.alice, TEAM, "4"),
    ]
    answers = send(drafts)
    kinds = [type(answer) for answer in answers]
    assert kinds == [
        SentMessage,
        Invalid,
        Invalid,
        SentMessage,
        NotFound,
        NotFound,
        NotFound,
        SentMessage,
        NotFound,
        NotFound,
        Conflict,
        SentMessage,
        NotFound,
        SentMessage,
    ]
    assert sent(answers[11]).duplicate
    assert timeline(TEAM) == [(1, "used"), (3, "1"), (4, "2"), (5, "3"), (6, "4")]
    assert told == ["1", "2", "3", "4"]
    assert head() == 6


@both
def test_repeats_within_a_batch(world: World, send: Any, told: list[str]) -> None:
    one, two = uuid4(), uuid4()
    drafts = [
        Draft(world.alice, TEAM, "once", client_id=one),
        Draft(world.alice, TEAM, "once", client_id=one),
        Draft(world.bob, TEAM, "once", client_id=one),
        Draft(world.alice, TEAM, "another", client_id=one),
        Draft(world.alice, TEAM, "", client_id=two),
        Draft(world.alice, TEAM, "twice", client_id=two),
        Draft(world.alice, TEAM, "once", client_id=one),
        Draft(world.alice, TEAM, "twice", client_id=two),
    ]
    answers = send(drafts)
    first = sent(answers[0])
    assert not first.duplicate
    assert answers[1] == answers[6] == SentMessage(first.message, duplicate=True)
    assert not sent(answers[2]).duplicate
    assert isinstance(answers[3], Conflict)
    assert isinstance(answers[4], Invalid)
    assert answers[7] == SentMessage(sent(answers[5]).message, duplicate=True)
    assert [content for _seq, content in timeline(TEAM)] == ["once", "once", "twice"]
    assert sorted(told) == ["once", "once", "twice"]
    assert head() == 3


@both
def test_a_repeat_of_what_failed_is_tried_by_itself(world: World, send: Any) -> None:
    """The first says nothing about the second but that their client ids are equal."""
    key = uuid4()
    drafts = [
        Draft(world.alice, THEIRS, "no member there", client_id=key),
        Draft(world.alice, TEAM, "here", client_id=key),
        Draft(world.alice, TEAM, "here", client_id=key),
        Draft(world.alice, THEIRS, "no member there", client_id=key),
    ]
    answers = send(drafts)
    assert isinstance(answers[0], NotFound)
    assert not sent(answers[1]).duplicate
    assert answers[2] == SentMessage(sent(answers[1]).message, duplicate=True)
    assert isinstance(answers[3], Conflict)


@both
def test_order_of_numbers_ids_and_times_is_the_order_of_the_drafts(world: World, send: Any) -> None:
    rooms = [TEAM, *(actions.create_room(world.alice, name=f"{number}").pk for number in range(7))]
    drafts = [Draft(world.alice, rooms[number * 5 % 8], f"{number:02}") for number in range(100)]
    assert {type(answer) for answer in send(drafts)} == {SentMessage}
    for room_id in rooms:
        rows = list(Message.objects.filter(room_id=room_id).order_by("seq"))
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        contents = [row.content for row in rows]
        assert contents == sorted(contents)
        assert [row.pk for row in rows] == sorted(row.pk for row in rows)
        assert [row.timestamp for row in rows] == sorted(row.timestamp for row in rows)


# What it costs


@both
@pytest.mark.parametrize("number", [1, 10, 100])
def test_queries(world: World, send: Any, number: int) -> None:
    direct = actions.open_direct_room(world.alice, other=world.bob).pk
    first = actions.send_message(world.alice, room_id=TEAM, content="first").message
    with exactly(1):
        send([Draft(world.alice, (TEAM, direct)[turn % 2], "plain") for turn in range(number)])
    with exactly(1):
        send([Draft(world.alice, TEAM, "answer", reply_to=first.id) for _ in range(number)])
    with exactly(2):
        send([Draft(world.alice, TEAM, f"@bob @carol {turn}") for turn in range(number)])


@both
def test_queries_of_repeats(world: World, send: Any) -> None:
    key = uuid4()
    with exactly(1):
        send([Draft(world.alice, TEAM, "once", client_id=key)] * 50)
    with exactly(3):
        send([Draft(world.alice, TEAM, "once", client_id=key)] * 50)
    with exactly(1):
        send([Draft(world.carol, TEAM, "a stranger")] * 50)


# In the host's transaction


@both
def test_in_a_transaction(world: World, send: Any, told: list[str]) -> None:
    with transaction.atomic():
        answers = send([Draft(world.alice, TEAM, "1"), Draft(world.carol, TEAM, "a stranger")])
        assert [type(answer) for answer in answers] == [SentMessage, NotFound]
        assert told == []
    assert told == ["1"]
    with transaction.atomic():
        send([Draft(world.alice, TEAM, "2")])
        transaction.set_rollback(True)
    assert (told, timeline(TEAM), head()) == (["1"], [(1, "1")], 1)


@both
def test_what_the_database_refuses_fails_alone(world: World, send: Any, told: list[str], database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as other:
        table = f'"acme".{Message._meta.db_table}'
        other.execute(f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK (content <> 'refused')")
        try:
            drafts = [Draft(world.alice, TEAM, content) for content in ("1", "refused", "2", "refused", "3")]
            for scope in (ExitStack(), transaction.atomic()):
                with scope:
                    answers = send([Draft(draft.actor, draft.room_id, draft.content) for draft in drafts])
                    kinds = [isinstance(answer, SentMessage) for answer in answers]
                    assert kinds == [True, False, True, False, True]
                    # The host's transaction goes on.
                    assert Message.objects.exists()
        finally:
            other.execute(f"ALTER TABLE {table} DROP CONSTRAINT refused")
    assert told == ["1", "2", "3"] * 2
    assert timeline(TEAM) == list(enumerate(["1", "2", "3"] * 2, 1))


# Locked rows


def test_where_free_passes_over_a_locked_room(world: World, database_url: str, told: list[str]) -> None:
    other = actions.create_room(world.alice, name="other", members=[world.bob]).pk
    drafts = [Draft(world.alice, room_id, f"{room_id}") for room_id in (TEAM, other, TEAM, other)]
    with locked(database_url, "acme", *counter_of(TEAM)):
        answers = send_messages_where_free(drafts)
        assert [answer if answer is None else sent(answer).message.seq for answer in answers] == [None, 1, None, 2]
    assert (timeline(TEAM), told) == ([], [f"{other}"] * 2)
    assert [sent(answer).message.seq for answer in send_messages_where_free([drafts[0], drafts[2]])] == [1, 2]


def test_where_free_passes_over_a_locked_member(world: World, database_url: str) -> None:
    drafts = [Draft(world.bob, TEAM, "bob's"), Draft(world.alice, TEAM, "alice's")]
    with locked(database_url, "acme", *place_of(world.bob, TEAM)):
        assert [answer is None for answer in send_messages_where_free(drafts)] == [True, False]
    assert [answer is None for answer in send_messages_where_free(drafts)] == [False, False]


def test_a_repeat_of_what_is_locked_is_passed_over_too(world: World, database_url: str) -> None:
    draft = Draft(world.alice, TEAM, "once")
    with locked(database_url, "acme", *counter_of(TEAM)):
        assert send_messages_where_free([draft, draft]) == [None, None]


def test_nothing_overtakes_what_was_passed_over(world: World, database_url: str) -> None:
    """The second has the first one's client id: which of them conflicts is decided by their order."""
    other = actions.create_room(world.alice, name="other", members=[world.bob]).pk
    first = Draft(world.alice, TEAM, "first")
    drafts = [first, Draft(world.alice, other, "second", first.client_id), Draft(world.alice, other, "third")]
    with locked(database_url, "acme", *counter_of(TEAM)):
        assert send_messages_where_free(drafts) == [None, None, None]
    assert [type(answer) for answer in send_messages_where_free(drafts)] == [SentMessage, Conflict, SentMessage]


@pytest.mark.parametrize("whose", ["sender", "receiver", "mentioned"])
def test_where_free_waits_for_no_user(world: World, database_url: str, whose: str) -> None:
    """A host may hold a user's row for as long as it likes; other people's messages have nothing to do with that."""
    user = {"sender": world.carol, "receiver": world.bob, "mentioned": world.bob}[whose]
    lonely = actions.create_room(world.carol, name="lonely").pk
    direct = actions.open_direct_room(world.carol, other=world.bob).pk
    busy = {
        "sender": Draft(world.carol, lonely, "hello?"),
        "receiver": Draft(world.carol, direct, "hello"),
        "mentioned": Draft(world.alice, TEAM, "@bob"),
    }[whose]
    free = Draft(world.alice, actions.create_room(world.alice, name="free").pk, "free")
    after = Draft(busy.actor, busy.room_id, "not before what I said first")
    with locked(database_url, "acme", "auth_user", f"id = {user.pk}"), short_patience():
        answers = send_messages_where_free([busy, free, after])
        assert (answers[0], answers[2]) == (None, None)
        sent(answers[1])
    first, second = (sent(answer).message for answer in send_messages_where_free([busy, after]))
    assert first.seq + 1 == second.seq


def test_where_free_waits_for_no_message_that_is_answered(world: World, database_url: str) -> None:
    first = actions.send_message(world.bob, room_id=TEAM, content="first").message
    drafts = [
        Draft(world.alice, TEAM, "before"),
        Draft(world.alice, TEAM, "answer", reply_to=first.id),
        Draft(world.alice, TEAM, "after"),
        Draft(world.bob, TEAM, "bob's"),
    ]
    with locked(database_url, "acme", Message._meta.db_table, f"id = {first.id}"), short_patience():
        assert [answer is None for answer in send_messages_where_free(drafts)] == [False, True, True, False]
    assert {type(answer) for answer in send_messages_where_free(drafts[1:3])} == {SentMessage}
    assert [content for _seq, content in timeline(TEAM)] == ["first", "before", "bob's", "answer", "after"]


def test_where_free_waits_for_no_room(world: World, database_url: str) -> None:
    other = actions.create_room(world.alice, name="other").pk
    drafts = [Draft(world.alice, TEAM, "busy"), Draft(world.alice, other, "free")]
    with locked(database_url, "acme", ChatRoom._meta.db_table, f"id = {TEAM}"), short_patience():
        assert [answer is None for answer in send_messages_where_free(drafts)] == [True, False]


def test_one_by_one_nothing_overtakes_what_was_passed_over(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room becomes free between two of the messages that are tried by themselves."""
    execute, executed = sending._execute, []
    with ExitStack() as stack:
        stack.enter_context(locked(database_url, "acme", *counter_of(TEAM)))

        def executing(rows: Any, of_locked: Any) -> Any:
            executed.append([row.content for row in rows])
            if len(executed) == 1:
                raise IntegrityError
            answers = execute(rows, of_locked)
            stack.close()
            return answers

        monkeypatch.setattr(sending, "_execute", executing)
        answers = send_messages_where_free([Draft(world.alice, TEAM, "1"), Draft(world.alice, TEAM, "2")])
    assert answers == [None, None]
    assert executed == [["1", "2"], ["1"]]


# At the same time


class Removal:
    """A removal that has locked the rows and hasn't committed yet."""

    def __init__(self, world: World, user: User) -> None:
        self.world, self.user = world, user
        self.has_removed, self.may_commit = threading.Event(), threading.Event()

    def run(self) -> None:
        with self.world.acme.activated(), transaction.atomic():
            actions.remove_member(self.world.alice, room_id=TEAM, user=self.user)
            self.has_removed.set()
            assert self.may_commit.wait(20)


def wait_until_blocked(database_url: str) -> None:
    """Wait until somebody waits for a lock."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(2_000):
            (number,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchone() or (0,)
            if number:
                return
            threading.Event().wait(0.005)
    raise AssertionError("nobody waits")


def test_who_is_removed_while_a_send_waits_is_refused_and_nobody_else(world: World, database_url: str) -> None:
    removal = Removal(world, world.bob)

    def send() -> Any:
        assert removal.has_removed.wait(20)
        with world.acme.activated():
            drafts = [Draft(world.bob, TEAM, "too late"), Draft(world.alice, TEAM, "still here")]
            return send_messages(drafts)

    def commit() -> None:
        assert removal.has_removed.wait(20)
        wait_until_blocked(database_url)
        removal.may_commit.set()

    _none, answers, _none = together(removal.run, send, commit)
    assert isinstance(answers[0], NotFound)
    assert sent(answers[1]).message.seq == 2
    assert timeline(TEAM) == [(2, "still here")]


def test_a_send_alone_that_waits_for_its_removal_is_refused(world: World, database_url: str) -> None:
    removal = Removal(world, world.bob)

    def send() -> Any:
        assert removal.has_removed.wait(20)
        with world.acme.activated():
            try:
                return actions.send_message(world.bob, room_id=TEAM, content="too late")
            except MessagingError as error:
                return error

    def commit() -> None:
        assert removal.has_removed.wait(20)
        wait_until_blocked(database_url)
        removal.may_commit.set()

    assert isinstance(together(removal.run, send, commit)[1], NotFound)


@pytest.mark.parametrize("send", [send_messages, send_messages_where_free])
def test_a_sender_who_is_being_deleted(world: World, database_url: str, send: Any) -> None:
    """The deletion holds the user's row and then wants the memberships; a send the other way round would be stuck."""
    has_user, done = threading.Event(), threading.Event()

    def delete() -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("SET search_path TO acme, public")
            connection.execute("SELECT 1 FROM auth_user WHERE id = %s FOR UPDATE", [world.bob.pk])
            has_user.set()
            done.wait(1)
            connection.execute("DELETE FROM auth_user WHERE id = %s", [world.bob.pk])

    def write() -> Any:
        assert has_user.wait(20)
        with world.acme.activated():
            answers = send([Draft(world.bob, TEAM, "a ghost"), Draft(world.alice, TEAM, "alive")])
            if answers[0] is None:
                done.set()
                answers[0] = send_messages([Draft(world.bob, TEAM, "a ghost")])[0]
        return answers

    _none, answers = together(delete, write)
    assert isinstance(answers[0], NotFound)
    sent(answers[1])
    assert [content for _seq, content in timeline(TEAM)] == ["alive"]


@pytest.mark.parametrize("send", [send_messages, send_messages_where_free])
def test_many_batches_over_the_same_rooms(world: World, send: Any, told: list[str]) -> None:
    """No two wait for each other in a circle, no number is burnt, and every sender's order is kept in each room."""
    crowd = [world.acme.create_user(f"user{number}") for number in range(6)]
    rooms = [actions.create_room(world.alice, name=f"{number}", members=crowd).pk for number in range(6)]

    def flood(user: User, seed: int) -> list[tuple[int, int, str]]:
        dice = random.Random(seed)  # noqa: S311 - the same course each time
        acknowledged = []
        with world.acme.activated():
            waiting = [Draft(user, dice.choice(rooms), f"{user} {turn}") for turn in range(120)]
            while waiting:
                batch = waiting[: dice.randint(1, 20)]
                answers = send(batch)
                waiting = waiting[len(batch) :]
                again = []
                for draft, answer in zip(batch, answers, strict=True):
                    if answer is None:
                        again.append(draft)
                    else:
                        message = sent(answer).message
                        acknowledged.append((message.room_id, message.seq, message.content))
                waiting = again + waiting
        return acknowledged

    found = together(*(lambda user=user, seed=seed: flood(user, seed) for seed, user in enumerate(crowd)))
    everything = sorted(item for own in found for item in own)
    stored = sorted((room_id, seq, content) for room_id in rooms for seq, content in timeline(room_id))
    assert everything == stored
    assert len(stored) == 720
    for room_id in rooms:
        seqs = [seq for room, seq, _content in stored if room == room_id]
        assert seqs == list(range(1, len(seqs) + 1))
        assert head(room_id) == len(seqs)
    for user in crowd:
        for room_id in rooms:
            own = [content for _seq, content in timeline(room_id) if content.startswith(f"{user} ")]
            turns = [int(content.split()[1]) for content in own]
            assert turns == sorted(turns)
    assert len(told) == 720


def test_client_ids_used_crosswise_fail_for_nobody_else(world: World, database_url: str) -> None:
    """Two that wait at each other's unique keys: the database ends one of them, here ours."""
    rooms = [actions.create_room(world.alice, name=f"{number}", members=[world.bob]).pk for number in range(2)]
    keys = [uuid4(), uuid4()]
    insert = (
        f'INSERT INTO "acme".{Message._meta.db_table} (room_id, seq, changed_seq, sender_id, content, timestamp,'
        " is_read, client_id) VALUES (%s, %s, %s, %s, 'elsewhere', now(), false, %s)"
    )
    has_first = threading.Event()

    def elsewhere() -> None:
        with psycopg.connect(database_url) as connection:
            connection.execute("SET search_path TO acme, public; SET deadlock_timeout = '60s'")
            connection.execute(insert, [rooms[1], 1, 1, world.alice.pk, keys[1]])
            has_first.set()
            wait_until_blocked(database_url)
            connection.execute(insert, [rooms[1], 2, 2, world.alice.pk, keys[0]])

    def here() -> Any:
        assert has_first.wait(20)
        with world.acme.activated():
            drafts = [Draft(world.alice, rooms[0], f"{key}", client_id=key) for key in keys]
            return send_messages_where_free([*drafts, Draft(world.bob, rooms[0], "innocent")])

    _none, answers = together(elsewhere, here)
    assert [type(answer) for answer in answers] == [Conflict, Conflict, SentMessage]
    assert timeline(rooms[0]) == [(1, "innocent")]


# Compared with sending one by one


@dataclass(frozen=True)
class Plan:
    """A draft in words that mean the same in both tenants."""

    sender: str
    room: int
    content: str
    key: int
    reply_to: int | None


PLANS = st.lists(
    st.builds(
        Plan,
        st.sampled_from(["alice", "bob", "carol"]),
        st.integers(1, 4),
        st.sampled_from(["", "a", "b", "@bob hi", "@alice @carol", "e\u0301", "\0"]),
        st.integers(0, 9),
        # Of what was there before: the ids of the batch's own messages are known after the commit.
        st.none() | st.sampled_from([1, 2, 1_000]),
    ),
    min_size=1,
    max_size=14,
)


@given(PLANS, st.sampled_from([send_messages, send_messages_where_free]))
@example(
    # The second has to wait for what becomes of the first, and the third must not overtake it.
    [
        Plan("alice", 1, "a", key=0, reply_to=1_000),
        Plan("alice", 1, "a", key=0, reply_to=None),
        Plan("alice", 1, "a", key=1, reply_to=None),
    ],
    send_messages,
)
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_batch_does_what_its_messages_do_one_by_one(
    tenants: tuple[Tenant, Tenant], plans: list[Plan], send: Any
) -> None:
    empty_tenants()
    outcomes = []
    for tenant, is_batch in zip(tenants, (True, False), strict=True):
        users = {name: tenant.create_user(name) for name in ("alice", "bob", "carol")}
        with tenant.activated():
            actions.create_room(users["alice"], name="team", members=[users["bob"]])
            actions.open_direct_room(users["alice"], other=users["bob"])
            actions.create_room(users["carol"], name="late", members=[users["bob"]])
            for _ in range(2):
                actions.send_message(users["bob"], room_id=1, content="before", client_id=UUID(int=100 + _))
            actions.add_members(users["alice"], room_id=1, users=[users["carol"]])
            drafts = [
                Draft(users[plan.sender], plan.room, plan.content, UUID(int=plan.key), plan.reply_to) for plan in plans
            ]
            answers: list[Any] = list(send(drafts)) if is_batch else [one(draft) for draft in drafts]
            outcomes.append(([told_of(answer) for answer in answers], state()))
    assert outcomes[0] == outcomes[1]


def one(draft: Draft) -> SentMessage | MessagingError:
    try:
        return actions.send_message(
            draft.actor,
            room_id=draft.room_id,
            content=draft.content,
            client_id=draft.client_id,
            reply_to=draft.reply_to,
        )
    except MessagingError as error:
        return error


def told_of(answer: Any) -> Any:
    if isinstance(answer, MessagingError):
        return type(answer).__name__, answer.details
    message = sent(answer).message
    mentioned = [user.username for user in message.mentioned_users]
    return answer.duplicate, message.room_id, message.seq, message.content, message.reply_to, mentioned


def state() -> Any:
    rows = Message.objects.order_by("room_id", "seq")
    fields = ("room_id", "seq", "changed_seq", "sender__username", "receiver__username", "content", "client_id")
    seqs = dict(Message.objects.values_list("pk", "seq"))
    return (
        list(rows.values_list(*fields)),
        [key and seqs[key] for key in rows.values_list("reply_to", flat=True)],
        sorted(Mention.objects.values_list("message__room_id", "message__seq", "user__username")),
        sorted(
            Notification.objects.values_list("message__room_id", "message__seq", "user__username", "notification_text")
        ),
        sorted(RoomCounter.objects.values_list("room_id", "last_seq")),
    )
