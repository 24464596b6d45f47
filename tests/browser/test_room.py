"""Two people talk in two browsers, and the other tenant notices nothing."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from django_tenant_messaging import actions
from django_tenant_messaging.models import Message
from tests.browser.conftest import connected, in_thread, outage

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page, Route

    from django_tenant_messaging.models import ChatRoom
    from tests.browser.conftest import Visitors
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("rooms")
PATH = "/messages/rooms/1/"


async def write(page: Page, text: str) -> None:
    await page.fill("#id_content", text)
    await page.press("#id_content", "Enter")


def message(page: Page, text: str) -> Locator:
    return page.locator("#messages .message", has=page.get_by_text(text, exact=True))


def stored(tenant: Tenant) -> list[str]:
    with tenant.activated():
        return list(Message.objects.order_by("seq").values_list("content", flat=True))


async def test_a_message_without_a_mention_reaches_everybody_at_once(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    await write(alice, "Hello team")
    for page in (alice, bob):
        seen = message(page, "Hello team")
        await expect(seen).to_have_count(1)
        await expect(seen.locator(".sender")).to_have_text("alice")
        await expect(seen.locator(".broadcast")).to_have_text("All members")
        await expect(seen.locator(".mention")).to_be_hidden()
    await expect(message(alice, "Hello team")).to_have_class("message own")
    await expect(message(bob, "Hello team")).to_have_class("message")
    await expect(bob.locator("#notifications [data-part=count]")).to_be_hidden()
    await expect(message(alice, "Hello team").locator(".state")).to_be_hidden()
    await bob.reload()
    await expect(message(bob, "Hello team").locator(".broadcast")).to_be_visible()


async def test_a_mention_is_marked_for_the_mentioned_one(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob")
    carol = await visitors.open(acme, "carol", PATH)
    await write(alice, "Could you look, @bob?")
    await expect(message(carol, "Could you look, @bob?").locator(".mention")).to_have_text("mentions bob")
    await expect(message(carol, "Could you look, @bob?").locator(".broadcast")).to_be_hidden()
    await expect(carol.locator("#notifications [data-part=count]")).to_be_hidden()
    # On the list of conversations: the notification and the unread count, live.
    await expect(bob.locator("#notifications [data-part=count]")).to_have_text("1")
    conversation = bob.locator(".conversation")
    await expect(conversation.locator(".count")).to_have_text("1")
    await expect(conversation.locator(".preview")).to_contain_text("Could you look, @bob?")
    await conversation.click()
    await expect(message(bob, "Could you look, @bob?").locator(".mention")).to_have_text("@you")
    # Seeing it reads it.
    await expect(bob.locator("#notifications [data-part=count]")).to_be_hidden()


async def test_the_connection_is_lost_and_recovered(visitors: Visitors, server: Server, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    await write(alice, "before")
    await expect(message(bob, "before")).to_be_visible()
    async with outage(server):
        await expect(alice.locator("#connection")).to_contain_text("Connection lost.")
        await write(alice, "during the outage")
        await expect(message(alice, "during the outage").locator(".state")).to_have_text("Sending…")
        await expect(bob.locator("#connection")).to_contain_text("Connection lost.")
    for page in (alice, bob):
        await connected(page)
        await expect(message(page, "during the outage")).to_have_count(1)
        await expect(message(page, "during the outage").locator(".state")).to_be_hidden()
        await expect(page.locator("#connection")).to_be_hidden()
    assert await in_thread(stored, acme) == ["before", "during the outage"]


async def test_nothing_falls_between_the_page_and_its_stream(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "in the page")
    bob = await visitors.open(acme, "bob")
    asked, may_load = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await may_load.wait()
        await route.continue_()

    await bob.route("**/room.js", hold)
    await bob.goto(visitors.url(acme, PATH), wait_until="commit")
    await asked.wait()
    await in_thread(say, acme, "after the page")
    may_load.set()
    await connected(bob)
    await in_thread(say, acme, "in the stream")
    await expect(message(bob, "in the stream")).to_be_visible()
    shown = await bob.locator("#messages .content").all_inner_texts()
    assert shown == ["in the page", "after the page", "in the stream"]


async def test_what_is_unsent_survives_a_reload(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    await alice.context.set_offline(offline=True)
    await alice.evaluate("WebSocket.prototype.send = () => {}")
    await write(alice, "kept")
    await expect(message(alice, "kept").locator(".state")).to_have_text("Sending…")
    await alice.context.set_offline(offline=False)
    await alice.reload()
    await expect(message(alice, "kept").locator(".broadcast")).to_be_visible()
    assert await in_thread(stored, acme) == ["kept"]


async def test_the_other_tenant_sees_nothing(visitors: Visitors, acme: Tenant, globex: Tenant) -> None:
    stranger = await visitors.open(globex, "bob", PATH)
    listing = await visitors.open(globex, "bob")
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    await alice.type("#id_content", "a secret for @bob")
    await alice.press("#id_content", "Enter")
    await expect(message(bob, "a secret for @bob")).to_be_visible()
    # What comes after it proves that nothing came before.
    await in_thread(say, globex, "of globex")
    await expect(message(stranger, "of globex")).to_be_visible()
    await expect(listing.locator(".conversation .preview")).to_contain_text("of globex")
    for page in (stranger, listing):
        assert "secret" not in await page.content()
        assert "acme" not in (await page.locator("main").text_content() or "")
        await expect(page.locator("#notifications [data-part=count]")).to_be_hidden()
        await page.reload()
        assert "secret" not in await page.content()


def say(tenant: Tenant, content: str, username: str = "alice") -> None:
    with tenant.activated():
        actions.send_message(tenant.users[username], room_id=1, content=content)


async def test_html_is_shown_as_text(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    listing = await visitors.open(acme, "bob")
    evil = "<img src=x onerror=document.title='hacked'><b>bold</b> </script><script>document.title='hacked'</script>"
    await write(alice, evil)
    await expect(message(bob, evil)).to_be_visible()
    await expect(listing.locator(".preview")).to_contain_text(evil)
    await bob.reload()
    await expect(message(bob, evil)).to_be_visible()
    for page in (alice, bob, listing):
        assert await page.locator("#messages img, #messages b, .preview b").count() == 0
        assert "hacked" not in await page.title()


async def test_replies_typing_and_members(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    for name, is_online in (("alice", True), ("bob", True), ("carol", False)):
        classes = re.compile(r"\bonline\b") if is_online else re.compile(r"^member$")
        await expect(alice.locator(".member", has_text=name)).to_have_class(classes)
    await write(alice, "Who comes along?")
    await bob.type("#id_content", "typing")
    await expect(alice.locator("#typing")).to_have_text("bob is typing…")
    await bob.fill("#id_content", "")
    await message(bob, "Who comes along?").hover()
    await message(bob, "Who comes along?").get_by_role("button", name="Reply").click()
    await expect(bob.locator("#answering")).to_contain_text("In reply to alice: Who comes along?")
    await expect(bob.locator("#id_content")).to_be_focused()
    await write(bob, "Me")
    await expect(alice.locator("#typing")).to_have_text("")
    for page in (alice, bob):
        await expect(message(page, "Me").locator(".quote")).to_have_text("In reply to alice: Who comes along?")
    await bob.context.close()
    await expect(alice.locator(".member", has_text="bob")).to_have_class("member")


async def test_enter_sends_and_shift_enter_does_not(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    await alice.type("#id_content", "one")
    await alice.press("#id_content", "Shift+Enter")
    await alice.type("#id_content", "two")
    # Enter takes the suggestion of an input method that is composing.
    await alice.eval_on_selector(
        "#id_content", "field => field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true}))"
    )
    await expect(alice.locator("#messages .message")).to_have_count(0)
    await alice.press("#id_content", "Enter")
    await expect(alice.locator("#messages .content")).to_have_text("one\ntwo")
    assert await alice.locator("#messages .content").inner_text() == "one\ntwo"


async def test_a_refused_message_says_why_and_keeps_its_text(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    await write(alice, "x" * 10_001)
    failed = alice.locator(".message.failed")
    await expect(failed.locator(".state")).to_contain_text("Not sent: A message is not empty and has at most 10000")
    await failed.get_by_role("button", name="Try again").click()
    await expect(failed).to_have_count(1)
    await expect(failed.locator(".content")).to_have_text("x" * 10_001)
    await failed.get_by_role("button", name="Discard").click()
    await expect(alice.locator("#messages .message")).to_have_count(0)
    await alice.reload()
    await expect(alice.locator("#no-messages")).to_be_visible()


async def test_older_messages_are_loaded_and_new_ones_do_not_jump(visitors: Visitors, acme: Tenant) -> None:
    def talk() -> None:
        for number in range(120):
            say(acme, f"message {number}")

    await in_thread(talk)
    bob = await visitors.open(acme, "bob", PATH)
    await expect(bob.locator("#messages .message")).to_have_count(50)
    await expect(message(bob, "message 119")).to_be_in_viewport()
    await bob.get_by_role("button", name="Load older messages").click()
    await expect(bob.locator("#messages .message")).to_have_count(100)
    # What was at the top of the list still is in view.
    await expect(message(bob, "message 70")).to_be_in_viewport()
    await in_thread(say, acme, "the newest")
    await expect(bob.get_by_role("button", name="New messages")).to_be_visible()
    await expect(message(bob, "message 70")).to_be_in_viewport()
    await bob.get_by_role("button", name="New messages").click()
    await expect(message(bob, "the newest")).to_be_in_viewport()
    await bob.get_by_role("button", name="Load older messages").click()
    await expect(bob.locator("#messages .message")).to_have_count(121)
    await expect(bob.locator("#older")).to_be_hidden()
    shown = await bob.locator("#messages .content").all_inner_texts()
    assert shown == [*(f"message {number}" for number in range(120)), "the newest"]


async def test_members_come_and_go(visitors: Visitors, acme: Tenant, rooms: dict[str, ChatRoom]) -> None:
    alice = await visitors.open(acme, "alice")
    bob = await visitors.open(acme, "bob")
    await alice.fill("#id_room-name", "Plans")
    await alice.get_by_role("button", name="Create").click()
    await connected(alice)
    await alice.fill("#id_add-people", "bob")
    await alice.get_by_role("button", name="Add", exact=True).click()
    # It appears in the list of who was added, live.
    await bob.locator(".conversation", has_text="Plans").click()
    await connected(alice)
    await connected(bob)
    await expect(alice.locator(".member")).to_have_count(2)
    await write(alice, "welcome")
    await expect(message(bob, "welcome")).to_be_visible()
    await bob.get_by_role("button", name="Leave the room").click()
    await bob.wait_for_url(visitors.url(acme))
    await expect(alice.locator(".member")).to_have_count(1)
    await expect(bob.locator(".conversation", has_text="Plans")).to_have_count(0)


async def test_who_is_removed_is_told(visitors: Visitors, acme: Tenant) -> None:
    carol = await visitors.open(acme, "carol", PATH)

    def remove() -> None:
        with acme.activated():
            actions.remove_member(acme.users["alice"], room_id=1, user=acme.users["carol"])

    await in_thread(remove)
    await expect(carol.locator("#composer-notice")).to_have_text("You are no longer a member of this room.")
    await expect(carol.locator("#id_content")).to_be_disabled()


async def test_the_pages_speak_french(visitors: Visitors, server: Server, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", locale="fr-FR")
    await expect(alice.locator("h1")).to_have_text("Conversations")
    await expect(alice.locator("#start-title")).to_have_text("Nouvelle conversation")
    await alice.locator(".conversation").click()
    await connected(alice)
    await write(alice, "Bonjour")
    await expect(message(alice, "Bonjour").locator(".broadcast")).to_have_text("Tous les membres")
    async with outage(server):
        await expect(alice.locator("#connection")).to_contain_text("Connexion perdue.")


async def test_the_pages_fit_a_phone(visitors: Visitors, acme: Tenant) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    bob = await visitors.open(acme, "bob", **phone)
    await bob.locator(".conversation").click()
    await connected(bob)
    await write(bob, "word " * 60 + "a_word_that_is_longer_than_the_screen_is_wide_and_must_not_widen_the_page")
    await expect(bob.locator("#messages .message")).to_have_count(1)
    await expect(bob.locator("#members")).to_be_hidden()
    await bob.get_by_role("button", name="Members").click()
    await expect(bob.locator(".member")).to_have_count(3)
    await expect(bob.locator("#members")).to_be_visible()
    assert await bob.evaluate("document.documentElement.scrollWidth") <= 360
    await expect(bob.locator("#id_content")).to_be_in_viewport()


async def test_the_pages_work_by_keyboard_alone(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "Hello")
    bob = await visitors.open(acme, "bob", PATH)
    await bob.keyboard.press("Tab")
    await expect(bob.locator(".skip-link")).to_be_focused()
    await bob.keyboard.press("Enter")
    await bob.get_by_role("button", name="Reply").focus()
    await bob.keyboard.press("Enter")
    await bob.keyboard.type("by keyboard")
    await bob.keyboard.press("Escape")
    await expect(bob.locator("#answering")).to_be_hidden()
    await bob.keyboard.press("Enter")
    await expect(message(bob, "by keyboard")).to_be_visible()


async def test_a_page_of_another_protocol_sees_why_it_is_refused(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    code = await alice.evaluate(
        """() => new Promise((resolve) => {
            const socket = new WebSocket(`ws://${location.host}/ws/messages/`, ["tenant-messaging.v0"]);
            socket.onclose = (event) => resolve(event.code);
        })"""
    )
    assert code == 4406
