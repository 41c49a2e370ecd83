"""The explorer for everybody: by keyboard, on a phone, in the dark, read aloud."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import Browse
from explored import Explored
from explorer_page import PICTURE, actions, follow, send, use_ticket

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.timeout(120)


async def test_all_of_it_by_keyboard_alone(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await actions(page)
        keys = page.keyboard
        await keys.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "skip"
        await keys.press("/")
        await keys.type("product")
        await keys.press("ArrowDown")
        await keys.press("End")
        await keys.press("ArrowUp")
        await keys.press("Home")
        await keys.press("Escape")
        assert await page.evaluate("document.activeElement.id") == "filter"
        await keys.press("Escape")
        assert await page.input_value("#filter") == ""
        await keys.type("fetch")
        await keys.press("ArrowDown")
        await keys.press("Enter")
        await page.wait_for_selector("h1:has-text('Product.Sku.fetch')")
        await page.wait_for_function("document.activeElement.id === 'action-name'")
        await keys.press("Control+Enter")
        await page.wait_for_selector("text=Ticket required")
        await focus(page, "Set a ticket")
        await keys.press("Enter")
        await page.wait_for_selector("dialog[open]")
        await keys.insert_text(site.ticket("bob"))
        await keys.press("Enter")
        await page.wait_for_selector("dialog", state="hidden")
        await page.focus("[data-key='query code']")
        await keys.type("CHAIR-1")
        await keys.press("Control+Enter")
        await page.wait_for_selector("#reply >> text=Oak chair")
        assert "Reply 200 OK" in await page.inner_text("#announce")


async def focus(page: Page, text: str) -> None:
    """Go on with Tab until what has the focus has this text."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.innerText") == text:
            return
    raise AssertionError(f"Tab does not come to {text!r}")


async def test_methods_are_chosen_with_the_arrow_keys(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.update")
        await page.focus("input[name=method]:checked")
        assert await page.input_value("input[name=method]:checked") == "PATCH"
        await page.keyboard.press("ArrowLeft")
        await page.wait_for_selector("input[name=method][value=PUT]:checked")
        assert await page.evaluate("document.activeElement.value") == "PUT"


async def test_long_keys_leave_room_for_values_on_a_phone(site: Explored, browse: Browse) -> None:
    codes = {"price": {"k" * 120: {"deep": "y" * 300}}}
    site.events.snapshot = {"service": "shop", "sector": "main", "codes": codes}
    async with browse(site, viewport={"width": 375, "height": 740}) as browser:
        page = await browser.open("/docs/events#shop?code=price")
        await page.wait_for_selector(".state[data-state=ready]")
        beside = "element => element.scrollWidth - element.clientWidth"
        assert await page.locator(".values").evaluate(beside) == 0
        cell = await page.locator(".value").bounding_box()
        assert cell is not None
        assert cell["width"] > 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_theme_is_the_systems_until_one_is_chosen_and_remembered(
    site: Explored, browse: Browse, scheme: str
) -> None:
    colours = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}
    other = "dark" if scheme == "light" else "light"
    ask = "getComputedStyle(document.documentElement).backgroundColor"
    async with browse(site, color_scheme=scheme) as browser:
        page = await browser.open("/docs")
        assert await page.evaluate(ask) == colours[scheme]
        await page.click("[aria-label='Theme: auto']")
        if other == "dark":
            await page.click("[aria-label='Theme: light']")
        assert await page.evaluate(ask) == colours[other]
        await page.reload()
        assert await page.evaluate(ask) == colours[other]


async def test_phone_shows_list_or_action_and_nothing_beside_the_screen(
    site: Explored, browse: Browse
) -> None:
    async with browse(site, viewport={"width": 375, "height": 740}, has_touch=True) as browser:
        page = await browser.open("/docs")
        await page.wait_for_selector("#list a")
        assert await page.is_hidden("#detail")
        await page.tap("[data-key='Product.Sku.create']")
        await page.wait_for_selector("h1:has-text('Product.Sku.create')")
        assert await page.is_hidden("#list")
        await send(page)
        for selector in (".back", "#tab-events", "#ticket-button"):
            await page.tap(selector)
            width = "document.documentElement.scrollWidth"
            assert await page.evaluate(width) == 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(site: Explored, browse: Browse, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    source = Path(axe.__file__).with_name("axe.min.js").read_text()
    async with browse(site, color_scheme=scheme, bypass_csp=True) as browser:
        page = await browser.open("/docs")
        await page.evaluate(source)

        async def check() -> None:
            found = await page.evaluate("axe.run()")
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []

        await actions(page)
        await check()
        await page.click("[data-key='Product.Sku.create']")
        await use_ticket(page, site, "bob")
        await send(page)
        await check()
        await page.click("[data-key='Product.Sku.list']")
        await send(page)
        await check()
        await page.click("#ticket-button")
        await check()
        await page.click("text=Close")
        site.events.snapshot = PICTURE
        await follow(page, "shop", "price")
        await check()
