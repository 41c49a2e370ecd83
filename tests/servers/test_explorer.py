"""The explorer in a real browser, with the demo's services behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser import Browse, browsing
from explored import Cut, Explored, Fixed, explored
from explorer_page import actions, send, statuses, use_ticket
from gateway.demo.folder import Folder
from gateway.demo.services import EXPORT_SIZE
from scamp.tickets import parse_ticket

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.timeout(120)


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


async def test_ticket_counts_its_last_seconds_and_is_known_to_have_expired(
    site: Explored, browse: Browse
) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs")
        await page.clock.install()
        await page.reload()
        await use_ticket(page, site, "bob")
        assert await page.inner_text("#ticket-button .until") == "24 h left"
        ticket = parse_ticket(site.ticket("bob"))
        await page.clock.pause_at(ticket.validity_start + ticket.validity_length - 30)
        seconds = []
        for _ in range(3):
            await page.clock.run_for(1000)
            seconds.append(int((await page.inner_text("#ticket-button .until")).split()[0]))
        assert seconds[0] - seconds[2] == 2, "each of them is shown"
        await page.clock.run_for(60_000)
        assert await page.inner_text("#ticket-button") == "Ticket expired"
        assert await page.inner_text("#announce") == "The ticket has expired"


async def test_slow_answer_is_waited_for_visibly(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.slow")
        await use_ticket(page, site, "bob")
        await page.click("[data-key='Product.Sku.slow']")
        await page.click(".try >> text=Send")
        await page.wait_for_selector(".try >> text=Waiting…")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(".try >> text=Waiting…", state="detached")


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
        assert await statuses(site, "Product.Sku.slow", 1) == [499]


async def test_second_request_takes_the_place_of_the_first(site: Explored, browse: Browse) -> None:
    async with browse(site) as browser:
        page = await browser.open("/docs#Product.Sku.slow")
        await use_ticket(page, site, "bob")
        await page.click(".try >> text=Send")
        await page.keyboard.press("Control+Enter")
        assert await statuses(site, "Product.Sku.slow", 1) == [499]
        assert await page.is_visible("text=Cancel")
        assert await page.is_disabled(".try >> text=Send")
        await page.keyboard.press("Escape")
        await page.wait_for_selector("text=Cancelled before the reply began.")
        assert await page.is_hidden(".try >> text=Cancel")


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


async def test_header_that_cannot_be_sent_is_not_blamed_on_the_gateway(
    site: Explored, browse: Browse
) -> None:
    field = {"name": "X-Reason", "in": "header", "schema": {"type": "string"}}
    site.document["paths"] = {"/docs": {"get": {"parameters": [field]}}}
    async with browse(site) as browser:
        page = await browser.open("/docs#/docs")
        await page.click("text=Header fields")
        await page.fill("[data-key='header X-Reason']", "\u2192")
        await page.click(".try >> text=Send")
        await page.wait_for_selector("text=Not sent: a header field has")
        await page.fill("[data-key='header X-Reason']", "because")
        assert "200 OK" in await send(page)


async def test_ticket_in_a_cookie_shows_whose_it_is(site: Explored, browse: Browse) -> None:
    site.document["components"]["securitySchemes"]["c"] = {"type": "apiKey", "in": "cookie"}
    async with browse(site) as browser:
        page = await browser.open("/docs/none")  # a page that asks for nothing
        await page.evaluate(f"document.cookie = 'ticket={site.ticket('bob')}; path=/'")
        await page.goto(f"{site.origin}/docs")
        await page.wait_for_selector("#ticket-button:has-text('User 1002')")
        await page.click("#ticket-button")
        assert "a cookie of this gateway" in await page.inner_text("#ticket-dialog")
        assert await page.is_hidden("text=Forget it")
        await page.click("text=Close")
        await page.click("[data-key='Product.Sku.create']")
        assert "requires privilege sku_create" in await send(page)
        await use_ticket(page, site, "alice")  # stands in for the cookie, and does not quarrel
        assert "200 OK" in await send(page)


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
