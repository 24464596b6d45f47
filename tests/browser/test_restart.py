"""Workers are replaced one after the other while people talk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import expect

from tests.browser.conftest import connected, in_thread, visiting
from tests.browser.test_room import PATH, message, stored, write
from tests.chaos.proxy import Proxy
from tests.harness.sites import Sites

if TYPE_CHECKING:
    from collections.abc import Callable

    from example.services import LocalRedis
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

pytestmark = pytest.mark.usefixtures("rooms")
NOTE_WHAT_IS_SHOWN = """() => {
  window.shown = [];
  const look = () => {
    for (const part of document.querySelectorAll("#connection, .notice, [role=alert]")) {
      const text = part.textContent.trim();
      if (part.checkVisibility() && text) window.shown.push(text);
    }
  };
  new MutationObserver(look).observe(document, {
    subtree: true, childList: true, attributes: true, characterData: true
  });
}"""


async def test_nobody_notices_a_rolling_restart(
    chromium: str, start_server: Callable[..., Server], redis_server: LocalRedis, acme: Tenant
) -> None:
    workers = [await asyncio.to_thread(start_server, REDIS_URL=redis_server.url()) for _ in range(2)]
    balancer = Proxy((worker.address, worker.port) for worker in workers)
    await balancer.start()
    sent: list[str] = []

    async def restart() -> None:
        for worker in workers:
            await asyncio.to_thread(worker.stop)
            await asyncio.to_thread(worker.start)

    try:
        async with visiting(chromium, Sites(balancer.port)) as visitors:
            alice, bob = [await visitors.open(acme, name, PATH) for name in ("alice", "bob")]
            for page in (alice, bob):
                await page.evaluate(NOTE_WHAT_IS_SHOWN)
            connections = set(balancer.links)
            restarting = asyncio.create_task(restart())
            while not restarting.done():
                for name, page in (("alice", alice), ("bob", bob)):
                    sent.append(f"{name} {len(sent)}")
                    await write(page, sent[-1])
            await restarting
            for page in (alice, bob):
                await connected(page)
                for text in sent:
                    await expect(message(page, text)).to_have_count(1)
                    await expect(message(page, text).locator(".state")).to_be_hidden()
                assert await page.evaluate("window.shown") == []
            assert not connections & balancer.links
    finally:
        await balancer.stop()
    assert sorted(await in_thread(stored, acme)) == sorted(sent)
