"""The pages as a site in a real browser: on a desk, on a phone, from a server, from the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from built import built_site

from browser import browsing

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.timeout(180)

PHONE: Final[dict[str, Any]] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
NEWCOMERS: Final = ("index.html", "auth.html", "states.html", "configuration.html", "404.html")
TOO_WIDE: Final = """
[...document.querySelectorAll("table[data-stacked]")]
  .filter(table => table.scrollWidth > table.closest("article").clientWidth)
  .map(table => table.rows[1].innerText)
"""
"""Tables of four columns or more, which stand below each other there."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


@pytest.fixture(scope="module")
def origin(site: Path) -> Iterator[str]:
    """The site as a server gives it."""
    handler = partial(_Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def searched(page: Page, what: str) -> set[str]:
    """The pages that a search finds."""
    box = page.locator(".md-search__input")
    await box.click()
    await box.press_sequentially(what)
    found = page.locator(".md-search-result__link")
    await found.first.wait_for()
    links = await found.evaluate_all("all => all.map(one => one.href)")
    return {str(link).rpartition("/")[2].partition("?")[0] for link in links}


async def whole(page: Page, path: str) -> None:
    assert await page.locator("h1").is_visible()
    wide, window = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{path} has to be moved sideways"


async def test_pages_are_whole_on_a_phone(tool: Callable[[str], str], origin: str) -> None:
    async with browsing(tool("chromium"), origin, **PHONE) as browser:
        for path in NEWCOMERS:
            page = await browser.open(f"/{path}")
            await whole(page, path)
            assert await page.evaluate(TOO_WIDE) == [], f"{path}: rows that are cut off"
            await page.close()
    assert browser.complaints == []
    assert browser.strangers == []


async def test_pages_are_dark_where_the_desk_is_and_can_be_searched(
    tool: Callable[[str], str], origin: str
) -> None:
    async with browsing(tool("chromium"), origin, color_scheme="dark") as browser:
        page = await browser.open("/index.html")
        await whole(page, "index.html")
        assert await page.evaluate("document.body.dataset.mdColorScheme") == "slate"
        assert {"errors.html", "troubleshooting.html"} <= await searched(
            page, "action_unconfigured"
        )
    assert browser.complaints == []
    assert browser.strangers == []


async def test_it_can_be_read_and_searched_on_the_disk(
    tool: Callable[[str], str], site: Path
) -> None:
    async with browsing(tool("chromium"), "file://") as browser:
        page = await browser.open(f"{site}/reference/server.html")
        assert {"errors.html", "troubleshooting.html"} <= await searched(
            page, "action_unconfigured"
        )
    assert browser.complaints == []
    assert browser.strangers == []
