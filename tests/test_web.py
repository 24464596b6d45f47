from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_tenant_messaging import actions
from django_tenant_messaging.limits import Key, Scope, shared_limiter
from django_tenant_messaging.models import ChatRoom, Message
from django_tenant_messaging.selectors import list_members, list_notifications

if TYPE_CHECKING:
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def room(acme: Tenant, people: tuple[str, ...]) -> ChatRoom:
    """A group of alice and bob in acme."""
    with acme.activated():
        return actions.create_room(acme.users["alice"], name="general", members=[acme.users["bob"]])


@pytest.fixture
def alice(acme: Tenant, people: tuple[str, ...]) -> Client:
    return acme.client(acme.users["alice"])


@pytest.fixture
def bob(acme: Tenant, people: tuple[str, ...]) -> Client:
    return acme.client(acme.users["bob"])


def say(tenant: Tenant, room: ChatRoom, username: str, content: str, **options: Any) -> int:
    with tenant.activated():
        sent = actions.send_message(tenant.users[username], room_id=room.pk, content=content, **options)
    return sent.message.id


def config(response: Any) -> dict[str, Any]:
    found = re.search(r'<script id="messaging-config"[^>]*>(.*?)</script>', response.content.decode(), re.DOTALL)
    assert found
    read: dict[str, Any] = json.loads(found[1])
    return read


def test_strangers_are_sent_to_the_login_page(acme: Tenant, room: ChatRoom) -> None:
    client = acme.client()
    for path in ("/messages/", f"/messages/rooms/{room.pk}/"):
        response = client.get(path)
        assert response.status_code == 302
        assert response["Location"] == f"/accounts/login/?next={path}"
    response = client.post(f"/messages/rooms/{room.pk}/leave/")
    assert response["Location"] == "/accounts/login/?next=/messages/"


def test_the_shared_schema_has_no_pages(acme: Tenant) -> None:
    assert Client(SERVER_NAME="localhost").get("/messages/").status_code == 404


def test_a_session_of_the_other_tenant_is_refused(
    acme: Tenant, globex: Tenant, alice: Client, room: ChatRoom, settings: Any
) -> None:
    # The user of the same id has the same password hash there, and cookies hold the session: Django lets it in.
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    with acme.activated():
        password = acme.users["alice"].password
    with globex.activated():
        twin = globex.users["alice"]
        twin.password = password
        twin.save()
    client = acme.client(acme.users["alice"])
    assert client.get("/messages/").status_code == 200
    response = client.get("/messages/", SERVER_NAME=globex.host)
    assert response.status_code == 403
    assert "another organisation" in response.content.decode()


def test_a_shared_user_who_is_no_member_is_refused(alice: Client, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"TENANT_MEMBERSHIP": lambda _user, _schema_name: False}
    assert alice.get("/messages/").status_code == 403


def test_conversations_show_names_unread_counts_and_the_last_message(acme: Tenant, bob: Client, room: ChatRoom) -> None:
    say(acme, room, "alice", "first")
    say(acme, room, "alice", "second")
    text = bob.get("/messages/").content.decode()
    assert "general" in text
    assert "second" in text
    assert "2 unread" in text
    assert "first" not in text


