"""A real browser for tests: Debian's chromium, driven by playwright."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request

PATIENCE: Final = 10_000
"""Milliseconds that anything may take to show up."""

_ARGUMENTS: Final = (
    "--no-sandbox",  # tests run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One profile without a past. `complaints` and `strangers` are empty when all is well."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self._context = context
        self.origin = origin
        self.complaints: list[str] = []
        """Errors and warnings of the console (a violation of the security policy is one), and
        exceptions that nobody caught. Statuses that are errors are none."""
        self.strangers: list[str] = []
        """Requests that went elsewhere."""
        self.requests: list[Request] = []
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        expected = message.text.startswith("Failed to load resource: the server responded")
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        scheme, host = urlsplit(request.url)[:2]
        if f"{scheme}://{host}" != self.origin and scheme != "blob":
            self.strangers.append(request.url)

    async def open(self, path: str) -> Page:
        """A tab that shows this path of the origin."""
        page = await self._context.new_page()
        await page.goto(self.origin + path)
        return page


Browse = Callable[..., AbstractAsyncContextManager[Browser]]


@asynccontextmanager
async def browsing(chromium: str, origin: str, **options: Any) -> AsyncIterator[Browser]:
    """A `Browser` for a gateway; `options` are those of a playwright context.

    Skips where playwright is missing. Nothing is downloaded.
    """
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        pytest.skip("needs playwright: pip install -e '.[browser]'")
    options = {"viewport": {"width": 1280, "height": 860}, "locale": "en-GB", **options}
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium, args=[*_ARGUMENTS])
        try:
            context = await browser.new_context(timezone_id="UTC", **options)
            context.set_default_timeout(PATIENCE)
            yield Browser(context, origin)
        finally:
            await browser.close()
