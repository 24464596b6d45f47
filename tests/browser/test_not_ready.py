"""The page that stands for a tenant that isn't ready, in a real browser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from tests.harness.breaking import without_record, without_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.async_api import Page

    from tests.browser.conftest import Visitors
    from tests.harness.server import Server
    from tests.harness.tenants import Tenant

#: What an operator sees is what has to fit.
DETAILS = json.dumps({"SHOW_MIGRATION_DETAILS": True})
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 640}}
WORDS = {
    "en": ("Temporarily unavailable", "Try again", "For administrators"),
    "fr": ("Temporairement indisponible", "Réessayer", "Pour les administrateurs"),
}
#: The ratio of luminances between what is written and what is behind it, for each piece of text.
CONTRASTS = """() => {
    const luminance = ([r, g, b]) => [r, g, b]
        .map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const ground = (element) => {
        const color = numbers(getComputedStyle(element).backgroundColor);
        return color[3] === 0 ? ground(element.parentElement) : color;
    };
    return [...document.querySelectorAll("h1, h2, p, a, dt, dd, code")].map((element) => {
        const pair = [luminance(numbers(getComputedStyle(element).color)), luminance(ground(element))];
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    });
}"""


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    """A server whose visitors are all let see details."""
    return start_server(TENANT_MESSAGING=DETAILS)


async def visit(visitors: Visitors, tenant: Tenant, **context: Any) -> Page:
    page = await (await visitors.browser.new_context(**context)).new_page()
    response = await page.goto(visitors.url(tenant))
    assert response is not None
    assert response.status == 503
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", WORDS)
@pytest.mark.parametrize("size", SIZES)
async def test_the_page_fits_the_screen_and_can_be_read(
    visitors: Visitors, acme: Tenant, database_url: str, size: str, language: str, scheme: str
) -> None:
    title, again, administrators = WORDS[language]
    # Some of its migrations' names are wider than a phone.
    with without_record(database_url, acme.schema_name, "auth"):
        page = await visit(visitors, acme, locale=language, viewport=SIZES[size], color_scheme=scheme)
        assert await page.title() == title
        await expect(page.locator("html")).to_have_attribute("lang", language)
        main = page.get_by_role("main")
        await expect(main.get_by_role("heading", level=1)).to_have_text(title)
        await expect(main.get_by_role("link", name=again)).to_be_visible()
        await expect(main.get_by_role("region", name=administrators)).to_contain_text("acme.localhost")
        await expect(main.locator("pre")).to_have_text("python manage.py migrate_schemas --schema=acme")
        assert await page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        # WCAG AA for text of normal size.
        assert min(await page.evaluate(CONTRASTS)) >= 4.5


async def test_its_policy_lets_its_styles_through_and_no_script_or_frame(
    visitors: Visitors, acme: Tenant, database_url: str
) -> None:
    with without_table(database_url, acme.schema_name):
        page = await (await visitors.browser.new_context()).new_page()
        violations: list[str] = []
        page.on("console", lambda said: violations.append(said.text) if "Security Policy" in said.text else None)
        await page.goto(visitors.url(acme))
        await page.wait_for_load_state("networkidle")
        assert await page.evaluate("getComputedStyle(document.querySelector('.sign')).borderRadius") == "50%"
        assert violations == []
        await page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'ran = 1'}))")
        assert await page.evaluate("typeof ran") == "undefined"
        await page.evaluate("document.body.append(Object.assign(document.createElement('iframe'), {src: '/'}))")
        while len(violations) < 2:
            await page.wait_for_timeout(20)
        assert "script-src" in violations[0]
        assert "frame" in violations[1]


async def test_it_asks_for_nothing_else(visitors: Visitors, acme: Tenant, database_url: str) -> None:
    with without_table(database_url, acme.schema_name):
        page = await (await visitors.browser.new_context()).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(visitors.url(acme))
        await page.wait_for_load_state("networkidle")
        assert [url for url in asked if not url.startswith("data:")] == [visitors.url(acme)]
        await expect(page.locator("script")).to_have_count(0)


async def test_trying_again_after_the_repair_shows_the_tenant(
    visitors: Visitors, acme: Tenant, globex: Tenant, database_url: str
) -> None:
    with without_table(database_url, acme.schema_name):
        page = await visit(visitors, acme)
        other = await (await visitors.browser.new_context()).new_page()
        response = await other.goto(visitors.url(globex))
        assert response is not None
        assert response.status == 200
    # It is looked at again every two seconds.
    async with page.expect_response(lambda response: response.status == 200):
        while await page.get_by_role("heading", name="Temporarily unavailable").is_visible():
            await page.get_by_role("link", name="Try again").click()
    await expect(page.locator("#id_username")).to_be_visible()
