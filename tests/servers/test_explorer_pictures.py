"""The pictures of docs/explorer.md.

``SCREENSHOTS=docs/images pytest tests/servers/test_explorer_pictures.py`` makes them anew.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pictured import use_fonts

from browser import Browse
from explored import Explored
from explorer_page import PICTURE, follow, send, use_ticket, value_of

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fonts(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("light", "light"),
        ("dark", "dark"),
        ("403", "light"),
        ("phone", "light"),
        ("events", "dark"),
    ],
)
async def test_screenshots(site: Explored, browse: Browse, name: str, scheme: str) -> None:
    height = {"light": 970, "403": 910, "events": 560}.get(name, 800)
    options: dict[str, Any] = {
        "color_scheme": scheme,
        "viewport": {"width": 1280, "height": height},
    }
    if name == "phone":
        options |= {"viewport": {"width": 375, "height": 760}, "device_scale_factor": 2}
    site.events.snapshot = PICTURE
    async with browse(site, **options) as browser:
        page = await browser.open("/docs")
        await use_ticket(page, site, "bob" if name == "403" else "alice")
        if name == "events":
            await follow(page, "shop", "price stock")
            for code, value in (("price", 4500), ("stock", 11)):
                site.events.say("change", {"code": code, "key": "LAMP-1", "value": value})
            await page.wait_for_selector(f"{value_of('stock', 'LAMP-1')}:text-is('11')")
            await page.click("#page-events h1")
        else:
            shown = {"403": "Price.set", "phone": "Sku.fetch", "light": "Sku.create"}
            await page.click(f"[data-key='Product.{shown.get(name, 'Sku.list')}']")
            if name == "phone":
                await page.fill("[data-key='query code']", "CHAIR-1")
            await send(page)
        await page.mouse.move(0, 0)
        await page.evaluate("scrollTo(0, 0)")
        picture = await page.screenshot(animations="disabled")
    assert re.match(rb"\x89PNG", picture)
    if (wanted := os.environ.get("SCREENSHOTS")) is not None:
        kind = "" if name == "events" else "explorer-"
        path = Path(wanted) / f"{kind}{name}.png"
        await asyncio.to_thread(path.write_bytes, picture)
