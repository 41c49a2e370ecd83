"""The explorer's page of live values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from browser import Browse
from explored import Explored, Fixed, explored
from explorer_page import PICTURE, follow, use_ticket, value_of
from gateway.demo.folder import Folder

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.timeout(120)


async def test_values_change_before_ones_eyes(site: Explored, browse: Browse) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await use_ticket(page, site, "bob")
        await follow(page, "shop", "price, stock")
        assert await page.text_content(value_of("price", "LAMP-1")) == "4900"
        site.events.say("change", {"code": "price", "key": "LAMP-1", "value": 4500})
        await page.wait_for_selector(f"{value_of('price', 'LAMP-1')}:text-is('4500')")
        assert await page.locator("tr.fresh .value").all_inner_texts() == ["4500"]
        site.events.say("change", {"code": "stock", "key": "LAMP-1", "deleted": True})
        await page.wait_for_selector(value_of("stock", "LAMP-1"), state="detached")
        site.events.say(
            "change",
            {"code": "DESK-1", "key": "<b>", "value": {"x": "<b>"}},
        )
        await page.wait_for_selector(value_of("DESK-1", "<b>"))
        site.events.say("stale")
        await page.wait_for_selector(".state[data-state=stale]")
        site.events.say("ready")
        await page.wait_for_selector(".state[data-state=ready]")
        target, headers = site.events.asked[0]
        assert target == "/api/events/shop?code=price&code=stock"
        assert headers["Authorization"] == f"Bearer {site.ticket('bob')}"
        await page.click("text=Stop")
        await page.wait_for_selector(".state[data-state=idle]")


async def test_stream_that_ends_is_taken_up_where_it_was(site: Explored, browse: Browse) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs/events#shop?code=price")
        await page.wait_for_selector(".state[data-state=ready]")
        site.events.say("change", {"code": "price", "key": "LAMP-1", "value": 1}, number=7)
        await page.wait_for_selector(f"{value_of('price', 'LAMP-1')}:text-is('1')")
        site.events.hang_up()
        site.events.say("change", {"code": "price", "key": "LAMP-1", "value": 2}, number=8)
        await page.wait_for_selector(f"{value_of('price', 'LAMP-1')}:text-is('2')")
        assert "Last-Event-ID" not in site.events.asked[0][1]
        assert site.events.asked[1][1]["Last-Event-ID"] == "7"


async def test_expired_ticket_ends_it_and_another_one_takes_it_up(
    site: Explored, browse: Browse
) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs/events#shop?code=price")
        await page.wait_for_selector(".state[data-state=ready]")
        site.events.say("expired")
        site.events.hang_up()
        await page.wait_for_selector(".state >> text=The ticket has expired.")
        await page.click(".state >> text=Set a ticket")
        await page.fill("#ticket-text", site.ticket("bob"))
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".state[data-state=ready]")
        assert len(site.events.asked) == 2


async def test_refusal_ends_it_with_the_reason(folder: Folder, browse: Browse) -> None:
    refusal = b'{"title": "Privilege missing", "detail": "Secret._events takes stock_read."}'
    other = Fixed("/api/events/{service}", lambda _: (403, "application/problem+json", refusal))
    async with explored(folder, {"/api/events/Secret": other}) as site, browse(site) as browser:
        page = await browser.open("/docs/events#Secret?code=A")
        await page.wait_for_selector(".state >> text=403: Secret._events takes stock_read.")
        assert len(other.asked) == 1


async def test_flood_of_values_is_capped(site: Explored, browse: Browse) -> None:
    site.events.snapshot = {"codes": {"A": {f"k{number}": number for number in range(5000)}}}
    async with browse(site) as browser:
        page = await browser.open("/docs/events#shop?code=A")
        await page.wait_for_selector("text=3000 more are not shown.")
        assert await page.locator("tbody tr").count() == 2000
