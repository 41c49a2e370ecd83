"""The pictures of docs/console.md.

``SCREENSHOTS=docs/images pytest tests/servers/test_console_pictures.py`` makes them anew, from two
minutes of load; without it a few seconds have to do.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from consoled import consoled, tampered
from pictured import use_fonts

from browser import PATIENCE, browsing
from gateway.demo.folder import Folder

pytestmark = pytest.mark.timeout(300)

WIDE = {"width": 1200, "height": 800}


@pytest.fixture(autouse=True)
def font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_fonts(tmp_path, monkeypatch)


async def at_its_usual_place(folder: Folder, route: Any) -> None:
    """The answer without the temporary directory's name."""
    answer = await route.fetch()
    body = (await answer.text()).replace(str(folder.path), "/run/scamp")
    await route.fulfill(response=answer, body=body)


async def test_screenshots(folder: Folder, tool: Callable[[str], str]) -> None:
    from playwright.async_api import expect

    wanted = os.environ.get("SCREENSHOTS")
    async with consoled(folder) as mesh:
        mesh.refused = [tampered(folder, "shop-1"), b"rubbish"]
        mesh.announce()
        async with mesh.load(), browsing(tool("chromium"), mesh.admin, viewport=WIDE) as browser:
            page = await browser.open("/")
            await page.route("**/overview*", partial(at_its_usual_place, folder))
            await expect(page.locator("#actions tbody tr")).to_have_count(6, timeout=PATIENCE)
            await asyncio.sleep(150 if wanted else 0)
            pictures = {}

            async def take(name: str) -> None:
                await page.mouse.move(0, 0)
                pictures[name] = await page.screenshot(animations="disabled")

            await page.emulate_media(color_scheme="light")
            await take("light")
            await page.emulate_media(color_scheme="dark")
            await take("dark")
            await page.emulate_media(color_scheme="light")
            mesh.kill("shop-2")
            await page.wait_for_selector("#instances tr[data-kind=out]")
            await asyncio.sleep(3 if wanted else 0)
            await take("out")
            # A phone has more dots to the inch, which a page cannot change: its history goes along.
            await page.set_viewport_size({"width": 375, "height": 1480})
            await take("phone")
    for name, picture in pictures.items():
        assert re.match(rb"\x89PNG", picture)
        if wanted:
            path = Path(wanted) / f"console-{name}.png"
            await asyncio.to_thread(path.write_bytes, picture)
