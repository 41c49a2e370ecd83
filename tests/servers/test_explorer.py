"""The explorer in a real browser, with the demo's services behind it.

``SCREENSHOTS=docs/images pytest tests/servers/test_explorer.py -k screenshots`` makes the pictures
of docs/explorer.md anew.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import Browser, browsing
from explored import Cut, Explored, Fixed, explored, path_item
from gateway.demo.folder import Folder
from gateway.demo.services import EXPORT_SIZE
from gateway.demo.supervisor import SERVICES, USERS

if TYPE_CHECKING:
    from playwright.async_api import Page

Browse = Callable[..., AbstractAsyncContextManager[Browser]]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The demo's keys and tickets: making them takes longer than a test."""
    made = Folder(tmp_path_factory.mktemp("demo"))
    made.prepare(SERVICES, USERS)
    return made


@pytest.fixture
async def site(folder: Folder) -> AsyncIterator[Explored]:
    async with explored(folder) as up:
        yield up


@pytest.fixture
def browse(tool: Callable[[str], str]) -> Browse:
    chromium = tool("chromium")

    @asynccontextmanager
    async def open_one(site: Explored, **options: Any) -> AsyncIterator[Browser]:
        """Whatever a test does: nothing goes elsewhere and nothing is complained of."""
        async with browsing(chromium, site.origin, **options) as browser:
            yield browser
            assert browser.strangers == []
            assert browser.complaints == []

    return open_one


async def use_ticket(page: Page, site: Explored, user: str) -> None:
    await page.click("#ticket-button")
    await page.fill("#ticket-text", site.ticket(user))
    await page.click("text=Use ticket")
    await page.wait_for_selector(f"#ticket-button:has-text('User {USERS[user][0]}')")


async def send(page: Page) -> str:
    """Press Send and wait; what stands in the reply."""
    await page.click(".try >> text=Send")
    await page.wait_for_selector("#reply:not([aria-busy]) .status-line")
    return await page.inner_text("#reply")


async def actions(page: Page) -> list[str]:
    await page.wait_for_selector("#list a")
    links = await page.query_selector_all("#list a")
    return [str(await link.get_attribute("data-key")) for link in links]


# -- the list ---------------------------------------------------------------------------


