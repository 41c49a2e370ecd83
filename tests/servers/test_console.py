"""The admin page in a real browser, in front of processes that are killed under load."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import pytest
from consoled import consoled, tampered
from demos import demo_process
from offers import service

from browser import PATIENCE, browsing
from gateway.console.overview import Gathered, Mesh, Overview
from gateway.demo.folder import Folder
from gateway.lifecycle import running
from gateway.metrics import BUCKETS
from scamp.discovery import DiscoveryStatus
from stand import stand

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = pytest.mark.timeout(120)

REQUESTS: Final = "[data-figure=requests] .value"
OUT: Final = "#instances tr[data-kind=out]"
REFUSED: Final = "error: Failed to load resource: net::ERR_CONNECTION_REFUSED"
"""What the browser itself says while the gateway is not there."""

HOSTILE: Final = "<img src=x onerror=alert(1)>"

Tool = Callable[[str], str]


async def moving(page: Page) -> None:
    """Wait until requests are counted, and counted differently."""
    from playwright.async_api import expect

    number = page.locator(REQUESTS)
    await expect(number).to_have_text(re.compile(r"[1-9]"), timeout=PATIENCE)
    await expect(number).not_to_have_text(await number.inner_text(), timeout=PATIENCE)


async def rows(page: Page, state: str, count: int) -> None:
    """Wait until so many instances are in a state."""
    from playwright.async_api import expect

    found = page.locator(f"#instances tr[data-kind={state}]")
    await expect(found).to_have_count(count, timeout=PATIENCE)


# -- Show 4 -----------------------------------------------------------------------------


async def test_an_instance_that_is_killed_under_load_is_out_and_comes_back(
    folder: Folder, tool: Tool
) -> None:
    async with consoled(folder) as mesh:
        mesh.refused = [tampered(folder, "shop-1"), b"rubbish"]
        mesh.announce()
        async with mesh.load(), browsing(tool("chromium"), mesh.admin) as browser:
            page = await browser.open("/")
            await moving(page)
            await page.wait_for_selector("#actions span:text-is('Product.Sku.list~1')")
            await page.wait_for_selector("#rejected span:text-is('signature')")
            await page.wait_for_selector("#reloads span:text-is('discovery')")
            assert await page.inner_text("#state") == "ready"
            await rows(page, "up", 3)
            mesh.kill("shop-1")
            await page.wait_for_selector(OUT)
            assert "connect" in await page.inner_text(f"{OUT} td.wide")
            assert "next try" in await page.inner_text(OUT)
            assert await page.title() == "(1 out) scamp-gateway"
            assert (await page.inner_text("#announce")).startswith("Out: shop at 127.0.0.1:")
            first = page.locator("#instances tbody tr").first
            assert await first.get_attribute("data-kind") == "out", "it is the first in the table"
            await moving(page)
            await mesh.start_service("shop-1")
            await rows(page, "out", 0)
            assert await page.title() == "scamp-gateway"
            assert browser.complaints == []
            assert browser.strangers == []


async def test_several_workers_are_one_and_the_page_outlives_a_restart(
    folder: Folder, tool: Tool
) -> None:
    async with (
        consoled(folder, workers=2) as mesh,
        mesh.load(4),
        browsing(tool("chromium"), mesh.admin) as browser,
    ):
        page = await browser.open("/")
        await moving(page)
        await page.wait_for_selector("#facts dd:text-is('2')")
        await rows(page, "up", 3)
        mesh.kill("shop-2")
        await page.wait_for_selector(OUT)
        await mesh.start_service("shop-2")
        await rows(page, "out", 0)
        places = [where.split("//")[1] for where in (mesh.public, mesh.admin)]
        await mesh.stop_gateway()
        await page.wait_for_selector("#banner:has-text('does not answer')")
        await mesh.start_gateway(*places)
        await page.wait_for_selector("#banner", state="hidden")
        await moving(page)
        assert await page.inner_text("#state") == "ready"
        assert set(browser.complaints) <= {REFUSED}
        assert browser.strangers == []


async def test_the_demo_shows_what_was_killed(tmp_path: Path, tool: Tool) -> None:
    """There whatever has ended is not announced any more at once."""
    async with demo_process(tmp_path, "--quiet-services") as (_, printed):
        found = re.search(r"# admin +(\S+)\n# mesh .*shop-1 (\d+)", printed)
        assert found is not None
        async with browsing(tool("chromium"), found[1]) as browser:
            page = await browser.open("/")
            await rows(page, "idle", 2)
            os.kill(int(found[2]), signal.SIGKILL)
            await page.wait_for_selector("#instances tr[data-kind=gone], " + OUT)
            await rows(page, "idle", 2)
            await page.wait_for_selector("#links a[href$='/docs']")
            assert browser.complaints == []


# -- as an answer has it ----------------------------------------------------------------


def answer(number: int = 0, wanted: str = "", **given: Any) -> dict[str, Any]:
    """Of a large mesh with a hostile service, a second later with every `number`."""
    size = given.pop("size", 300)
    services = [service(f"s{at:03d}", "A.b", number=at) for at in range(size)]
    services.append(service(HOSTILE, "A.b"))
    views = [
        {
            "fingerprint": one.fingerprint, "identity": one.identity, "state": "up", "share": 1.0,
            "seconds": 61.0 + number, "retry_in": None, "failures": 0, "in_flight": 1,
            "waiting": 0, "connections": 2, "peer": "echoes", "last_error": None,
        }
        for one in services[-40:]
    ]  # fmt: skip
    views[-1] |= {"state": "out", "retry_in": 4.0, "failures": 3, "last_error": HOSTILE * 9}
    views[-2]["share"] = 0.25
    buckets = [0] * 4 + [10 * number] + [0] * (len(BUCKETS) - 4)
    part = {
        "started": 1.0,
        "counters": {"bytes_in": 1000 * number, "bytes_out": 2e6 * number, "cpu_seconds": number},
        "gauges": {"in_flight": number % 7, "waiting": 1, "clients": 12, "clients_limit": 10_000,
                   "connections": 80, "streams": 3, "memory": 1e8, "retry_budget": 10},
        "responses": {"2xx service": 90 * number, "4xx gateway": 5 * number,
                      "5xx gateway": number, "5xx service": 4 * number},
        "histograms": dict.fromkeys(("whole", "upstream", "own", "queued", "lag"), buckets),
        "actions": {f"{HOSTILE}~1": [number * 500, 0, 0, 1, buckets]} | {
                    f"Big.Space.action{at:03d}~1": [number * at, 0, number, 5, buckets]
                    for at in range(size * 3 // 10)},
        "instances": views,
        "reloads": [{"what": "routes", "ok": 1, "failed": 2, "last_ok": 5.0, "last_failed": 9.0,
                     "error": HOSTILE}],
    }  # fmt: skip
    status = DiscoveryStatus(
        loaded=True, mtime=1.0, stale=True, rejected={"signature": 70},
        rejected_records=tuple(
            (f"r{at}:{'x' * 60}", "signature", HOSTILE) for at in range(size // 5)
        ),
    )  # fmt: skip
    workers = {"count": 2, "answering": 2, "silent": []}
    checks = [{"name": "index", "ok": True, "detail": ""}]
    found = Overview().compose(
        Gathered([part], (1,), workers, checks),
        Mesh(services, status, "/run/scamp/discovery"),
        {"public": "http://0.0.0.0:8080", "docs": True},
        wanted,
    )
    return {**found, "clock": 1000.0 + number, **given}


class Told:
    """Answers to the page in place of the gateway's."""

    def __init__(self, page: Page, given: Callable[..., dict[str, Any]]) -> None:
        self.page = page
        self.asked: list[str] = []
        self.next = given
        self.silent = False

    async def fulfil(self, route: Any) -> None:
        self.asked.append(route.request.url)
        if self.silent:
            await route.fulfill(status=503, json={"detail": "starting"})
            return
        wanted = re.search(r"filter=(\w+)", route.request.url)
        found = self.next(len(self.asked), wanted[1] if wanted else "")
        await route.fulfill(body=orjson.dumps(found), content_type="application/json")


