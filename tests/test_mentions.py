"""Which `@names` of a text are mentions, and who is told."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_tenant_messaging import actions
from django_tenant_messaging.actions import mentions
from django_tenant_messaging.actions.mentions import mention_candidates
from django_tenant_messaging.actions.messages import Draft
from django_tenant_messaging.models import ChatRoom, Mention, Message, Notification
from django_tenant_messaging.models.rooms import RoomCounterManager
from django_tenant_messaging.types import SentMessage, UserRef
from tests.harness.queries import exactly, queries
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.world import World

LONGEST = "x" * 150
NAMES = (
    "bob_2",
    "b.o.b",
    "bob-smith",
    "bob+home",
    "2bob",
    "bob.",
    "Bob",
    "josé",
    "Ольга",
    "会社",
    "café-bar",
    "İbo",
    LONGEST,
)

# A text and the members that it mentions, in order. "bob" and "Bob" are two members.
TEXTS: dict[str, list[str]] = {
    "@bob": ["bob"],
    "hello @bob, how are you?": ["bob"],
    "(@bob)": ["bob"],
    '"@bob"': ["bob"],
    "@bob!": ["bob"],
    "@bob: look": ["bob"],
    "@bob's cat": ["bob"],
    "line\n@bob\nline": ["bob"],
    "\u00a0@bob\u2028": ["bob"],
    "¡@bob!": ["bob"],
    "你好@carol": [],
    "@bob @carol": ["bob", "carol"],
    "@carol,@bob": ["carol", "bob"],
    "@bob @bob and @bob": ["bob"],
    # Names as Django allows them
    "@bob_2 @b.o.b @bob-smith @bob+home @2bob": ["bob_2", "b.o.b", "bob-smith", "bob+home", "2bob"],
    "@josé @Ольга @会社 @café-bar": ["josé", "Ольга", "会社", "café-bar"],
    "@jose\u0301": ["josé"],
    f"@{LONGEST}": [LONGEST],
    f"@{LONGEST}x": [],
    f"@{LONGEST}.": [],
    # Punctuation at the end belongs to the name if there is such a name
    "@bob.": ["bob."],
    "@bob..": ["bob."],
    "@bob...": ["bob."],
    "@carol.": ["carol"],
    "@carol...": ["carol"],
    "@carol.........": ["carol"],
    "@carol-": ["carol"],
    "@carol--": ["carol"],
    "@b.o.b.": ["b.o.b"],
    # Case
    "@Bob": ["Bob"],
    "@BOB": [],
    "@CAROL @Carol": ["carol"],
    "@CAROL @bob @carol": ["carol", "bob"],
    "@BOB @bob @Bob": ["bob", "Bob"],
    "@BOB. @carol": ["bob.", "carol"],
    "@İbo": ["İbo"],
    "@JOSÉ @ОЛЬГА": ["josé", "Ольга"],
    # Not members, not names
    "@dave": [],
    "@nobody @carol": ["carol"],
    "@car": [],
    "@carolx": [],
    "@": [],
    "@@carol": [],
    "@ carol": [],
    "@.": [],
    "@...": [],
    "@alice": [],
    "me, @alice, and @carol": ["carol"],
    # E-mail addresses and the like
    "carol@carol": [],
    "mail bob@example.com": [],
    "mail first.last+tag@carol.example": [],
    "@carol@example.social": [],
    "@b.o.b@example.social": [],
    "@carol.x@example.social": [],
    # Addresses
    "https://example.com/@carol": [],
    "https://example.com/?user=@carol": [],
    "HTTPS://example.com?@carol @bob": ["bob"],
    "(see https://example.com/a;@carol)": [],
    "1http://x?@carol": [],
    "www.example.com?@carol": [],
    "example.com/@carol": [],
    "ftp://@carol": [],
    "@carol://x": [],
    # Code
    "`@carol`": [],
    "`@carol` @bob": ["bob"],
    "`code` @carol": ["carol"],
    "``@carol ` @carol``": [],
    "`` ` `` @carol": ["carol"],
    "a ` @carol": ["carol"],
    "a `` @carol `": ["carol"],
    "`a\n@carol\nb`": [],
    "```\n@carol\n```": [],
    "```\n@carol": [],
    "```py\n@carol\n```\n@bob": ["bob"],
    "````\n@carol\n```` @bob": ["bob"],
    "`a`@carol`b`": ["carol"],
    "``x```@carol```": [],
    "`x `` @carol ` @bob": ["bob"],
}


@pytest.fixture(scope="module")
def world(database_url: str, django_db_blocker: pytest.FixtureRequest) -> Iterator[World]:
    """A team of many names, of which no test changes anything but messages."""
    from tests.harness.tenants import Tenant, empty_tenants, leave_tenant

    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        leave_tenant()
        acme, globex = Tenant("acme"), Tenant("globex")
        for tenant in (acme, globex):
            for name in ("alice", "bob", "carol"):
                tenant.create_user(name)
        acme.create_user("dave")
        members = [acme.create_user(name) for name in NAMES]
        with made_world(acme, globex) as world:
            actions.add_members(world.alice, room_id=TEAM, users=[world.carol, *members])
            yield world
        leave_tenant()
        empty_tenants()


@pytest.mark.parametrize("text", TEXTS)
def test_mentioned_members(world: World, text: str) -> None:
    message = actions.send_message(world.alice, room_id=TEAM, content=text).message
    assert [user.username for user in message.mentioned_users] == TEXTS[text]
    assert message.is_broadcast == (not TEXTS[text])
    told = Notification.objects.filter(message=message.id).values_list("user__username", "notification_text")
    assert sorted(told) == sorted((name, "alice mentioned you") for name in TEXTS[text])
    mentions = Mention.objects.filter(message=message.id).order_by("pk").values_list("user__username", flat=True)
    assert list(mentions) == TEXTS[text]


def test_who_left_is_not_mentioned(world: World) -> None:
    eve = world.acme.create_user("eve")
    actions.add_members(world.alice, room_id=TEAM, users=[eve])
    assert actions.send_message(world.alice, room_id=TEAM, content="@eve").message.mentioned_users
    actions.leave_room(eve, room_id=TEAM)
    assert not actions.send_message(world.alice, room_id=TEAM, content="@eve").message.mentioned_users


def test_names_of_the_other_tenant_are_not_mentioned(world: World) -> None:
    frank = world.globex.create_user("frank")
    with world.globex.activated():
        actions.add_members(world.globex.users["carol"], room_id=TEAM, users=[frank])
    assert not actions.send_message(world.alice, room_id=TEAM, content="@frank").message.mentioned_users


def test_a_name_found_in_one_room_is_looked_for_in_the_next_in_any_case(world: World) -> None:
    other_bob = world.acme.users["Bob"]
    other = actions.create_room(world.alice, name="other", members=[other_bob])
    drafts = [Draft(world.alice, room_id, "hello @bob") for room_id in (TEAM, other.id)]
    sent = actions.send_messages(drafts)
    assert [one.message.mentioned_users[0].username for one in sent if isinstance(one, SentMessage)] == ["bob", "Bob"]


@pytest.mark.parametrize("highest", [0, 1, 2])
def test_most_mentions(world: World, highest: int) -> None:
    with override_settings(TENANT_MESSAGING={"MAX_MENTIONS": highest}):
        message = actions.send_message(world.alice, room_id=TEAM, content="@carol @carol @bob @josé").message
    assert [user.username for user in message.mentioned_users] == ["carol", "bob", "josé"][:highest]


def test_names_of_nobody_are_passed_over_up_to_a_number(world: World) -> None:
    nobody = [f"@nobody{n}" for n in range(200)]
    with exactly(2):
        sent = actions.send_message(world.alice, room_id=TEAM, content=" ".join([*nobody[:50], "@carol"]))
    assert [user.username for user in sent.message.mentioned_users] == ["carol"]
    sent = actions.send_message(world.alice, room_id=TEAM, content=" ".join([*nobody, "@carol"]))
    assert not sent.message.mentioned_users


def test_any_number_of_names_costs_one_query_of_bounded_length(world: World) -> None:
    lengths = []
    for number in (200, 2_000):
        content = " ".join(f"@n{n}..." for n in range(1000, 1000 + number))
        with override_settings(TENANT_MESSAGING={"MAX_CONTENT_LENGTH": 20_000}), queries() as made:
            actions.send_message(world.alice, room_id=TEAM, content=content)
        assert len(made) == 2
        lengths.append(len(made[0]))
    assert lengths[0] == lengths[1]
    with override_settings(TENANT_MESSAGING={"MAX_MENTIONS": 0}), exactly(1):
        actions.send_message(world.alice, room_id=TEAM, content="@carol")


def test_each_name_is_compared_with_those_alike_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred names among a room of thousands, in little work."""
    members = [(n, UserRef(str(n), f"Member{n}")) for n in range(20_000)]
    monkeypatch.setattr(mentions, "mentioned_members", lambda names: dict.fromkeys(names, members))
    texts = [(TEAM, " ".join(f"@member{n}" for n in range(start, start + 100)), None) for start in range(0, 4_000, 100)]
    with little_work():
        found = mentions.resolve_mentions_of(texts)
    assert [[key for key, _user in of_text] for of_text in found] == [
        list(range(start, start + 50)) for start in range(0, 4_000, 100)
    ]