async def test_actions_are_listed_by_namespace_and_filtered(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs")
        assert set(await actions(page)) == {
            path.removeprefix("/api/") for path in site.document["paths"]
        }
        headings = await page.locator("#list h2").all_inner_texts()
        assert headings == ["Auth", "Product.Price", "Product.Sku"]
        assert await page.inner_text("#filter-count") == "11 actions"
        await page.keyboard.press("/")
        await page.keyboard.type("sku updat")
        assert await actions(page) == ["Product.Sku.update"]
        assert await page.inner_text("#filter-count") == "1 of 11 actions"
        await page.fill("#filter", "nothing of the kind")
        await page.click("text=Clear the filter")
        assert len(await actions(page)) == 11


async def test_link_leads_to_an_action_and_back_leads_back(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.slow")
        await page.wait_for_selector("h1:has-text('Product.Sku.slow')")
        assert await page.get_attribute("[aria-current=page][data-key]", "data-key") == (
            "Product.Sku.slow"
        )
        assert "within 30 s" in await page.inner_text(".title")
        await page.click("[data-key='Product.Sku.ping']")
        await page.wait_for_selector("h1:has-text('Product.Sku.ping')")
        assert "open to everybody" in await page.inner_text(".title")
        await page.go_back()
        await page.wait_for_selector("h1:has-text('Product.Sku.slow')")
        await page.goto(f"{site.origin}/docs/#Product.Sku.paint")
        await page.wait_for_selector("h1:has-text('No such action')")


async def test_description_that_does_not_come_is_told_and_asked_for_again(
    site: Explored, browse: Browse
) -> None:
    whole = site.document
    site.document = None  # type: ignore[assignment]
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await page.wait_for_selector("#banner:has-text('could not be loaded')")
        site.document = whole
        await page.click("text=Try again")
        assert len(await actions(page)) == 11
        assert await page.is_hidden("#banner")


# -- trying -----------------------------------------------------------------------------


async def test_action_is_run_with_a_ticket_that_shows_nowhere(
    site: Explored, browse: Browse
) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.create")
        shown = await send(page)
        assert "401" in shown
        assert "Set a ticket" in shown
        await use_ticket(page, site, "alice")
        await page.fill("#body", '{"code": "LAMP-1", "name": "Brass lamp", "price": 4900}')
        shown = await send(page)
        assert "200 OK" in shown
        assert '"price": 4900' in shown
        await page.click("[data-key='Product.Sku.fetch']")
        await page.fill("[data-key='query code']", "LAMP-1")
        await page.click("text=As a curl line")
        curl = await page.inner_text(".curl pre")
        assert curl == (
            f"curl -sS '{site.origin}/api/Product.Sku.fetch?code=LAMP-1' \\\n"
            '  -H "Authorization: Bearer $TICKET"'
        )
        assert "Brass lamp" in await send(page)
        ticket = site.ticket("alice")
        assert ticket not in await page.content()
        assert not any(ticket in request.url for request in browser.requests)
        kept = "JSON.stringify([{...sessionStorage}, {...localStorage}])"
        assert ticket not in await page.evaluate(kept)
        await page.reload()
        await page.wait_for_selector("#ticket-button:has-text('Set ticket')")


async def test_ticket_outlives_a_reload_only_when_wanted(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await page.click("#ticket-button")
        await page.check("#ticket-keep")
        await page.fill("#ticket-text", f"Authorization: Bearer {site.ticket('bob')}\n")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#ticket-button:has-text('User 1002')")
        await page.reload()
        await page.wait_for_selector("#ticket-button:has-text('User 1002')")
        await page.click("#ticket-button")
        assert "sku_read" in await page.inner_text("#ticket-dialog")
        await page.click("text=Forget it")
        await page.reload()
        await page.wait_for_selector("#ticket-button:has-text('Set ticket')")


async def test_missing_privilege_is_named(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.create")
        await use_ticket(page, site, "bob")
        await send(page)
        problem = await page.inner_text(".problem")
        assert "Privilege missing" in problem
        assert "requires privilege sku_create" in problem
        assert "Your ticket carries: sku_read" in problem
        assert "403 Forbidden" in await page.inner_text(".status-line")


async def test_error_of_a_service_shows_what_the_service_gave(
    site: Explored, browse: Browse
) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.broken")
        await use_ticket(page, site, "bob")
        shown = await send(page)
        assert "the label printer is on fire" in shown
        assert "printer_on_fire" in shown
        assert '"printer": 3' in shown


async def test_large_reply_is_shown_in_part_and_saved_whole(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.export")
        await use_ticket(page, site, "bob")
        shown = await send(page)
        assert "The first 32.8 kB of 4.4 MB." in shown
        assert "SKU-0000001" in shown
        assert len(shown) < 200_000
        async with page.expect_download() as started:
            await page.click("text=Save 4.4 MB")
        download = await started.value
        assert download.suggested_filename == "export.json"
        saved = await asyncio.to_thread(Path(await download.path()).read_bytes)
        assert len(saved) == EXPORT_SIZE
        assert saved.endswith(b'number 0080000"}]')


async def test_running_request_is_cancelled(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.slow")
        await use_ticket(page, site, "bob")
        await page.click(".try >> text=Send")
        await page.keyboard.press("Escape")  # the focus is on Cancel meanwhile
        await page.wait_for_selector("text=Cancelled before the reply began.")
        assert await page.is_enabled(".try >> text=Send")
        line = (await site.front.log.until(1))[-1]
        while line["action"] != "Product.Sku.slow":
            line = (await site.front.log.until(len(site.front.log.lines) + 1))[-1]
        assert line["status"] == 499


async def test_reply_that_is_cut_off_is_never_shown_as_whole(
    folder: Folder, tool: Callable[[str], str]
) -> None:
    async with explored(folder, {"/cut": Cut()}) as site:
        site.document["paths"] = {"/cut": {"get": {"summary": "Breaks off."}}}
        async with browsing(tool("chromium"), site.origin) as browser:
            page = await browser.open("/docs#/cut")
            assert "Broken off." in await send(page)
            assert await page.locator(".status.good").count() == 0
            assert [one for one in browser.complaints if "INCOMPLETE_CHUNKED" not in one] == []


async def test_route_of_ones_own_with_parameters_in_path_and_query(
    folder: Folder, browse: Browse
) -> None:
    route = Fixed("/skus/{code}", lambda _: (429, "application/problem+json", LATER))
    async with explored(folder, {"/skus/": route}) as site:
        site.document["paths"] = {"/skus/{code}": {"get": {"parameters": PARAMETERS}}}
        async with browse(site) as browser:
            page = await browser.open("/docs#/skus/{code}")
            await page.click(".try >> text=Send")
            assert await page.get_attribute("[data-key='path code']", "aria-invalid") == "true"
            assert route.asked == []
            await page.fill("[data-key='path code']", "A B?")
            await page.fill("[data-key='query field']", "name\nprice")
            await page.select_option("[data-key='query full']", "true")
            await page.fill("[aria-label='filter: name']", "colour")
            await page.fill("[aria-label='filter: value']", "red & blue")
            assert "Too many requests" in await send(page)
            assert route.asked[0][0] == (
                "/skus/A%20B%3F?field=name&field=price&full=true&colour=red%20%26%20blue"
            )


LATER = b'{"title": "Too many requests", "status": 429, "detail": "Slowly.", "more": [1]}'
PARAMETERS: list[dict[str, Any]] = [
    {"name": "code", "in": "path", "required": True, "schema": {"type": "string"}},
    {"name": "field", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
    {"name": "full", "in": "query", "schema": {"type": "boolean"}},
    {"name": "filter", "in": "query", "schema": {"type": "object"}},
]


# -- by keyboard, on a phone, in the dark -----------------------------------------------


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
        await follow(page, "Product", "LAMP-1")
        await check()


# -- strangers --------------------------------------------------------------------------

EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
LINK = "[click](javascript:alert(3)) `<b>` \n\n <svg/onload=alert(4)>"


async def test_what_services_say_stays_text(folder: Folder, browse: Browse) -> None:
    reply = Fixed("/evil", lambda _: (400, "application/problem+json", problem))
    problem = b'{"title": "%b", "detail": "%b", "code": "%b"}' % ((EVIL.encode(),) * 3)
    item = path_item(EVIL, "read,<i>x</i>", LINK)
    for operation in item.values():
        operation["tags"] = [EVIL]
        operation["summary"] = EVIL
        operation["parameters"] = [
            {"name": EVIL, "in": "query", "description": LINK, "schema": {"enum": [EVIL]}}
        ]
        operation["responses"] = {EVIL: {"description": LINK}}
    item["post"]["requestBody"] = {
        "content": {
            EVIL: {},
            "application/json": {
                "schema": {"properties": {EVIL: {"type": EVIL, "description": EVIL}}}
            },
        }
    }
    async with explored(folder, {"/evil": reply}) as site:
        site.document["info"] = {"title": EVIL, "description": LINK}
        site.document["paths"] = {"/evil": item}
        async with browse(site) as browser:
            page = await browser.open("/docs")
            dialogs: list[str] = []
            page.on("dialog", lambda dialog: dialogs.append(dialog.message))
            await page.wait_for_selector("#detail >> text=javascript:alert(3)")
            await page.click("#list a")
            for method in ("GET", "POST"):
                await page.click(f".methods >> text={method}")
                shown = await send(page)
                assert EVIL in shown
                assert EVIL in await page.inner_text(".try")
                assert EVIL in await page.inner_text("#list")
            for tag in ("img[onerror]", "svg", "script:not([src])", "b", "i"):
                assert await page.locator(f"body {tag}").count() == 0
            assert await page.locator("a[href^='javascript']").count() == 0
            assert dialogs == []


ODD: list[Any] = [
    [],
    {},
    {"openapi": "3.1.0", "paths": None},
    {"openapi": "3.1.0", "paths": {"/a": None, "/b": {"get": None}, "/c": {"get": {}}}},
    {"paths": {"/a": {"get": {"parameters": [None, {}, {"$ref": "#/no"}, {"name": 1}]}}}},
    {"paths": {"/a": {"$ref": "#/paths/~1a"}}},
    {"paths": {"/a": {"post": {"requestBody": {"$ref": "https://example.invalid/x"}}}}},
    {"paths": {"/a": {"post": {"tags": "x", "security": 3, "x-scamp-flags": 7}}}, "tags": [3]},
    {"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": None}}}}}},
]


@pytest.mark.parametrize("number", range(len(ODD)))
async def test_odd_document_is_shown_as_far_as_it_goes(
    site: Explored, browse: Browse, number: int
) -> None:
    site.document = ODD[number]
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await page.wait_for_selector("#filter-count:not(:empty)")
        for link in await page.query_selector_all("#list a"):
            await link.click()
            await page.wait_for_selector("form.try")


async def test_schemas_without_end_do_not_hold_the_page_up(site: Explored, browse: Browse) -> None:
    """Ten members that are each of ten kinds, each of which is one of all of them."""
    names = [f"S{number}" for number in range(10)]
    every = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    site.document["components"]["schemas"] = {
        name: {
            "allOf": every,
            "anyOf": every,
            "required": names,
            "properties": dict(zip(names, every, strict=True)),
        }
        for name in names
    }
    site.document["paths"] = {
        "/deep": {"post": {"requestBody": {"content": {"application/json": {"schema": every[0]}}}}},
        "/loop": {"post": {"requestBody": {"$ref": "#/paths/~1loop/post/requestBody"}}},
    }
    async with browse(site) as browser:
        page = await browser.open("/docs#/deep")
        await page.wait_for_selector("form.try")
        assert await page.locator(".schema > div").count() <= 300


async def test_thousand_actions_are_listed_and_filtered(site: Explored, browse: Browse) -> None:
    site.document["paths"] = {
        f"/api/N{number // 50}.act{number}": path_item(f"N{number // 50}.act{number}", "read", "")
        for number in range(1000)
    }
    async with browse(site) as browser:
        page = await browser.open("/docs")
        assert len(await actions(page)) == 1000
        await page.fill("#filter", "act999")
        assert await actions(page) == ["N19.act999"]


async def test_numbers_and_depth_of_a_reply_are_as_they_were_sent(
    folder: Folder, browse: Browse
) -> None:
    depth = 15_000
    bodies = [
        b'{"id": 12345678901234567890, "id": 1.10, "x": "a\\"b: [1]", "e": {}, "l": []}',
        b"[" * depth + b"]" * depth,
        b"\x00\x01",
        b"",
    ]
    number = 0
    reply = Fixed("/odd", lambda _: (200, "application/json", bodies[number]))
    async with explored(folder, {"/odd": reply}) as site:
        site.document["paths"] = {"/odd": {"get": {}}}
        async with browse(site) as browser:
            page = await browser.open("/docs#/odd")
            shown = await send(page)
            assert '"id": 12345678901234567890,\n  "id": 1.10,\n  "x": "a\\"b: [1]"' in shown
            assert '"e": {},\n  "l": []' in shown
            number = 1
            await send(page)
            assert len(await page.inner_text("#reply pre")) < 4_000_000
            number = 2
            assert "Not text." in await send(page)
            number = 3
            assert "No body." in await send(page)


# -- live values ------------------------------------------------------------------------

PICTURE = {
    "service": "Product",
    "sector": "main",
    "codes": {
        "CHAIR-1": {"name": "Oak chair", "price": 14900, "stock": 3},
        "LAMP-1": {"name": "Brass lamp", "price": 4900, "stock": 12},
    },
}


async def follow(page: Page, service: str, codes: str) -> None:
    await page.click("#tab-events")
    await page.fill("#events-service", service)
    await page.fill("#events-codes", codes)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".state[data-state=ready]")


def value_of(code: str, key: str) -> str:
    """A selector for the cell."""
    return f"tr:has(th:has-text('{code}')):has(td:text-is('{key}')) .value"


async def test_values_change_before_ones_eyes(site: Explored, browse: Browse) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await use_ticket(page, site, "bob")
        await follow(page, "Product", "LAMP-1, CHAIR-1")
        assert await page.text_content(value_of("LAMP-1", "price")) == "4900"
        site.events.say("change", {"code": "LAMP-1", "key": "price", "value": 4500})
        await page.wait_for_selector(f"{value_of('LAMP-1', 'price')}:text-is('4500')")
        assert await page.locator("tr.fresh .value").all_inner_texts() == ["4500"]
        site.events.say("change", {"code": "LAMP-1", "key": "stock", "deleted": True})
        await page.wait_for_selector(value_of("LAMP-1", "stock"), state="detached")
        site.events.say("change", {"code": "DESK-1", "key": "<b>", "value": {"x": [EVIL]}})
        await page.wait_for_selector(value_of("DESK-1", "<b>"))
        site.events.say("stale")
        await page.wait_for_selector(".state[data-state=stale]")
        site.events.say("ready")
        await page.wait_for_selector(".state[data-state=ready]")
        target, headers = site.events.asked[0]
        assert target == "/api/events/Product?code=LAMP-1&code=CHAIR-1"
        assert headers["Authorization"] == f"Bearer {site.ticket('bob')}"
        await page.click("text=Stop")
        await page.wait_for_selector(".state[data-state=idle]")


async def test_stream_that_ends_is_taken_up_where_it_was(site: Explored, browse: Browse) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs/events#Product?code=LAMP-1")
        await page.wait_for_selector(".state[data-state=ready]")
        site.events.say("change", {"code": "LAMP-1", "key": "price", "value": 1}, number=7)
        await page.wait_for_selector(f"{value_of('LAMP-1', 'price')}:text-is('1')")
        site.events.hang_up()
        site.events.say("change", {"code": "LAMP-1", "key": "price", "value": 2}, number=8)
        await page.wait_for_selector(f"{value_of('LAMP-1', 'price')}:text-is('2')")
        assert "Last-Event-ID" not in site.events.asked[0][1]
        assert site.events.asked[1][1]["Last-Event-ID"] == "7"


async def test_expired_ticket_ends_it_and_another_one_takes_it_up(
    site: Explored, browse: Browse
) -> None:
    site.events.snapshot = PICTURE
    async with browse(site) as browser:
        page = await browser.open("/docs/events#Product?code=LAMP-1")
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
    refusal = b'{"title": "Privilege missing", "detail": "Product._events takes stock_read."}'
    other = Fixed("/api/events/{service}", lambda _: (403, "application/problem+json", refusal))
    async with explored(folder, {"/api/events/Secret": other}) as site, browse(site) as browser:
        page = await browser.open("/docs/events#Secret?code=A")
        await page.wait_for_selector(".state >> text=403: Product._events takes stock_read.")
        assert len(other.asked) == 1


async def test_flood_of_values_is_capped(site: Explored, browse: Browse) -> None:
    site.events.snapshot = {"codes": {"A": {f"k{number}": number for number in range(5000)}}}
    async with browse(site) as browser:
        page = await browser.open("/docs/events#Product?code=A")
        await page.wait_for_selector("text=3000 more are not shown.")
        assert await page.locator("tbody tr").count() == 2000


# -- pictures ---------------------------------------------------------------------------


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
    options: dict[str, Any] = {"color_scheme": scheme}
    if name == "phone":
        options |= {"viewport": {"width": 375, "height": 760}, "device_scale_factor": 2}
    site.events.snapshot = PICTURE
    async with browse(site, **options) as browser:
        page = await browser.open("/docs")
        await use_ticket(page, site, "bob" if name == "403" else "alice")
        if name == "events":
            await follow(page, "Product", "LAMP-1 CHAIR-1")
            for key, value in (("price", 4500), ("stock", 11)):
                site.events.say("change", {"code": "LAMP-1", "key": key, "value": value})
            await page.wait_for_selector(f"{value_of('LAMP-1', 'stock')}:text-is('11')")
        else:
            shown = {"403": "create", "phone": "fetch"}.get(name, "list")
            await page.click(f"[data-key='Product.Sku.{shown}']")
            if name == "phone":
                await page.fill("[data-key='query code']", "CHAIR-1")
            await send(page)
        await page.mouse.move(0, 0)
        picture = await page.screenshot(animations="disabled")
    assert re.match(rb"\x89PNG", picture)
    if (wanted := os.environ.get("SCREENSHOTS")) is not None:
        kind = "" if name == "events" else "explorer-"
        path = Path(wanted) / f"{kind}{name}.png"
        await asyncio.to_thread(path.write_bytes, picture)