@asynccontextmanager
async def told(
    tmp_path: Path, chromium: str, given: Callable[..., dict[str, Any]] = answer, **options: Any
) -> AsyncIterator[Told]:
    """The page of a gateway in this loop; what it is told is what `given` returns."""
    async with (
        stand(tmp_path) as mesh,
        running(mesh.loaded()) as gateway,
        browsing(chromium, gateway.admin.url, **options) as browser,
    ):
        page = await browser.open("/livez")
        teller = Told(page, given)
        await page.route("**/overview*", teller.fulfil)
        await page.goto(f"{gateway.admin.url}/")
        await page.wait_for_selector("#instances tbody tr")
        yield teller
        assert browser.complaints == []
        assert browser.strangers == []


SNAPSHOTS: Final = """async () => {
  const {Snapshots, quantile} = await import("/page/rates.js");
  const of = new Snapshots();
  const sum = (one) => one.responses["2xx service"];
  const tell = (clock, count, started = 1) =>
    of.push({clock, counted_by: [1], gateway: {started}, responses: {"2xx service": count}});
  const found = [];
  tell(1, 0); tell(2, 10); tell(2, 10);  // the last is the same reading with another filter
  found.push(of.rate(sum));
  tell(3, 20, 2.5);  // started anew, and has answered more already
  found.push(of.rate(sum), quantile([0, 0], [1], 0.5));
  tell(4, 25);
  tell(5, 30);
  found.push(of.rate(sum), quantile([0, 1], [1], 0.5));
  tell(6, 3, 2.5);  // a worker took its counts with it
  found.push(of.rate(sum));
  return found;
}"""