def test_a_message_saved_through_the_orm_finds_its_mentions_before_it_locks_the_room(world: World) -> None:
    room = ChatRoom.objects.get(pk=TEAM)
    with queries() as made:
        message = Message.objects.create(sender=world.alice, room=room, content="@carol @nobody")
    places = [
        next(n for n, sql in enumerate(made) if part in sql)
        for part in ('LOWER("auth_user"', "SET last_seq", 'INSERT INTO "django_tenant_messaging_mention"')
    ]
    assert places == sorted(places)
    assert [user.username for user in message.mentioned_users.all()] == ["carol"]


def test_a_message_saved_through_the_orm_tells_nobody_who_left_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    mallory = world.acme.create_user("mallory")
    actions.add_members(world.alice, room_id=TEAM, users=[mallory])
    advance = RoomCounterManager.advance

    def leave_and_advance(manager: RoomCounterManager, room_id: int) -> int:
        monkeypatch.undo()
        actions.leave_room(mallory, room_id=TEAM)
        return advance(manager, room_id)

    monkeypatch.setattr(RoomCounterManager, "advance", leave_and_advance)
    room = ChatRoom.objects.get(pk=TEAM)
    message = Message.objects.create(sender=world.alice, room=room, content="@mallory @carol")
    assert [user.username for user in message.mentioned_users.all()] == ["carol"]
    assert not Notification.objects.filter(user=mallory).exists()


