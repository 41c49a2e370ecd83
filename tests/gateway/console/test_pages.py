"""The console's files: how they are served, and what holds for all of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from gateway.console.pages import SHARED
from gateway.lifecycle import Gateway, running
from stand import Stand, stand

PAGE: Final = files("gateway.console").joinpath("page")
EXPLORER: Final = files("gateway.explorer").joinpath("page")
OWN: Final = sorted(one.name for one in PAGE.iterdir())
FILES: Final = sorted({*OWN, *SHARED})

POLICY: Final = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
]


def text(name: str) -> str:
    place = EXPLORER if name in SHARED else PAGE
    return place.joinpath(name).read_text(encoding="utf-8")


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def gateway(mesh: Stand) -> AsyncIterator[Gateway]:
    async with running(mesh.loaded()) as one:
        yield one


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.admin.url) as session:
        yield session


async def test_every_file_that_the_page_names_is_served_with_its_type(
    http: aiohttp.ClientSession,
) -> None:
    named = set(re.findall(r'"\./page/([\w.-]+)"', text("index.html")))
    for name in FILES:
        named |= set(re.findall(r'from "\./([\w.-]+\.\w+)"', text(name)))
    assert named | {"index.html"} == set(FILES)
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in named:
        async with http.get(f"/page/{name}") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"].startswith(types[name.rpartition(".")[2]])
            assert answer.headers["Content-Security-Policy"].split("; ") == POLICY
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert await answer.text() == text(name)


async def test_who_has_a_file_gets_304_until_it_changes(http: aiohttp.ClientSession) -> None:
    async with http.get("/page/app.js") as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "no-cache"
    for given, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"other"', 200)):
        async with http.get("/page/app.js", headers={"If-None-Match": given}) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == etag
            assert bool(await answer.read()) is (status == 200)


@pytest.mark.parametrize("name", ["none.js", "index.html", "explorer.css", "..%2Fpages.py", ""])
async def test_all_else_is_not_there(http: aiohttp.ClientSession, name: str) -> None:
    async with http.get(f"/page/{name}") as answer:
        assert answer.status == 404


async def test_the_page_may_run_and_reach_nothing_but_its_own(http: aiohttp.ClientSession) -> None:
    async with http.get("/") as answer:
        assert answer.content_type == "text/html"
        assert answer.headers["Content-Security-Policy"].split("; ") == POLICY
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"


async def test_pages_of_strangers_read_none_of_it(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    for path in ("/overview", "/page/app.js", "/"):
        async with http.get(path, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        async with http.get(gateway.public.url + path) as answer:
            assert answer.status == 404


async def test_what_the_mesh_says_is_no_markup_without_scripts(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    mesh.cache.unlink()
    await gateway.parts.follower.refresh()
    status = gateway.parts.follower.status
    assert status.last_error
    object.__setattr__(status, "last_error", "<script>alert(1)</script>")
    async with http.get("/") as answer:
        page = await answer.text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = text("index.html")
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page) == []
    for name in FILES:
        hosts = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}", text(name)))
        assert hosts <= {"http://www.w3.org"}, name  # the name of SVG, not an address


def test_no_text_becomes_markup_or_code() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    for name in FILES:
        assert re.findall(ways, text(name)) == [], name


@pytest.mark.parametrize("name", [name for name in OWN if name.endswith(".js")])
def test_scripts_stay_small_and_say_what_they_are_for(name: str) -> None:
    lines = text(name).splitlines()
    assert lines[0].startswith("// ")
    assert len(lines) <= 300


def test_colours_are_those_whose_contrast_is_tested() -> None:
    for name in OWN:
        if name.endswith(".css"):
            assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\{)|\brgba?\(", text(name)) == [], name