async def test_rates_and_quantiles_are_worked_out_from_counters(tmp_path: Path, tool: Tool) -> None:
    async with told(tmp_path, tool("chromium")) as teller:
        page = teller.page
        await page.wait_for_selector(f"{REQUESTS}:text-is('100')")
        for figure, text in (
            ("errors", "5.0\n5xx /s"),
            ("whole", "24.3\nms p95"),  # between 10 ms and 25 ms, by straight lines
            ("bytes", "2.0\nMB/s"),
            ("memory", "100\nMB"),
            ("connections", "12\nclients"),
        ):
            shown = await page.inner_text(f"[data-figure={figure}] .reading")
            assert re.sub(r"\s+", "\n", shown) == re.sub(r"\s+", "\n", text), figure
        rest = re.sub(r"\s+", " ", await page.inner_text("[data-figure=errors] .rest"))
        assert rest == "gateway 1.0 services 4.0 4xx 5.0"
        busiest = await page.locator("#actions tbody tr").first.inner_text()
        assert busiest.split("\t")[:2] == [f"{HOSTILE}~1", "500"]
        assert await page.locator(".plot .line.accent").first.get_attribute("d")
        assert await page.evaluate(SNAPSHOTS) == [10, None, None, 5, float("inf"), None]


async def test_what_the_mesh_says_is_text_and_the_rest_is_found_by_keyboard(
    tmp_path: Path, tool: Tool
) -> None:
    async with told(tmp_path, tool("chromium")) as teller:
        page = teller.page
        order = []
        for _ in range(5):
            await page.keyboard.press("Tab")
            order.append(await page.evaluate("document.activeElement.id || 'skip'"))
        assert order == ["skip", "filter", "pause", "theme-button", "explorer"]
        assert await page.locator("img[src=x]").count() == 0
        assert HOSTILE in await page.inner_text(OUT)
        assert await page.locator("#instances tbody tr").count() == 100
        assert "and 201 more" in await page.inner_text("#instances .more")
        assert "and 41 more" in await page.inner_text("#actions .more")
        assert "and 20 more" in await page.inner_text("#rejected .more")
        await page.keyboard.press("/")
        await page.keyboard.type("s017")
        await page.wait_for_selector("#instances .summary:has-text('1 of 301 instances')")
        assert await page.locator("#instances tbody tr").count() == 1
        assert await page.inner_text("#actions .empty") == "None matches the filter."
        assert "filter=s017" in teller.asked[-1]


