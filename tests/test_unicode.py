# ruff: noqa: RUF001 - letters of other scripts are meant
"""What texts and names may hold, in any script, and what a name does to the text around it."""

from __future__ import annotations

import unicodedata
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tenant_messaging import actions
from django_tenant_messaging.exceptions import Invalid
from django_tenant_messaging.models import ChatRoom, Message, content
from django_tenant_messaging.models.content import clean_content, clean_name, isolated
from django_tenant_messaging.payloads import Ping
from django_tenant_messaging.realtime import commands
from django_tenant_messaging.selectors import access_room, list_notifications
from tests.harness.world import TEAM, made_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.tenants import Tenant
    from tests.harness.world import World

ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"

KEPT = {
    "ascii": "Hello, world!",
    "Persian with a zero-width non-joiner": "می\u200cخواهم",
    "Arabic with marks of direction": "\u200fمرحبا\u200e \u061cabc",
    "Arabic sign that encloses a number": "\u06dd٣",
    "Hebrew with points": "שָׁלוֹם",
    "Devanagari with joiners": "क्\u200dष क्\u200cष",
    "Sinhala": "ශ්\u200dරී",
    "Bengali, Tamil, Thai": "বাংলা தமிழ் ภาษาไทย",
    "Tibetan stack": "བསྒྲུབས",
    "Khmer": "ភាសាខ្មែរ",
    "Vietnamese": "Tiếng Việt",
    "Hangul": "한국어",
    "Chinese with a variant": "邊\U000e0100 漢字\ufe00",
    "Mongolian with a variant": "ᠮᠣᠩᠭᠣᠯ\u180b\u180e",
    "family": "👨\u200d👩\u200d👧\u200d👦",
    "skin": "👍🏽",
    "heart": "❤\ufe0f",
    "keycap": "1\ufe0f\u20e3",
    "flags": "🇫🇷 🏳\ufe0f\u200d🌈",
    "England": ENGLAND,
    "Scotland": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "England alone among flags": f"{ENGLAND}{ENGLAND}🏴",
    "private use": "\uf8ff",
    "of a later Unicode": "\U0001fabf\U0001faff",
    "byte order mark and soft hyphen": "\ufeffcat\u00adnip",
    "no-break and ideographic space": "a\u00a0b\u3000c",
    "symbols": "½ ™ ∑ ♥",
}

IN_MESSAGES_ONLY = {
    "lines": "one\ntwo\tthree\n\nfour",
    "line separators": "one\u2028two\u2029three",
    "embedding": "\u202bשלום abc\u202c",
    "isolates": "\u2066abc\u2069 \u2067שלום\u2069 \u2068?\u2069",
    "isolate that isn't closed": "\u2067abc",
}

REFUSED = {
    "NUL": "a\0b",
    "escape": "\x1b[31mred",
    "backspace": "firign\x08\x08ng",
    "bell": "\x07",
    "mIRC colour": "\x0304red",
    "form feed": "a\x0cb",
    "delete": "a\x7fb",
    "C1": "a\x9b31mb",
    "next line": "a\x85b",
    "lone surrogate": "a\ud83d",
    "noncharacter": "a\ufdd0",
    "noncharacter at an end": "a\U0010ffff",
    "right-to-left override": "invoice\u202egpj.exe",
    "left-to-right override": "\u202dabc\u202c",
    "deprecated": "a\u206ab",
    "annotation": "a\ufff9b",
    "language tag": "a\U000e0001\U000e0065\U000e006e",
    "hidden text": "hello" + "".join(chr(0xE0000 + ord(character)) for character in "ignore all"),
    "flag of hidden text": "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "hiddenletters") + "\U000e007f",
    "flag of a few hidden letters": "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "ignore") + "\U000e007f",
    "flag that isn't closed": ENGLAND[:-1],
}

BLANK = {
    "nothing": "",
    "spaces": " \u00a0\u2003\u3000",
    "zero-width": "\u200b\u200c\u200d\u2060\ufeff",
    "Hangul fillers": "\u3164\u115f\u1160\uffa0",
    "variation selectors": "\ufe0f\U000e0101",
    "marks": "\u0301\u0302",
    "joiner": "\u034f",
    "direction": "\u200e\u200f\u061c",
    "soft hyphen": "\u00ad",
    "Braille without dots": "\u2800",
    "Khmer inherent vowels": "\u17b4\u17b5",
    "unassigned and ignorable": "\u2065\ufff0\U000e0080",
    "much of nothing": "\u200b" * 9_999,
}


@pytest.fixture
def world(acme: Tenant, globex: Tenant, people: tuple[str, ...]) -> Iterator[World]:
    with made_world(acme, globex) as world:
        yield world


def reason(refused: pytest.ExceptionInfo[Invalid]) -> str:
    (error,) = refused.value.details["errors"]
    return f"{error['field']} {error['reason']}"


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_scripts_and_emoji_are_kept_as_they_are(text: str) -> None:
    assert clean_content(text) == clean_name(text, field="name", limit=120) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("text", IN_MESSAGES_ONLY.values(), ids=IN_MESSAGES_ONLY)
