from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import pytest_asyncio
from django.db import connections
from playwright.async_api import async_playwright, expect

from django_tenant_messaging import actions
from tests.harness.tenants import PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from playwright.async_api import Browser, ConsoleMessage, Page

    from django_tenant_messaging.models import ChatRoom
    from tests.harness.server import Server
    from tests.harness.sites import Sites
    from tests.harness.tenants import Tenant

T = TypeVar("T")
CHROMIUM_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.localhost 127.0.0.1",
]
TIMEOUT_MS = 20_000
# Two workers with browsers and servers share a machine.
expect.set_options(timeout=TIMEOUT_MS)
#: What a browser says of a server that is down, or on its way there, on purpose. Which of the network's errors it
#: names depends on how far it had come: a socket it opened in advance may break before it is used.
EXPECTED_WHILE_DOWN = re.compile(
    r"net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED|ABORTED)|SOCKET_NOT_CONNECTED|EMPTY_RESPONSE)\b"
    r"|Connection closed before receiving a handshake response"
    r"|Unexpected response code: 503"
)


@dataclass
class Visitors:
    """Browsers of people, each with a session of their own, whose consoles are listened to."""

    browser: Browser
    sites: Sites
    complaints: list[str]

    def url(self, tenant: Tenant, path: str = "/messages/") -> str:
        """The address of a page of the tenant."""
        return f"{self.sites.origin(tenant)}{path}"

    async def open(self, tenant: Tenant, username: str, path: str = "/messages/", **context: Any) -> Page:
        """Log in and open a page."""
        page = await (await self.browser.new_context(**context)).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(self.url(tenant, path))
        await page.fill("#id_username", username)
        await page.fill("#id_password", PASSWORD)
        await page.click("main button")
        await page.wait_for_url(self.url(tenant, path))
        await connected(page)
        return page

    def _note(self, message: ConsoleMessage) -> None:
        is_harmless = EXPECTED_WHILE_DOWN.search(message.text) or message.location["url"].endswith("/favicon.ico")
        if message.type in {"error", "warning"} and not is_harmless:
            self.complaints.append(f"{message.location['url']}: {message.text}")


async def connected(page: Page) -> None:
    """Wait until the page's module has its stream: after a long outage it waits for half a minute to try again."""
    await expect(page.locator("html")).to_have_attribute("data-connection", "open", timeout=3 * TIMEOUT_MS)


@asynccontextmanager
async def outage(server: Server) -> AsyncIterator[None]:
    """Stop the server for the time of the body."""
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def visiting(chromium: str, sites: Sites) -> AsyncIterator[Visitors]:
    """A browser for pages on a port; whatever they complain of in its console fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield Visitors(browser, sites, complaints)
        await browser.close()
    assert complaints == []


@pytest_asyncio.fixture
async def visitors(chromium: str, server: Server) -> AsyncIterator[Visitors]:
    """A browser for the server's pages."""
    async with visiting(chromium, server) as visitors:
        yield visitors


@pytest.fixture
def rooms(tenants: tuple[Tenant, Tenant], people: tuple[str, ...]) -> dict[str, ChatRoom]:
    """A room of everybody in each tenant, with equal ids, by the tenant's name."""
    made = {}
    for tenant in tenants:
        alice, *others = (tenant.users[name] for name in people)
        with tenant.activated():
            made[tenant.schema_name] = actions.create_room(alice, name=f"{tenant.schema_name} general", members=others)
    return made


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """Run database work beside the event loop, and give its connection back."""

    def run() -> T:
        try:
            return call(*args)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)
