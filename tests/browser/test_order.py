"""The order of the list of conversations: the same live as after a reload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from django_tenant_messaging import actions
from tests.browser.conftest import connected, in_thread

if TYPE_CHECKING:
    from tests.browser.conftest import Visitors
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("rooms")


async def test_an_empty_room_of_somebody_else_comes_after_the_conversations(visitors: Visitors, acme: Tenant) -> None:
    alice, bob = acme.users["alice"], acme.users["bob"]

    def make(name: str) -> int:
        with acme.activated():
            return actions.create_room(alice, name=name, members=[bob]).pk

    def say(room_id: int) -> None:
        with acme.activated():
            actions.send_message(alice, room_id=room_id, content="something")

    old = await in_thread(make, "old")
    await in_thread(say, old)
    await in_thread(make, "empty")
    page = await visitors.open(acme, "bob")
    await connected(page)
    names = page.locator("#conversations .name")
    before = ["old", "empty", "acme general"]
    await expect(names).to_have_text(before)
    made = await in_thread(make, "made now")
    expected = ["old", "made now", "empty", "acme general"]
    await expect(names).to_have_text(expected)
    await page.reload()
    await expect(names).to_have_text(expected)
    await connected(page)
    await in_thread(say, made)
    expected = ["made now", *before]
    await expect(names).to_have_text(expected)
    await page.reload()
    await expect(names).to_have_text(expected)