def test_positions_are_those_of_what_is_shown(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    say(acme, room, "bob", "hello")
    say(acme, room, "bob", "again")
    expected = {str(room.pk): {"epoch": room.epoch.hex, "seq": 2}}
    assert config(alice.get("/messages/"))["positions"] == expected
    page = config(alice.get(f"/messages/rooms/{room.pk}/"))
    assert page["positions"] == expected
    assert page["room"] == room.pk
    assert page["me"] == {"id": str(acme.users["alice"].pk), "username": "alice"}


def test_a_room_shows_messages_members_and_badges(acme: Tenant, bob: Client, room: ChatRoom) -> None:
    first = say(acme, room, "alice", "Hello team")
    say(acme, room, "alice", "you, @bob?", reply_to=first)
    say(acme, room, "bob", "me, @alice")
    text = bob.get(f"/messages/rooms/{room.pk}/").content.decode()
    items = re.findall(r'<li class="message.*?</li>', text.partition("<template")[0], re.DOTALL)
    assert [re.search(r'class="message([^"]*)"', item)[1] for item in items] == ["", " mentions-me", " own"]  # type: ignore[index]
    assert [re.search(r"broadcast[^>]*hidden", item) is None for item in items] == [True, False, False]
    assert "@you" in items[1]
    assert f'href="#message-{first}"' in items[1]
    assert re.search(r"mentions\s+<bdi>alice</bdi>", items[2])
    members = re.findall(r'<li class="member.*?</li>', text.partition("<template")[0], re.DOTALL)
    assert len(members) == 2
    assert "owner" in members[0]


def test_edited_and_deleted_messages(acme: Tenant, alice: Client, bob: Client, room: ChatRoom) -> None:
    first, second = say(acme, room, "alice", "a secret for @bob"), say(acme, room, "bob", "helo")
    with acme.activated():
        actions.edit_message(acme.users["bob"], room_id=room.pk, message_id=second, content="hello")
        actions.delete_message(acme.users["alice"], room_id=room.pk, message_id=first)
    response = bob.get(f"/messages/rooms/{room.pk}/")
    text = response.content.decode()
    items = re.findall(r'<li class="message.*?</li>', text.partition("<template")[0], re.DOTALL)
    shown = [
        (
            re.search(r'data-part="tombstone"( hidden)?', item)[1] is None,  # type: ignore[index]
            re.search(r'data-part="edited"[^>]* hidden', item) is None,
            re.search(r'data-changed="(\d+)"', item)[1],  # type: ignore[index]
        )
        for item in items
    ]
    assert shown == [(True, False, "4"), (False, True, "3")]
    assert "deleted" in items[0].partition(">")[0]
    assert "secret" not in text
    assert "helo" not in text
    assert config(response)["notifications"] == []
    with acme.activated():
        actions.delete_message(acme.users["bob"], room_id=room.pk, message_id=second)
    listing = alice.get("/messages/").content.decode()
    assert "This message was deleted." in listing
    assert 'data-unread="0"' in listing


def test_the_page_knows_what_its_user_may_change(acme: Tenant, alice: Client, bob: Client, settings: Any) -> None:
    with acme.activated():
        group = actions.create_room(acme.users["alice"], name="general", members=[acme.users["bob"]])
        direct = actions.open_direct_room(acme.users["alice"], other=acme.users["bob"])

    def known(client: Client, room: ChatRoom) -> tuple[Any, Any]:
        found = config(client.get(f"/messages/rooms/{room.pk}/"))
        return found["ownsRoom"], found["editWindow"]

    assert [known(alice, group), known(bob, group), known(alice, direct)] == [
        (True, None),
        (False, None),
        (False, None),
    ]
    settings.TENANT_MESSAGING = {"EDIT_WINDOW": 900}
    assert known(alice, group) == (True, 900)


def test_rename_without_the_module(acme: Tenant, bob: Client, room: ChatRoom) -> None:
    path = f"/messages/rooms/{room.pk}/"
    assert bob.post(f"{path}name/", {"rename-name": "Plans"})["Location"] == path
    assert '<h1 id="room-title" dir="auto">Plans</h1>' in bob.get(path).content.decode()
    for name in ("", " ", "x" * 121):
        assert bob.post(f"{path}name/", {"rename-name": name}).status_code == 400
    with acme.activated():
        assert ChatRoom.objects.get().name == "Plans"


def test_content_is_text(acme: Tenant, bob: Client, room: ChatRoom) -> None:
    say(acme, room, "alice", "<script>alert(1)</script> & </script>")
    for path in ("/messages/", f"/messages/rooms/{room.pk}/"):
        text = bob.get(path).content.decode()
        assert "&lt;script&gt;alert(1)" in text
        assert "<script>alert" not in text


def test_pages_need_no_inline_script_or_style(alice: Client, room: ChatRoom) -> None:
    for path in ("/messages/", f"/messages/rooms/{room.pk}/"):
        text = alice.get(path).content.decode()
        assert "<style" not in text
        assert not re.search(r"\s(style|on\w+)=", text)
        assert all("src=" in tag or "application/json" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_a_room_of_others_is_not_found(acme: Tenant, room: ChatRoom) -> None:
    carol = acme.client(acme.users["carol"])
    for response in (
        carol.get(f"/messages/rooms/{room.pk}/"),
        carol.get("/messages/rooms/99999999999999999999999/"),
        carol.post(f"/messages/rooms/{room.pk}/", {"content": "hi"}),
        carol.post(f"/messages/rooms/{room.pk}/members/", {"add-people": "carol"}),
        carol.post(f"/messages/rooms/{room.pk}/name/", {"rename-name": "mine"}),
        carol.post(f"/messages/rooms/{room.pk}/leave/"),
    ):
        assert response.status_code == 404
        assert "Not found" in response.content.decode()
    with acme.activated():
        assert Message.objects.count() == 0
        assert len(list_members(acme.users["alice"], room.pk)) == 2


def test_the_other_tenant_sees_nothing(acme: Tenant, globex: Tenant, room: ChatRoom) -> None:
    say(acme, room, "alice", "a secret of acme @bob")
    bob = globex.client(globex.users["bob"])
    text = bob.get("/messages/").content.decode()
    assert "general" not in text
    assert "secret" not in text
    assert config(bob.get("/messages/"))["notifications"] == []
    assert bob.get(f"/messages/rooms/{room.pk}/").status_code == 404


def test_send_without_the_module(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    form = {"content": "  by hand\n", "client_id": str(uuid4())}
    for _again in range(2):
        response = alice.post(f"/messages/rooms/{room.pk}/", form)
        assert (response.status_code, response["Location"]) == (302, f"/messages/rooms/{room.pk}/")
    with acme.activated():
        assert [message.content for message in Message.objects.all()] == ["  by hand\n"]


@pytest.mark.parametrize(("content", "status"), [("", 400), ("   ", 400), ("x" * 10_001, 400), ("nul \0", 400)])
def test_what_may_not_be_sent_is_explained(
    acme: Tenant, alice: Client, room: ChatRoom, content: str, status: int
) -> None:
    response = alice.post(f"/messages/rooms/{room.pk}/", {"content": content})
    assert response.status_code == status
    assert "errorlist" in response.content.decode()
    with acme.activated():
        assert Message.objects.count() == 0


def test_a_client_id_used_for_something_else_is_a_conflict(alice: Client, room: ChatRoom) -> None:
    client_id = str(uuid4())
    alice.post(f"/messages/rooms/{room.pk}/", {"content": "one", "client_id": client_id})
    response = alice.post(f"/messages/rooms/{room.pk}/", {"content": "two", "client_id": client_id})
    assert response.status_code == 409
    assert ">two</textarea>" in response.content.decode()


def test_open_a_direct_conversation(acme: Tenant, alice: Client, bob: Client) -> None:
    first = alice.post("/messages/rooms/direct/", {"direct-people": "@bob"})
    second = bob.post("/messages/rooms/direct/", {"direct-people": " alice "})
    assert first.status_code == second.status_code == 302
    assert first["Location"] == second["Location"]
    assert '<h1 id="room-title" dir="auto">bob</h1>' in alice.get(first["Location"]).content.decode()


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "This field is required"),
        ("bob carol", "Give one username"),
        ("zed", "There is no user here with this name: zed."),
        ("alice", "needs somebody else"),
        ("b\0b", "Null characters"),
    ],
)
def test_wrong_people_are_explained(acme: Tenant, alice: Client, written: str, reason: str) -> None:
    response = alice.post("/messages/rooms/direct/", {"direct-people": written})
    assert response.status_code == 400
    assert reason in response.content.decode()
    with acme.activated():
        assert ChatRoom.objects.count() == 0