async def test_nothing_is_asked_while_it_is_paused_or_not_seen(tmp_path: Path, tool: Tool) -> None:
    async with told(tmp_path, tool("chromium")) as teller:
        page = teller.page
        await page.clock.install()
        await page.click("#pause")
        assert await page.get_attribute("#pause", "aria-pressed") == "true"
        asked = len(teller.asked)
        await page.clock.run_for(30_000)
        assert len(teller.asked) == asked
        async with page.expect_response("**/overview*"):
            await page.click("#pause")
        await page.evaluate("Object.defineProperty(document, 'hidden', {get: () => true})")
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        asked = len(teller.asked)
        await page.clock.run_for(30_000)
        assert len(teller.asked) == asked, "nobody sees it"


async def test_silence_is_told_once_and_asked_about_less_and_less(
    tmp_path: Path, tool: Tool
) -> None:
    async with told(tmp_path, tool("chromium")) as teller:
        page = teller.page
        teller.silent = True
        await page.wait_for_selector("#banner:has-text('(starting)')")
        assert await page.inner_text("#state") == "no answer"
        await page.evaluate(
            "new MutationObserver(() => banner.dataset.again = 'yes')"
            ".observe(banner, {childList: true, characterData: true, subtree: true})"
        )
        await page.wait_for_selector("#banner[data-seconds='1']")
        assert await page.get_attribute("#banner", "data-again") is None, "it is not said again"
        teller.silent = False
        await page.wait_for_selector("#banner", state="hidden")
        assert await page.inner_text("#announce") == "The gateway answers again"


async def test_phone_has_everything_below_each_other(tmp_path: Path, tool: Tool) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 375, "height": 740}, "has_touch": True}
    async with told(tmp_path, tool("chromium"), **phone) as teller:
        page = teller.page
        await page.wait_for_selector(f"{REQUESTS}:text-is('100')")
        for width in (375, 360, 320):
            await page.set_viewport_size({"width": width, "height": 740})
            assert await page.evaluate("document.documentElement.scrollWidth") == width
        cell = page.locator("#instances tbody tr td[data-label='In flight']").first
        label = "getComputedStyle(one, '::before').content"
        assert await cell.evaluate(f"one => {label}") == '"In flight"'
        await page.tap("#theme-button")


async def test_axe_finds_nothing_and_numbers_are_not_read_out(tmp_path: Path, tool: Tool) -> None:
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    source = Path(axe.__file__).with_name("axe.min.js").read_text()
    few = partial(answer, size=6)
    async with told(tmp_path, tool("chromium"), few, bypass_csp=True) as teller:
        page = teller.page
        await page.wait_for_selector(f"{REQUESTS}:text-is('100')")
        await page.evaluate(source)

        async def check() -> None:
            found = await page.evaluate("axe.run()")
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []

        await check()
        await page.emulate_media(color_scheme="dark")
        await page.set_viewport_size({"width": 360, "height": 740})
        await check()
        teller.silent = True
        await page.wait_for_selector("#banner:not([hidden])")
        await check()
        live = "[aria-live], [role=status], [role=alert], [role=log]"
        places = await page.eval_on_selector_all(live, "all => all.map(one => one.id)")
        assert sorted(places) == ["announce", "banner"]


async def test_without_scripts_there_is_a_table(tmp_path: Path, tool: Tool) -> None:
    async with stand(tmp_path) as mesh, running(mesh.loaded()) as gateway:
        chromium = tool("chromium")
        async with browsing(chromium, gateway.admin.url, java_script_enabled=False) as browser:
            page = await browser.open("/")
            shown = await page.inner_text("main")
            assert re.search(r"state\s+ready", shown)
            assert "/metrics" in shown
            assert await page.is_hidden("#live")
            assert await page.is_hidden("#filter")
