"""The admin page in a real browser, in front of processes that are killed under load."""

from __future__ import annotations

import asyncio
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
from gateway.counting import BUCKETS
from gateway.demo.folder import Folder
from gateway.lifecycle import running
from scamp.discovery import DiscoveryStatus
from scamp.limits import MAX_REJECTED_SHOWN
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
    size, started = given.pop("size", 300), given.pop("started", 1.0)
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
        "started": started,
        "counters": {"bytes_in": 1000 * number, "bytes_out": 2e6 * number, "cpu_seconds": number},
        "gauges": {"in_flight": number % 7, "waiting": 1, "clients": 12, "clients_limit": 10_000,
                   "connections": 80, "streams": 3, "memory": 1e8, "retry_budget": 10},
        "responses": {"2xx service": 90 * number, "4xx gateway": 5 * number,
                      "5xx gateway": number, "5xx service": 4 * number},
        "histograms": dict.fromkeys(("whole", "upstream", "own", "queued"), buckets)
                      | {"lag": [number if bound == 0.25 else 0 for bound in (*BUCKETS, 0)]},
        "shed": {"in_flight": number},
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


def upgraded(number: int = 0, wanted: str = "") -> dict[str, Any]:
    """Of another process, which is a newer gateway."""
    found = answer(number, wanted, counted_by=[2], started=2.0)
    found["gateway"]["version"] = "99.0"
    return found


