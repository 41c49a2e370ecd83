"""The explorer and what comes from services that mean no good, or know no better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from browser import Browse
from explored import Explored, Fixed, explored, path_item
from explorer_page import actions, send
from gateway.demo.folder import Folder

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.timeout(120)


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
                await page.check(f"input[name=method][value={method}]")
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


async def test_flood_of_actions_is_listed_in_part_and_filtered(
    site: Explored, browse: Browse
) -> None:
    site.document["paths"] = {
        f"/api/N{number // 50}.act{number}": path_item(f"N{number // 50}.act{number}", "read", "")
        for number in range(2500)
    }
    async with browse(site) as browser:
        page = await browser.open("/docs")
        assert len(await actions(page)) == 2000
        assert await page.inner_text("#filter-count") == "2500 actions"
        await page.wait_for_selector("text=500 more: filter to see them.")
        await page.fill("#filter", "act2499")
        assert await actions(page) == ["N49.act2499"]


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