@given(st.text())
def test_any_text(text: str) -> None:
    list(mention_candidates(text))


PIECES = ["@", "bob", "@bob", "`", "``", "```", "://", "http://", "www.", ".", " ", "\n", "+", "é", "@bob@"]


@given(st.lists(st.sampled_from(PIECES)))
def test_names_come_from_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    for names in mention_candidates(text):
        assert names
        assert all(0 < len(name) <= 150 for name in names)
        assert "@" + names[0] in text
        assert len(names) <= 6


HOSTILE = [
    "`",
    "` ",
    "`` ",
    "`` ` ",
    "``x```y```",
    "```",
    "``` ` ",
    "a",
    "a+",
    "a.",
    "a-",
    "@",
    "@a",
    "@a.",
    "@" + "." * 149 + " ",
    "@" + "a" * 151 + "@",
    "://",
    "a://",
    "www.",
    "w",
    "\u0301",
    "\ufdfa",
]


@contextmanager
def little_work() -> Iterator[None]:
    """Fail when the body takes several seconds of the processor: linear work on these texts takes a fifth of one, a
    comparison of every place with every other takes minutes. It doesn't count what others do on the machine.
    """

    def too_much(*_: Any) -> None:
        raise AssertionError("the work grows faster than the text")

    usual = signal.signal(signal.SIGVTALRM, too_much)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, usual)


@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
@pytest.mark.parametrize("opening", ["", "@", "`", "``", "https://", "@a"])
def test_hostile_text_costs_no_more_than_its_length(piece: str, opening: str) -> None:
    length = 150_000
    with little_work():
        list(mention_candidates((opening + piece * (length // len(piece)))[:length] + " @bob"))


def test_hostile_run_of_backticks_costs_no_more_than_its_length() -> None:
    with little_work():
        for text in (
            "`" * 100_000 + "a" * 50_000,
            " ".join("`" * length for length in range(1, 400)),
            "a" * 150_000 + "@b",
        ):
            list(mention_candidates(text + "@"))