class Told:
    """Answers to the page in place of the gateway's."""

    def __init__(self, page: Page, given: Callable[..., dict[str, Any]]) -> None:
        self.page = page
        self.asked: list[str] = []
        self.next = given
        self.silent = False
        self.holds = asyncio.Event()
        self.held: asyncio.Event | None = None
        """What is asked while it is there is answered once it is set."""

    async def fulfil(self, route: Any) -> None:
        self.asked.append(route.request.url)
        if self.silent:
            await route.fulfill(status=503, json={"detail": "starting"})
            return
        wanted, number = re.search(r"filter=(\w+)", route.request.url), len(self.asked)
        if self.held is not None:
            self.holds.set()
            await self.held.wait()
        found = self.next(number, wanted[1] if wanted else "")
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
  tell(3600, 9000, 2.5);  // nobody looked for an hour
  found.push(of.rate(sum));
  tell(3601, 9010, 2.5); tell(3602, 9020, 2.5);
  tell(3601.5, 9015, 2.5);  // another worker, which had read them a moment before
  found.push(of.rate(sum), of.rate((one) => -one.clock), of.rate(() => undefined));
  return found;
}"""

PLOTTED: Final = """async () => {
  const {Plot} = await import("/page/plot.js");
  const plot = new Plot(["accent"]);
  const found = [];
  for (const at of [10, 11, 12, 12, 11.5, 13, 2]) {
    plot.push(at, [at]);
    found.push(plot.points.map((one) => one.at).join(" "));
  }
  for (let at = 20; at < 1000; at++) plot.push(at, [at < 500 ? 1000 : 5]);
  const asleep = new Plot(["accent"]);
  for (const at of [1, 2, 20, 21]) asleep.push(at, [at]);
  const pieces = asleep.lines[0].getAttribute("d").split("M").length - 1;
  return [...found.slice(3), plot.points.length, plot.top, pieces];
}"""

ARRANGED: Final = """async () => {
  const {Table} = await import("/page/table.js");
  const card = document.createElement("section");
  document.body.append(card);
  const table = new Table(card, {
    title: "T", empty: "", key: (row) => row, columns: [{label: "L", cell: (row) => `is ${row}`}]});
  const found = [];
  const show = (order, marked) => {
    if (marked) getSelection().selectAllChildren(table.rows.get(marked).querySelector("span"));
    table.show([...order]);
    found.push(`${table.body.innerText.replace(/is |\\s/g, "")} ${getSelection()}`.trim());
  };
  show("abcde");
  show("bcde", "d");  // the first goes
  show("cdeb", "d");  // it goes down
  show("ecdb", "d");  // another goes up
  show("fecdbg", "d");
  show("gbdcef");
  show("");
  card.remove();
  return found;
}"""


REMEMBERED: Final = """async () => {
  const {Instances} = await import("/page/instances.js");
  const {Actions} = await import("/page/lists.js");
  const {Snapshots} = await import("/page/rates.js");
  const cards = ["a", "b"].map((id) => Object.assign(document.createElement("section"), {id}));
  document.body.append(...cards);
  const instances = new Instances(cards[0]);
  const seen = (clock, names) => {
    const shown = [...names].map((name) => ({
      fingerprint: "f", identity: name, service: name, address: "", state: "up", share: 1,
      weight: 1, seconds: 1, last_error: null}));
    instances.show({clock, instances: {shown, more: 0, total: 2, states: {}, found: 2}}, "");
    return [...instances.table.rows.values()].map((line) => line.dataset.kind).join(" ");
  };
  const gone = [seen(10, "ab"), seen(11, "b"), seen(70, "b"), seen(72, "b"), seen(73, "ab")];
  const actions = new Actions(cards[1]);
  const of = new Snapshots();
  const order = [];
  for (let clock = 1; clock < 13; clock++) {  // which of them is the busier changes once
    const shown = [["x", clock * 2], ["y", clock > 3 ? clock * 100 : 0]]
      .map(([action, requests]) => ({
        action, requests, "4xx": 0, "5xx": 0, bytes: 0, duration: []}));
    of.push({clock, counted_by: [], bounds: [1], gateway: {started: 1}, responses: {},
      actions: {shown, more: 0, total: 2, found: 2}});
    actions.show(of, "");
    order.push(actions.table.body.firstChild.firstChild.textContent);
  }
  cards.forEach((card) => card.remove());
  return [gone, order.join("")];
}"""


WRITTEN: Final = """async () => {
  const {bytes, count, line, percent, rate, time} = await import("/page/numbers.js");
  const bounds = [0.001, 60];
  return [
    ...[0, 0.001, 0.0234, 0.5, 3, Infinity, null].map((one) => time(one, bounds)),
    ...[0, 0.01, 99.94, 100, 12_345, 12_345_678].map(rate),
    ...[999, 1000, 999_600].map(bytes), count(9999), percent(0.05), percent(1.5),
  ].map(line);
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
        assert [one.strip() for one in busiest.split("\t")[:2]] == [f"{HOSTILE}~1", "500"]
        assert await page.locator(".plot .line.accent").first.get_attribute("d")
        marked = "all => all.map(one => `${one.dataset.figure} ${one.dataset.kind}`)"
        found = await page.eval_on_selector_all(".figure:not([data-kind=''])", marked)
        assert found == ["errors bad", "in_flight bad", "lag warn"]
        shown = await page.inner_text("[data-figure=whole] dt[data-line=muted]")
        assert shown == "p50", "the second line is named"
        legend = await page.locator("[data-figure=whole] .plot title").text_content()
        assert legend is not None
        assert legend.startswith("Latency, whole (p95); grey: p50.")
        assert legend.endswith("the top is 24.3 ms")


async def test_modules_of_the_page_do_what_they_say(tmp_path: Path, tool: Tool) -> None:
    async with told(tmp_path, tool("chromium"), partial(answer, size=6)) as teller:
        page = teller.page
        assert await page.evaluate(SNAPSHOTS) == [
            *(10, None, None, 5, float("inf"), None),
            *(None, 10, None, None),
        ]
        late = ["10 11 12", "10 11 11.5", "10 11 11.5 13", "2"]
        assert await page.evaluate(PLOTTED) == [*late, 301, 5, 2]
        # What is marked in a row to be copied stays marked: the row is not moved.
        arranged = ["abcde", "bcde is d", "cdeb is d", "ecdb is d", "fecdbg is d"]
        assert (await page.evaluate(ARRANGED))[:5] == arranged
        assert (await page.evaluate(ARRANGED))[5:] == ["gbdcef", ""]
        # Who is gone stays for a minute, and actions change places every 5 s at most.
        gone, order = await page.evaluate(REMEMBERED)
        assert gone == ["up up", "gone up", "gone up", "up", "up up"]
        assert order == "xxxxx" + "yyyyyyy"
        assert await page.evaluate(WRITTEN) == [
            *("< 1 ms", "< 1 ms", "23.4 ms", "500 ms", "3.00 s", "> 60 s", "\N{EN DASH}"),
            *("0", "< 0.1", "99.9", "100", "12.3 k", "12.3 M"),
            *("999 B", "1.0 kB", "1.0 MB", "9999", "5.0 %", "150 %"),
        ]


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
        refused = await page.inner_text("#rejected .more")
        assert refused == f"and 20 more; a filter shows those among the first {MAX_REJECTED_SHOWN}"
        assert (await page.inner_text("#notices")).startswith("Discovery is stale")
        link = await page.get_attribute("#explorer", "href")
        assert link == "http://127.0.0.1:8080/docs", "by the name that this page has"
        await page.keyboard.press("/")
        await page.keyboard.type("s017")
        await page.wait_for_selector("#instances .summary:has-text('1 of 301 instances')")
        assert await page.locator("#instances tbody tr").count() == 1
        assert await page.inner_text("#actions .empty") == "None matches the filter."
        assert "filter=s017" in teller.asked[-1]


async def test_an_answer_that_is_of_no_interest_any_more_is_not_shown(
    tmp_path: Path, tool: Tool
) -> None:
    async with told(tmp_path, tool("chromium"), partial(answer, size=30)) as teller:
        page = teller.page
        teller.held = asyncio.Event()
        await asyncio.wait_for(teller.holds.wait(), PATIENCE / 1000)
        held, teller.held = teller.held, None
        await page.fill("#filter", "s017")
        await page.wait_for_selector("#instances .summary:has-text('1 of 31 instances')")
        await page.evaluate(
            "new MutationObserver(() => instances.dataset.all = 'yes')"
            ".observe(instances.querySelector('tbody'), {childList: true})"
        )
        async with page.expect_response(lambda one: not one.url.endswith("s017")):
            held.set()
        async with page.expect_response(lambda one: one.url.endswith("s017")):
            pass
        assert await page.locator("#instances tbody tr").count() == 1
        assert await page.get_attribute("#instances", "data-all") is None


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
        assert await page.get_attribute("body", "data-answers") == "no"
        await page.evaluate(
            "new MutationObserver(() => banner.dataset.again = 'yes')"
            ".observe(banner, {childList: true, characterData: true, subtree: true})"
        )
        await page.wait_for_selector("#banner[data-seconds='1']")
        assert await page.get_attribute("#banner", "data-again") is None, "it is not said again"
        teller.silent = False
        await page.wait_for_selector("#banner", state="hidden")
        assert await page.inner_text("#announce") == "The gateway answers again"
        assert await page.get_attribute("body", "data-answers") == "yes"
        teller.next = upgraded
        await page.wait_for_selector("#announce:text-is('The gateway was started anew')")
        await page.wait_for_selector("#notices :text('and 99.0 answers: load it anew')")


def lengthy(number: int = 0, wanted: str = "") -> dict[str, Any]:
    """Names as long as they may be, and every state."""
    found = answer(number, wanted, size=6)
    instances, actions = found["instances"]["shown"], found["actions"]["shown"]
    instances[1]["service"] = found["services"]["shown"][0]["service"] = "N" * 300
    instances[2]["address"] = f"[{'2001:' * 7}ffff]:65535"
    actions[0]["action"] = f"A.{'x' * 300}~1"
    found["reloads"][0] |= {"what": "authorized_services", "error": "/x" * 150}
    return found


async def test_no_width_needs_scrolling_sideways(tmp_path: Path, tool: Tool) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 375, "height": 740}, "has_touch": True}
    async with told(tmp_path, tool("chromium"), lengthy, **phone) as teller:
        page = teller.page
        await page.wait_for_selector(f"{REQUESTS}:text-is('100')")
        for width in (1400, 1200, 1025, 900, 768, 375, 360, 320):
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