def test_create_a_room(acme: Tenant, alice: Client) -> None:
    response = alice.post("/messages/rooms/create/", {"room-name": "Plans", "room-people": "bob, @carol; bob"})
    assert response.status_code == 302
    with acme.activated():
        room = ChatRoom.objects.get(name="Plans")
        names = [member.user.username for member in list_members(acme.users["alice"], room.pk)]
    assert response["Location"] == f"/messages/rooms/{room.pk}/"
    assert names == ["alice", "bob", "carol"]


def test_a_room_needs_a_name(acme: Tenant, alice: Client) -> None:
    for name in ("", " ", "x" * 121):
        assert alice.post("/messages/rooms/create/", {"room-name": name}).status_code == 400
    with acme.activated():
        assert ChatRoom.objects.count() == 0


def test_add_members_and_leave(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    path = f"/messages/rooms/{room.pk}/"
    assert alice.post(f"{path}members/", {"add-people": "carol"})["Location"] == path
    refused = alice.post(f"{path}members/", {"add-people": "nobody"})
    assert refused.status_code == 400
    assert "nobody" in refused.content.decode()
    assert alice.post(f"{path}leave/")["Location"] == "/messages/"
    assert alice.get(path).status_code == 404
    with acme.activated():
        members = list_members(acme.users["bob"], room.pk)
    assert [member.user.username for member in members] == ["bob", "carol"]


def test_members_of_a_large_room_come_in_pages(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    with acme.activated():
        crowd = get_user_model().objects.bulk_create(get_user_model()(username=f"user{n:03}") for n in range(250))
        actions.add_members(acme.users["alice"], room_id=room.pk, users=crowd)
    response: Any = alice.get(f"/messages/rooms/{room.pk}/")
    assert config(response)["members"] == {
        "number": 252,
        "mostCounted": 1000,
        "areAll": False,
        "tellsPresence": False,
    }
    seen: list[str] = []
    pages = 0
    while response is not None:
        pages += 1
        text = response.content.decode()
        assert text.count('class="member"') <= 101
        seen += re.findall(r'<bdi data-part="name">(\w+)</bdi>', text)
        following = re.search(r'href="(/messages/rooms/\d+/members/\?after=\d+)"', text)
        response = alice.get(following[1]) if following else None
    assert pages == 3
    assert sorted(seen) == sorted(["alice", "bob", *(user.username for user in crowd)])
    assert alice.get(f"/messages/rooms/{room.pk}/members/?after=nobody").status_code == 400
    assert alice.get("/messages/rooms/999/members/").status_code == 404


def test_a_direct_conversation_can_not_be_left_or_joined(acme: Tenant, alice: Client) -> None:
    path = alice.post("/messages/rooms/direct/", {"direct-people": "bob"})["Location"]
    assert alice.post(f"{path}leave/").status_code == 403
    assert alice.post(f"{path}members/", {"add-people": "carol"}).status_code == 403
    assert alice.post(f"{path}name/", {"rename-name": "us"}).status_code == 403
    assert 'id="naming"' not in alice.get(path).content.decode()


def test_who_left_comes_back_by_themselves_only(
    acme: Tenant, globex: Tenant, alice: Client, bob: Client, room: ChatRoom
) -> None:
    path = f"/messages/rooms/{room.pk}/"
    assert "Rooms that you left" not in bob.get("/messages/").content.decode()
    left = bob.post(f"{path}leave/", follow=True).content.decode()
    assert "Rooms that you left" in left
    assert f'action="{path}rejoin/"' in left
    refused = alice.post(f"{path}members/", {"add-people": "bob"})
    assert refused.status_code == 403
    assert "They left this room, and only they themselves can come back: bob." in refused.content.decode()
    assert "Rooms that you left" not in globex.client(globex.users["bob"]).get("/messages/").content.decode()
    assert bob.post(f"{path}rejoin/")["Location"] == path
    assert bob.get(path).status_code == 200
    assert acme.client(acme.users["carol"]).post(f"{path}rejoin/").status_code == 404


@pytest.mark.parametrize("names", [" ".join(f"u{n}" for n in range(300_000)), ",".join(f"u{n}" for n in range(201))])
def test_too_many_names_are_one_error_and_no_query(alice: Client, room: ChatRoom, names: str) -> None:
    for path, field in (
        ("rooms/create/", "room-people"),
        ("rooms/direct/", "direct-people"),
        (f"rooms/{room.pk}/members/", "add-people"),
    ):
        with CaptureQueriesContext(connection) as captured:
            response = alice.post(f"/messages/{path}", {field: names, "room-name": "many"})
        assert response.status_code == 400
        assert response.content.decode().count("Give at most 200 usernames at once.") == 1
        assert not [query for query in captured if "dailyallowance" in query["sql"] or "u200" in query["sql"]]


def test_names_are_not_told_without_limit(acme: Tenant, globex: Tenant, alice: Client, settings: Any) -> None:
    settings.TENANT_MESSAGING = {"DAILY_LIMIT_LOOKUPS": (24, 3)}
    for name in ("nobody", "noone", "bob"):
        alice.post("/messages/rooms/create/", {"room-name": "guesses", "room-people": name})
    refused = alice.post("/messages/rooms/direct/", {"direct-people": "carol"})
    assert refused.status_code == 429
    assert 3_500 < int(refused["Retry-After"]) <= 3_600
    assert "You can do it again in 60 minutes." in refused.content.decode()
    assert (
        globex.client(globex.users["alice"]).post("/messages/rooms/direct/", {"direct-people": "carol"}).status_code
        == 302
    )


def test_pages_and_sockets_share_their_limits(
    acme: Tenant, globex: Tenant, alice: Client, bob: Client, room: ChatRoom, settings: Any
) -> None:
    settings.TENANT_MESSAGING = {
        "RATE_LIMIT_USER": (0.1, 3),
        "RATE_LIMIT_READS": (0.1, 4),
        "RATE_LIMIT_ROOM": (0.1, 5),
    }
    path = f"/messages/rooms/{room.pk}/"
    shared_limiter().check([(Key(Scope.USER, "acme", str(acme.users["alice"].pk)), 1)], time.monotonic())

    def answers(client: Client, **said: str) -> list[int]:
        return [(client.post(path, said) if said else client.get(path)).status_code for _ in range(6)]

    assert answers(alice, content="hello") == [302, 302, 429, 429, 429, 429]
    assert answers(bob, content="hello") == [302, 302, 302, 429, 429, 429]
    # Nobody uses up the limit of a room that they aren't in.
    carol = acme.client(acme.users["carol"])
    assert answers(carol, content="hello")[:3] == [404] * 3
    assert answers(alice) == [200] * 4 + [429] * 2
    refused = bob.post(f"{path}name/", {"rename-name": "other"})
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 10
    assert "That was too much at once" in refused.content.decode()
    with acme.activated():
        assert Message.objects.count() == 5
    with globex.activated():
        theirs = actions.create_room(globex.users["alice"], name="theirs")
    assert theirs.pk == room.pk
    assert globex.client(globex.users["alice"]).post(path, {"content": "hello"}).status_code == 302


def test_notifications_are_shown_and_marked(acme: Tenant, bob: Client, room: ChatRoom) -> None:
    say(acme, room, "alice", "look here, @bob")
    page = bob.get("/messages/")
    assert [told["room"] for told in config(page)["notifications"]] == [room.pk]
    assert bob.post("/messages/notifications/read/")["Location"] == "/messages/"
    assert config(bob.get("/messages/"))["notifications"] == []
    with acme.activated():
        assert list_notifications(acme.users["bob"], unread_only=True) == []


@pytest.mark.parametrize("path", ["create/", "direct/", "1/members/", "1/name/", "1/leave/", "../notifications/read/"])
def test_writes_need_a_post_and_a_token(acme: Tenant, path: str) -> None:
    client = acme.client(acme.users["alice"])
    # Where members are added they are listed too, to those who are in the room.
    refused = 404 if path == "1/members/" else 302
    for method in (client.get, client.head):
        assert method(f"/messages/rooms/{path}".replace("rooms/../", "")).status_code == refused
    assert client.put(f"/messages/rooms/{path}".replace("rooms/../", "")).status_code == 405
    client.handler.enforce_csrf_checks = True
    assert client.post(f"/messages/rooms/{path}".replace("rooms/../", "")).status_code == 403


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("rooms/create/", "/messages/"),
        ("rooms/direct/", "/messages/"),
        ("rooms/7/name/", "/messages/rooms/7/"),
        ("rooms/7/leave/", "/messages/rooms/7/"),
        ("rooms/7/rejoin/", "/messages/"),
        ("notifications/read/", "/messages/"),
    ],
)
def test_the_address_of_a_form_leads_to_the_page_that_shows_it(acme: Tenant, path: str, page: str) -> None:
    assert acme.client(acme.users["alice"]).get(f"/messages/{path}")["Location"] == page
    stranger = acme.client(None).get(f"/messages/{path}")
    assert stranger["Location"].startswith("/accounts/login/")


