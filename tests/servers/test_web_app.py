"""The web app of docs/web-apps.md, copied out and used in a real browser.

Only the ports are others: free ones.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from pages import Page, shell

from benchmarks.processes import started
from browser import Browser, browsing

if TYPE_CHECKING:
    from playwright.async_api import Page as Tab

PAGE: Final = Page("docs/web-apps.md")
UNBUFFERED: Final = {"PYTHONUNBUFFERED": "1"}

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Site:
    """All of it, running. Two origins of one host."""

    folder: Path
    app: str
    gateway: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web-app")
    settings, routes = (PAGE.block_with("toml", name) for name in ("# gateway.", "# routes."))
    html = PAGE.block_with("html", "index.html")
    (folder / "routes.toml").write_text(routes)
    (folder / "app.py").write_text(PAGE.scripts()["app.py"].replace("port=3000", "port=0"))
    gateway = [Path(sys.executable).with_name("scamp-gateway")]
    demo = ["demo", "--dir", "mesh", "--port", "0", "--admin-port", "0", "--quiet-services"]
    free = ["--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--drain-delay", "0"]
    run = ["run", "--config", "gateway.toml", *free]
    with (
        started([*gateway, *demo], folder / "demo.log", folder=folder),
        started([sys.executable, "app.py"], folder / "app.log", UNBUFFERED, folder) as app,
    ):
        own = f"http://localhost:{_port(app.said)}"
        (folder / "gateway.toml").write_text(settings.replace("http://localhost:3000", own))
        with started([*gateway, *run], folder / "gateway.log", folder=folder) as front:
            url = f"http://localhost:{_port(front.said.partition(' admin ')[0])}"
            (folder / "index.html").write_text(html.replace("http://localhost:8080", url))
            yield Site(folder, own, url)


def _port(said: str) -> int:
    return int(said.rpartition(":")[2].strip("/ ="))


@asynccontextmanager
async def signed_in(chromium: str, site: Site) -> AsyncIterator[tuple[Browser, Tab]]:
    async with browsing(chromium, site.app) as browser:
        page = await browser.open("/")
        await page.wait_for_selector("#said:has-text('401 ticket_missing')")
        await page.click("#login")
        await page.wait_for_selector("#who:has-text('User 1001')")
        yield browser, page


def price(code: str, shown: str) -> str:
    return f"tr[data-code='{code}'] td:text-is('{shown}')"


async def test_a_price_is_lowered_and_every_page_sees_it(
    site: Site, tool: Callable[[str], str]
) -> None:
    async with signed_in(tool("chromium"), site) as (browser, page):
        other = await browser.open("/")
        await other.wait_for_selector(price("DESK-1", "399.00"))
        await page.click("tr[data-code='DESK-1'] button")
        await page.wait_for_selector("#said:has-text('DESK-1 is cheaper now.')")
        await other.wait_for_selector(price("DESK-1", "398.00"))
        assert browser.complaints == []


async def test_one_who_asks_too_often_is_told_when_to_go_on(
    site: Site, tool: Callable[[str], str]
) -> None:
    async with signed_in(tool("chromium"), site) as (_, page):
        await page.wait_for_selector(price("SHELF-1", "89.00"))
        statuses = []
        while 429 not in statuses:
            async with page.expect_response(lambda one: one.request.method == "PUT") as answer:
                await page.click("tr[data-code='SHELF-1'] button")
            statuses.append((await answer.value).status)
            assert len(statuses) < 60, "of 30 in a minute"
        await page.wait_for_selector("#said:has-text('429 rate_limited'):has-text('Again in ')")
        assert set(statuses) == {200, 429}


async def test_signed_out_is_signed_out(site: Site, tool: Callable[[str], str]) -> None:
    async with signed_in(tool("chromium"), site) as (_, page):
        await page.wait_for_selector(price("CHAIR-1", "149.00"))
        await page.click("#logout")
        await page.wait_for_selector("#who:text-is('')", state="attached")
        await page.reload()
        await page.wait_for_selector("#said:has-text('401 ticket_missing')")
        assert await page.query_selector("tr") is None


async def test_a_page_of_another_origin_can_neither_write_nor_read(
    site: Site, tool: Callable[[str], str]
) -> None:
    """The cookie goes along, since the host is the same."""
    async with signed_in(tool("chromium"), site) as (browser, _):
        stranger = site.folder / "stranger.py"
        stranger.write_text((site.folder / "app.py").read_text())
        command = [sys.executable, "stranger.py"]
        log = site.folder / "stranger.log"
        with started(command, log, UNBUFFERED, site.folder) as app:
            browser.origin = f"http://localhost:{_port(app.said)}"
            page = await browser.open("/")
            answers = []
            for method, path in (("PUT", "/v1/skus/CHAIR-1/price"), ("GET", "/v1/skus/CHAIR-1")):
                said = await page.evaluate(
                    """([url, method]) => fetch(url, {method, credentials: "include",
                         headers: method === "PUT" ? {"Content-Type": "application/json"} : {},
                         body: method === "PUT" ? "1" : undefined}).then(a => a.status, String)""",
                    [site.gateway + path, method],
                )
                answers.append(said)
            assert answers == ["TypeError: Failed to fetch"] * 2
            # No question before this one: it arrives, with the cookie, and is refused.
            async with page.expect_response(lambda one: one.request.method == "POST") as sent:
                await page.evaluate(
                    """url => fetch(url, {method: "POST", mode: "no-cors",
                         credentials: "include", body: "{}"})""",
                    f"{site.gateway}/api/Product.Sku.create",
                )
            assert (await sent.value).status == 403


def test_what_is_run_before_it_goes_out_is_content(site: Site) -> None:
    shell(PAGE.block_with("sh", "scamp-gateway audit"), site.folder)
    assert (site.folder / "api.json").read_text().startswith('{"components"')