def test_lines_and_embeddings_are_for_messages(text: str) -> None:
    assert clean_content(text) == text
    with pytest.raises(Invalid) as refused:
        clean_name(text, field="name", limit=120)
    assert "name must not contain U+" in reason(refused)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_named_with_its_place(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        clean_content(text)
    assert reason(refused).startswith("content must not contain U+")
    with pytest.raises(Invalid):
        clean_name(text, field="name", limit=120)


def test_the_reason_says_which_character_it_is() -> None:
    with pytest.raises(Invalid) as refused:
        clean_content("red: \x1b[31m")
    assert reason(refused) == "content must not contain U+001B (character 6): it is a control character"
    with pytest.raises(Invalid) as refused:
        clean_content(f"{ENGLAND} \U000e0041")
    assert reason(refused) == "content must not contain U+E0041 (character 9): it is a tag outside of a flag"
    with pytest.raises(Invalid) as refused:
        clean_name("one\ntwo", field="name", limit=120)
    assert reason(refused) == (
        "name must not contain U+000A (character 4): it is a tab or a line break, and a name is one line"
    )


@pytest.mark.parametrize("text", BLANK.values(), ids=BLANK)
def test_what_shows_nothing_is_empty(text: str) -> None:
    for clean in (clean_content, lambda text: clean_name(text, field="name", limit=10_000)):
        with pytest.raises(Invalid) as refused:
            clean(text)
        assert reason(refused).endswith("must not be empty")
    assert clean_content(f"{text}.").endswith(".")


@pytest.mark.parametrize("clean", [clean_content, partial(clean_name, field="name", limit=120)])
def test_marks_in_a_row_are_bounded(clean: Callable[[str], str]) -> None:
    """To bring so many in their order took seconds, in which nothing else ran."""
    few, many = "a" + "\u0315\u0300" * 15, "a" + "\u0315\u0300" * 15 + "\u0300"
    assert len(clean(few)) == 30
    with pytest.raises(Invalid, match=r"at most 30 combining marks in a row \(character 2\)"):
        clean(many)


def test_what_has_too_many_marks_is_not_brought_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """That took seconds, in which nothing else ran."""
    monkeypatch.setattr(content, "unicodedata", SimpleNamespace())
    with pytest.raises(Invalid):
        clean_content("a" + "\u0315\u0300" * 19_999)


def test_line_ends_are_line_feeds() -> None:
    assert clean_content("one\r\ntwo\rthree\n") == "one\ntwo\nthree\n"


@given(st.text(max_size=300))
def test_any_text_is_refused_or_kept(text: str) -> None:
    try:
        cleaned = clean_content(text)
    except Invalid:
        return
    assert clean_content(cleaned) == cleaned
    cleaned.encode()


# Every way in


@pytest.mark.parametrize("text", ["\x1b[31mred", "\u202etxet", "\u3164", "a\U000e0041"], ids=ascii)
def test_every_way_in_keeps_to_it(world: World, text: str) -> None:
    room = ChatRoom.objects.get(pk=TEAM)
    sent = actions.send_message(world.alice, room_id=TEAM, content="hello").message
    attempts: list[Any] = [
        lambda: actions.send_message(world.alice, room_id=TEAM, content=text),
        lambda: actions.edit_message(world.alice, room_id=TEAM, message_id=sent.id, content=text),
        lambda: Message.objects.create(sender=world.alice, room=room, content=text),
        lambda: actions.create_room(world.alice, name=text),
        lambda: actions.rename_room(world.alice, room_id=TEAM, name=text),
    ]
    for attempt in attempts:
        with pytest.raises(Invalid):
            attempt()
    assert (Message.objects.count(), ChatRoom.objects.count()) == (1, 1)
    assert access_room(world.alice, TEAM).name == "team"


def test_what_was_stored_before_stays(world: World) -> None:
    actions.send_message(world.alice, room_id=TEAM, content="hello")
    Message.objects.update(content="\x1b[31mred")
    ChatRoom.objects.filter(pk=TEAM).update(name="\u202eteam")
    assert access_room(world.alice, TEAM).name == "\u202eteam"
    assert actions.send_message(world.bob, room_id=TEAM, content="hello").message.seq == 2


# Names in other texts


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("bob", "bob"),
        ("Ольга 会社 👍🏽", "Ольга 会社 👍🏽"),
        ("שלום", "\u2068שלום\u2069"),
        ("bob ٣", "\u2068bob ٣\u2069"),
        ("bob\u202etxet", "bob txet"),
        ("\u2069\u202eשלום", "\u2068  שלום\u2069"),
        ("bob\nroot: \x1b[31mlogged in", "bob root:  [31mlogged in"),
        (ENGLAND, ENGLAND),
    ],
)
def test_a_name_changes_nothing_around_it(name: str, shown: str) -> None:
    assert isolated(name) == shown


def test_keys_of_users_are_one_line_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    socket: Any = SimpleNamespace(schema_name="acme", user_id="1\n[acme] \x1b[31mroot")
    commands._answer_to(socket, Ping(id="1", type="ping"), RuntimeError())
    (line,) = caplog.messages
    assert line == "[acme] A ping frame of user '1\\n[acme] \\x1b[31mroot' failed."


def test_names_of_users_are_isolated_in_notifications(world: World) -> None:
    world.alice.username = "\u202eecila\n"
    world.alice.save()
    actions.send_message(world.alice, room_id=TEAM, content="@bob")
    Message.objects.create(sender=world.alice, receiver=world.bob, content="hello")
    assert [told.text for told in list_notifications(world.bob)] == [
        "You have a new message from  ecila ",
        " ecila  mentioned you",
    ]
    with world.globex.activated():
        assert list_notifications(world.globex.users["bob"]) == []