def test_pages_are_not_cached(alice: Client) -> None:
    assert "no-store" in alice.get("/messages/")["Cache-Control"]


def test_queries_do_not_grow_with_the_content(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    from django.db import connection

    def counted() -> list[int]:
        counts = []
        for path in ("/messages/", f"/messages/rooms/{room.pk}/"):
            with CaptureQueriesContext(connection) as queries:
                assert alice.get(path).status_code == 200
            counts.append(len(queries))
        return counts

    say(acme, room, "bob", "hello @alice")
    before = counted()
    for number in range(20):
        say(acme, room, "bob", f"{number} @alice")
        with acme.activated():
            other = actions.create_room(acme.users["bob"], name=f"{number}", members=[acme.users["alice"]])
        say(acme, other, "bob", "hi")
    assert counted() == before


def test_pages_in_french(acme: Tenant, alice: Client, room: ChatRoom) -> None:
    def page(path: str) -> Any:
        return alice.get(path, headers={"Accept-Language": "fr"})

    text = page("/messages/").content.decode()
    assert '<html lang="fr">' in text
    assert "Nouvelle conversation" in text
    assert config(page(f"/messages/rooms/{room.pk}/"))["texts"]["allMembers"] == "Tous les membres"
    refused = alice.post("/messages/rooms/direct/", {"direct-people": "zed"}, headers={"Accept-Language": "fr"})
    assert "Aucun utilisateur" in refused.content.decode()
