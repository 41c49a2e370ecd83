"""The explorer as one who has just started the demo has it: nothing stands in for anything."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from demos import demo_process

from browser import browsing
from explorer_page import actions, follow, send, value_of

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def running_demo(folder: Path) -> AsyncIterator[str]:
    """The public URL of a demo with its files in `folder`."""
    async with demo_process(folder, "--quiet-services") as (_, printed):
        found = re.search(r"# gateway (\S+)", printed)
        assert found is not None
        yield found[1]


async def test_demo_is_listed_tried_and_followed(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    async with (
        running_demo(tmp_path) as url,
        aiohttp.ClientSession() as http,
        browsing(tool("chromium"), url) as browser,
    ):
        page = await browser.open("/docs")
        listed = await actions(page)
        assert "Product.Sku.ping" in listed
        assert "Product.Sku.create" not in listed  # nobody is told what is not for them
        await page.click("[data-key='Product.Sku.ping']")
        assert '"pong": true' in await send(page)

        await page.click("#ticket-button")
        await page.fill("#ticket-text", (tmp_path / "alice.ticket").read_text())
        await page.click("text=Use ticket")
        await page.click("[data-key='Product.Sku.create']")
        await page.wait_for_selector("#ticket-button:has-text('User 1001')")
        await page.fill("#body", '{"code": "LAMP-1", "name": "Brass lamp", "price": 4900}')
        assert "200 OK" in await send(page)

        await page.click("#ticket-button")
        await page.fill("#ticket-text", (tmp_path / "bob.ticket").read_text())
        await page.click("text=Use ticket")
        await page.wait_for_selector(".notice >> text=not for this ticket")
        shown = await send(page)
        assert "requires privilege sku_create" in shown
        assert "Your ticket carries: sku_read" in shown

        await follow(page, "shop", "price")
        await page.wait_for_selector(f"{value_of('price', 'LAMP-1')}:text-is('4900')")
        ticket = {"Authorization": f"Bearer {(tmp_path / 'alice.ticket').read_text()}"}
        change = {"code": "LAMP-1", "price": 4500}
        async with http.put(f"{url}/api/Product.Price.set", json=change, headers=ticket) as answer:
            assert answer.status == 200
        await page.wait_for_selector(f"{value_of('price', 'LAMP-1')}:text-is('4500')")
        assert browser.strangers == []
        assert browser.complaints == []
