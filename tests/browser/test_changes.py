"""Messages are edited and deleted, and rooms renamed, in front of everybody's eyes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import F
from playwright.async_api import expect

from django_tenant_messaging import actions
from django_tenant_messaging.models import Message, Notification, RoomCounter
from tests.browser.conftest import connected, in_thread, outage
from tests.browser.test_room import PATH, message, say, write

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page

    from tests.browser.conftest import Visitors
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("rooms")
#: Lets a test keep the answers to `history` back until it calls `release()`.
HOLD_HISTORY = """
window.held = null;
window.release = () => { const held = window.held; window.held = null; held.forEach((give) => give()); };
window.WebSocket = class extends WebSocket {
  set onmessage(handler) {
    super.onmessage = handler && ((event) => {
      if (window.held !== null && event.data.includes('"has_before"')) {
        window.held.push(() => handler(event));
        document.documentElement.dataset.held = window.held.length;
      } else {
        handler(event);
      }
    });
  }
};
"""

#: Gives the page the setting that the server doesn't have.
LIMIT_EDITING = """
const parse = JSON.parse;
JSON.parse = (text) => {
  const value = parse(text);
  return value && "editWindow" in value ? { ...value, editWindow: 3600 } : value;
};
"""


def change(tenant: Tenant, action: Any, username: str, **fields: Any) -> None:
    with tenant.activated():
        action(tenant.users[username], room_id=1, **fields)


def item(page: Page, number: int) -> Locator:
    """The message of an id."""
    return page.locator(f"#message-{number}")


async def press(page: Page, number: int, name: str) -> None:
    await item(page, number).hover()
    await item(page, number).get_by_role("button", name=name, exact=True).click()


async def test_a_message_is_edited_in_its_place(visitors: Visitors, acme: Tenant, globex: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    stranger = await visitors.open(globex, "alice", PATH)
    await in_thread(say, globex, "of globex")
    await write(alice, "Helo everybody")
    await write(alice, "Another one")
    await expect(message(bob, "Another one")).to_be_visible()
    await expect(item(bob, 1).get_by_role("button", name="Edit")).to_be_hidden()
    await press(alice, 1, "Edit")
    field = alice.get_by_role("textbox", name="Edit message")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("Helo everybody")
    await field.fill("Hello @bob")
    await alice.keyboard.press("Shift+Enter")
    await alice.keyboard.type("and everybody")
    await alice.keyboard.press("Enter")
    for page in (alice, bob):
        await expect(item(page, 1).locator(".content")).to_have_text("Hello @bob\nand everybody")
        await expect(item(page, 1).get_by_role("button", name="edited")).to_be_visible()
        await expect(item(page, 1).locator(".broadcast")).to_be_hidden()
        await expect(page.locator("#messages .message")).to_have_count(2)
    await expect(item(alice, 1).locator(".mention")).to_have_text("mentions bob")
    await expect(item(bob, 1).locator(".mention")).to_have_text("@you")
    await expect(alice.locator(".editor")).to_have_count(0)
    await expect(item(alice, 1).get_by_role("button", name="Edit", exact=True)).to_be_focused()
    # In the page that the server makes, too.
    await bob.reload()
    await connected(bob)
    await expect(item(bob, 1).locator(".content")).to_have_text("Hello @bob\nand everybody")
    await item(bob, 1).get_by_role("button", name="edited").click()
    await expect(item(bob, 1).locator(".versions li")).to_have_count(1)
    await expect(item(bob, 1).locator(".earlier")).to_have_text("Helo everybody")
    await expect(stranger.locator("#messages .content")).to_have_text("of globex")


async def test_editing_by_keyboard_and_giving_it_up(visitors: Visitors, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    await write(alice, "as it was")
    button = item(alice, 1).get_by_role("button", name="Edit", exact=True)
    await button.focus()
    await alice.keyboard.press("Enter")
    await alice.keyboard.type(", changed")
    await alice.keyboard.press("Escape")
    await expect(alice.locator(".editor")).to_have_count(0)
    await expect(button).to_be_focused()
    await expect(item(alice, 1).locator(".content")).to_have_text("as it was")
    # Nothing but blanks is refused, and the same text is no change.
    await alice.keyboard.press("Enter")
    await alice.get_by_role("textbox", name="Edit message").fill("  ")
    await alice.keyboard.press("Enter")
    await expect(alice.locator(".editor .notice")).to_contain_text("A message is not empty")
    await alice.get_by_role("textbox", name="Edit message").fill("as it was")
    await alice.keyboard.press("Enter")
    await expect(alice.locator(".editor")).to_have_count(0)
    await expect(item(alice, 1).locator(".edited")).to_be_hidden()


async def test_earlier_versions_open_and_close(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "one")
    for content in ("two", "<b>three</b>"):
        await in_thread(
            lambda content=content: change(acme, actions.edit_message, "alice", message_id=1, content=content)
        )
    bob = await visitors.open(acme, "bob", PATH)
    button = item(bob, 1).get_by_role("button", name="edited")
    await expect(button).to_have_attribute("aria-expanded", "false")
    await button.press("Enter")
    await expect(item(bob, 1).locator(".earlier")).to_have_text(["one", "two"])
    await expect(button).to_have_attribute("aria-expanded", "true")
    await expect(item(bob, 1).get_by_role("list", name="Earlier versions")).to_be_visible()
    # Another edit closes them: they are no longer all.
    await in_thread(lambda: change(acme, actions.edit_message, "alice", message_id=1, content="four"))
    await expect(item(bob, 1).locator(".versions")).to_be_hidden()
    await button.press("Enter")
    await expect(item(bob, 1).locator(".earlier")).to_have_text(["one", "two", "<b>three</b>"])
    await button.press("Enter")
    await expect(item(bob, 1).locator(".versions")).to_be_hidden()
    await expect(button).to_be_focused()


async def test_a_message_is_deleted_for_everybody(visitors: Visitors, acme: Tenant, globex: Tenant) -> None:
    stranger = await visitors.open(globex, "bob", PATH)
    await in_thread(say, globex, "of globex")
    bob = await visitors.open(acme, "bob", PATH)
    carol = await visitors.open(acme, "carol")
    await write(bob, "a secret for @carol")
    await write(bob, "the rest")
    await press(bob, 1, "Reply")
    await write(bob, "see above")
    await expect(carol.locator("#notifications [data-part=count]")).to_have_text("1")
    await expect(carol.locator(".conversation .count")).to_have_text("3")
    dialog = bob.get_by_role("dialog", name="Delete this message?")
    button = item(bob, 1).get_by_role("button", name="Delete", exact=True)
    await button.focus()
    await bob.keyboard.press("Enter")
    await expect(dialog).to_contain_text("a secret for @carol")
    await expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    await bob.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()
    await bob.keyboard.press("Enter")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(dialog).to_be_hidden()
    await expect(item(bob, 1)).to_be_focused()
    await expect(item(bob, 1).locator(".tombstone")).to_have_text("This message was deleted.")
    await expect(item(bob, 1).locator(".tools button:visible")).to_have_count(0)
    await expect(item(bob, 3).locator(".quote")).to_have_text("In reply to bob: This message was deleted.")
    # Nothing of it is unread, or told, any more.
    await expect(carol.locator(".conversation .count")).to_have_text("2")
    await expect(carol.locator("#notifications [data-part=count]")).to_be_hidden()
    await press(bob, 3, "Delete")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(carol.locator(".conversation .preview")).to_have_text("bob: This message was deleted.")
    await expect(carol.locator(".conversation .count")).to_have_text("1")
    for page in (bob, carol):
        await page.reload()
        await connected(page)
        assert "secret" not in await page.content()
    await expect(carol.locator(".conversation .preview")).to_have_text("bob: This message was deleted.")
    await expect(carol.locator(".conversation .count")).to_have_text("1")
    await expect(item(bob, 1).locator(".tombstone")).to_be_visible()
    await expect(item(bob, 1).locator(".content")).to_be_hidden()
    await expect(bob.locator("#messages .content:visible")).to_have_text(["the rest"])
    await expect(stranger.locator("#messages .content")).to_have_text(["of globex"])
    assert await in_thread(count_notifications, acme) == 0


def count_notifications(tenant: Tenant) -> int:
    with tenant.activated():
        return Notification.objects.count()


async def test_owners_may_delete_what_others_wrote(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "of bob", "bob")
    carol = await visitors.open(acme, "carol", PATH)
    alice = await visitors.open(acme, "alice", PATH)
    await expect(item(carol, 1).locator(".tools button:visible")).to_have_count(1)
    await expect(item(alice, 1).get_by_role("button", name="Edit", exact=True)).to_be_hidden()
    await press(alice, 1, "Delete")
    await alice.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(item(carol, 1).locator(".tombstone")).to_be_visible()


async def test_what_was_missed_is_changed_in_its_place(visitors: Visitors, server: Server, acme: Tenant) -> None:
    for number in range(1, 4):
        await in_thread(say, acme, f"message {number}")
    bob = await visitors.open(acme, "bob", PATH)

    def talk() -> None:
        change(acme, actions.edit_message, "alice", message_id=1, content="edited")
        change(acme, actions.edit_message, "alice", message_id=1, content="edited twice")
        change(acme, actions.delete_message, "alice", message_id=2)
        change(acme, actions.rename_room, "alice", name="another name")
        say(acme, "message 4")

    async with outage(server):
        await expect(bob.locator("#connection")).to_contain_text("Connection lost.")
        await in_thread(talk)
    await expect(message(bob, "message 4")).to_be_visible()
    shown = bob.locator("#messages :is(.content, .tombstone):visible")
    await expect(shown).to_have_text(["edited twice", "This message was deleted.", "message 3", "message 4"])
    await expect(bob.locator("h1")).to_have_text("another name")


async def test_too_much_was_missed_to_be_sent_again(visitors: Visitors, server: Server, acme: Tenant) -> None:
    for number in range(1, 4):
        await in_thread(say, acme, f"message {number}")
    bob = await visitors.open(acme, "bob", PATH)

    def talk() -> None:
        change(acme, actions.edit_message, "alice", message_id=1, content="edited")
        change(acme, actions.delete_message, "alice", message_id=2)
        change(acme, actions.rename_room, "alice", name="another name")
        with acme.activated():
            RoomCounter.objects.update(last_seq=F("last_seq") + 2_000)

    async with outage(server):
        await expect(bob.locator("#connection")).to_contain_text("Connection lost.")
        await in_thread(talk)
    await expect(item(bob, 1).locator(".content")).to_have_text("edited")
    await expect(item(bob, 2).locator(".tombstone")).to_be_visible()
    await expect(bob.locator("h1")).to_have_text("another name")
    await expect(bob.locator("#messages .message")).to_have_count(3)


async def test_a_change_of_what_is_not_loaded_is_seen_once_it_is(visitors: Visitors, acme: Tenant) -> None:
    def talk() -> None:
        for number in range(1, 71):
            say(acme, f"message {number}")

    await in_thread(talk)
    bob = await visitors.open(acme, "bob")
    await bob.add_init_script(HOLD_HISTORY)
    await bob.goto(visitors.url(acme, PATH))
    await connected(bob)
    await in_thread(lambda: change(acme, actions.edit_message, "alice", message_id=1, content="before it was asked"))
    # The page of the history is made before the second edit, and arrives after it.
    await bob.evaluate("window.held = []")
    await bob.get_by_role("button", name="Load older messages").click()
    await expect(bob.locator("html")).to_have_attribute("data-held", "1")
    await in_thread(lambda: change(acme, actions.edit_message, "alice", message_id=2, content="overtook the page"))
    await in_thread(lambda: change(acme, actions.delete_message, "alice", message_id=60))
    await expect(item(bob, 60).locator(".tombstone")).to_be_visible()
    await expect(item(bob, 2)).to_have_count(0)
    await bob.evaluate("window.release()")
    await expect(item(bob, 2).locator(".content")).to_have_text("overtook the page")
    await expect(item(bob, 1).locator(".content")).to_have_text("before it was asked")
    await expect(bob.locator("#messages .message")).to_have_count(70)


async def test_an_edit_that_fails_is_kept_until_it_succeeds(visitors: Visitors, server: Server, acme: Tenant) -> None:
    alice = await visitors.open(acme, "alice", PATH)
    await write(alice, "first")
    await press(alice, 1, "Edit")
    await alice.get_by_role("textbox", name="Edit message").fill("second")
    async with outage(server):
        await expect(alice.locator("#connection")).to_contain_text("Connection lost.")
        await alice.get_by_role("button", name="Save").click()
        await expect(alice.locator(".editor .notice")).to_have_text("Not saved: The connection is lost.")
    await connected(alice)
    await expect(alice.get_by_role("textbox", name="Edit message")).to_have_value("second")
    await alice.get_by_role("button", name="Save").click()
    await expect(item(alice, 1).locator(".content")).to_have_text("second")
    await expect(alice.locator(".editor")).to_have_count(0)


async def test_a_message_that_is_deleted_while_it_is_edited(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "of bob", "bob")
    bob = await visitors.open(acme, "bob", PATH)
    await press(bob, 1, "Reply")
    await press(bob, 1, "Edit")
    await expect(bob.get_by_role("textbox", name="Edit message")).to_be_focused()
    await in_thread(lambda: change(acme, actions.delete_message, "alice", message_id=1))
    await expect(item(bob, 1).locator(".tombstone")).to_be_visible()
    await expect(bob.locator(".editor")).to_have_count(0)
    await expect(item(bob, 1)).to_be_focused()
    await expect(bob.locator("#answering")).to_contain_text("This message was deleted.")


async def test_editing_is_not_offered_after_its_time(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "old")
    await in_thread(say, acme, "new")

    def age() -> None:
        with acme.activated():
            Message.objects.filter(pk=1).update(timestamp=F("timestamp") - timedelta(hours=2))

    await in_thread(age)
    alice = await visitors.open(acme, "alice")

    await alice.add_init_script(LIMIT_EDITING)
    await alice.goto(visitors.url(acme, PATH))
    await connected(alice)
    await item(alice, 1).hover()
    await expect(item(alice, 1).get_by_role("button", name="Delete", exact=True)).to_be_visible()
    await expect(item(alice, 1).get_by_role("button", name="Edit", exact=True)).to_be_hidden()
    await expect(item(alice, 2).get_by_role("button", name="Edit", exact=True)).to_be_visible()
    # The time passes while the page is open.
    await alice.evaluate("Date.now = () => 8.64e15")
    await item(alice, 2).hover()
    await expect(item(alice, 2).get_by_role("button", name="Edit", exact=True)).to_be_hidden()


async def test_a_room_is_renamed_in_front_of_everybody(visitors: Visitors, acme: Tenant, globex: Tenant) -> None:
    stranger = await visitors.open(globex, "bob", PATH)
    alice = await visitors.open(acme, "alice", PATH)
    bob = await visitors.open(acme, "bob", PATH)
    carol = await visitors.open(acme, "carol")
    await alice.fill("#id_content", "half a message")
    await alice.fill("#id_rename-name", "<i>Plans</i>")
    await alice.get_by_role("button", name="Rename").click()
    for page in (alice, bob):
        await expect(page.locator("h1")).to_have_text("<i>Plans</i>")
        await expect(page).to_have_title("<i>Plans</i> · Messages")
    await expect(bob.locator("#id_rename-name")).to_have_value("<i>Plans</i>")
    await expect(carol.locator(".conversation .name")).to_have_text("<i>Plans</i>")
    await expect(alice.locator("#id_content")).to_have_value("half a message")
    await alice.fill("#id_rename-name", " ")
    await alice.get_by_role("button", name="Rename").click()
    await expect(alice.locator("#naming .notice")).to_contain_text("The room needs a name of at most 120 characters.")
    await expect(stranger.locator("h1")).to_have_text("globex general")


async def test_who_is_removed_can_change_nothing_more(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "of carol", "carol")
    carol = await visitors.open(acme, "carol", PATH)

    def remove() -> None:
        change(acme, actions.remove_member, "alice", user=acme.users["carol"])

    await expect(item(carol, 1).locator(".tools button:not([hidden])")).to_have_count(3)
    await in_thread(remove)
    await expect(item(carol, 1).locator(".tools button:not([hidden])")).to_have_count(0)


async def test_changing_fits_a_phone(visitors: Visitors, acme: Tenant) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    bob = await visitors.open(acme, "bob", PATH, **phone)
    await write(bob, "word " * 30 + "a_word_that_is_longer_than_the_screen_is_wide_and_must_not_widen_the_page")
    for name in ("Reply", "Edit", "Delete"):
        await expect(item(bob, 1).get_by_role("button", name=name, exact=True)).to_be_in_viewport()
    await item(bob, 1).get_by_role("button", name="Edit", exact=True).tap()
    await bob.get_by_role("textbox", name="Edit message").fill("a_word_that_is_as_long_" * 8)
    await expect(bob.get_by_role("button", name="Save")).to_be_in_viewport()
    assert await bob.evaluate("document.documentElement.scrollWidth") <= 360
    await bob.get_by_role("button", name="Save").tap()
    await item(bob, 1).get_by_role("button", name="edited").tap()
    await expect(item(bob, 1).locator(".earlier")).to_have_count(1)
    assert await bob.evaluate("document.documentElement.scrollWidth") <= 360
    await item(bob, 1).get_by_role("button", name="Delete", exact=True).tap()
    await expect(bob.get_by_role("dialog").get_by_role("button", name="Delete")).to_be_in_viewport()
    await bob.get_by_role("dialog").get_by_role("button", name="Delete").tap()
    await expect(item(bob, 1).locator(".tombstone")).to_be_visible()


async def test_changing_speaks_french(visitors: Visitors, acme: Tenant) -> None:
    await in_thread(say, acme, "Bonjour")
    await in_thread(lambda: change(acme, actions.edit_message, "alice", message_id=1, content="Bonsoir"))
    alice = await visitors.open(acme, "alice", PATH, locale="fr-FR")
    await expect(item(alice, 1).locator(".edited")).to_have_attribute("title", re.compile("^Modifié le "))
    await press(alice, 1, "Supprimer")
    await expect(alice.get_by_role("dialog", name="Supprimer ce message ?")).to_be_visible()
    await alice.get_by_role("dialog").get_by_role("button", name="Supprimer").click()
    await expect(item(alice, 1).locator(".tombstone")).to_have_text("Ce message a été supprimé.")
