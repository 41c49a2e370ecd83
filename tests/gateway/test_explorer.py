"""The explorer's files: how they are served, and what holds for all of them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from fronted import Fronted
from gateway.endpoints import Endpoints
from gateway.explorer import Explorer
from gateway.lifecycle import running
from stand import stand

PAGE: Final = files("gateway.explorer").joinpath("page")
FILES: Final = sorted(one.name for one in PAGE.iterdir())


def text(name: str) -> str:
    return PAGE.joinpath(name).read_text(encoding="utf-8")


@pytest.fixture
async def gateway() -> AsyncIterator[Fronted]:
    explorer = Explorer()
    endpoints = Endpoints([("/docs", explorer), ("/docs/", explorer)])
    async with Fronted(endpoints=endpoints) as up:
        yield up


# -- serving ----------------------------------------------------------------------------


async def test_every_file_that_a_page_names_is_served_with_its_type(gateway: Fronted) -> None:
    named = {"index.html"}
    for name in FILES:
        named |= set(re.findall(r'"\./([\w.-]+\.\w+)"', text(name)))
    assert named == set(FILES)
    types = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in named - {"index.html"}:
        answer = await gateway.request("GET", f"/docs/{name}")
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith(types[name.rpartition(".")[2]])
        assert answer.body == PAGE.joinpath(name).read_bytes()


async def test_the_page_is_there_with_and_without_a_slash_and_for_live_values(
    gateway: Fronted,
) -> None:
    for path, prefix in (("/docs", b"docs/"), ("/docs/", b"./"), ("/docs/events", b"./")):
        answer = await gateway.request("GET", path)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert b'src="' + prefix + b'app.js"' in answer.body
    assert {line["route"] for line in gateway.log.lines} == {"/docs/{file}"}


async def test_head_has_the_header_alone(gateway: Fronted) -> None:
    whole = await gateway.request("GET", "/docs/app.js")
    head = await gateway.request("HEAD", "/docs/app.js")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))
    assert head.headers["ETag"] == whole.headers["ETag"]


async def test_who_has_a_file_gets_304_until_it_changes(gateway: Fronted) -> None:
    answer = await gateway.request("GET", "/docs/app.js")
    etag = answer.headers["ETag"]
    assert answer.headers.getall("Cache-Control") == ["no-cache"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await gateway.request("GET", "/docs/app.js", [("If-None-Match", given)])
        assert (again.status, again.body) == (304, b"")
        assert again.headers["ETag"] == etag
        assert "Content-Security-Policy" in again.headers
    other = await gateway.request("GET", "/docs/app.js", [("If-None-Match", '"other"')])
    assert (other.status, other.body) == (200, answer.body)


async def test_nothing_but_the_page_itself_may_run_or_be_reached(gateway: Fronted) -> None:
    answer = await gateway.request("GET", "/docs")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/docs/none.js", 404, "unknown_path"),
        ("GET", "/docs/index.html", 404, "unknown_path"),
        ("GET", "/docs/events/", 404, "unknown_path"),
        ("GET", "/docs/../settings.py", 400, "bad_path"),
        ("GET", "/docs/%2e%2e/settings.py", 400, "bad_path"),
        ("GET", "/docs/..%2fpages.py", 400, "bad_path"),
        ("POST", "/docs", 405, "method_not_allowed"),
        ("DELETE", "/docs/app.js", 405, "method_not_allowed"),
    ],
)
async def test_all_else_is_refused(
    gateway: Fronted, method: str, path: str, status: int, code: str
) -> None:
    answer = await gateway.request(method, path)
    assert (answer.status, answer.json()["code"]) == (status, code)


async def test_it_is_on_unless_switched_off(tmp_path: Path) -> None:
    async with stand(tmp_path) as made, aiohttp.ClientSession() as http:
        for settings, status in (({}, 200), ({"docs": False}, 404)):
            async with running(made.loaded(**settings)) as up:
                for path in ("/docs", "/docs/", "/docs/app.js"):
                    async with http.get(f"{up.public.url}{path}") as answer:
                        assert answer.status == status


# -- the files --------------------------------------------------------------------------


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


def test_a_ticket_is_handled_in_one_place() -> None:
    holders = {name for name in FILES if "Storage" in text(name) and "ticket" in text(name)}
    assert holders == {"ticket.js"}
    assert {name for name in FILES if "Authorization: `Bearer" in text(name)} == {"ticket.js"}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_scripts_stay_small_and_say_what_they_are_for(name: str) -> None:
    lines = text(name).splitlines()
    assert lines[0].startswith("// ")
    assert len(lines) <= 300


# -- contrast ---------------------------------------------------------------------------


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r"(\S[^{}]*)\{([^{}]*--page[^{}]*)\}", text("tokens.css"))
    found = {}
    for selector, body in blocks:
        found[selector.strip()] = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", body))
    return found


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def pairs() -> Iterator[tuple[str, str, float]]:
    """Text and what is behind it, and the least contrast that WCAG AA wants."""
    for behind in ("page", "raised", "sunken", "accent-tint"):
        for ink in ("text", "muted", "accent", "good", "warn", "bad"):
            yield ink, behind, 4.5
    for kind in ("good", "warn", "bad"):
        yield kind, f"{kind}-tint", 4.5
    yield "on-accent", "accent", 4.5
    yield "text", "fresh", 4.5
    yield "muted", "fresh", 4.5
    yield "edge-strong", "page", 3.0  # the edge of a field is all that shows it
    yield "accent", "page", 3.0


def test_every_text_can_be_read_in_both_themes() -> None:
    light, by_system, chosen = themes().values()
    assert by_system == chosen
    assert light.keys() == chosen.keys()
    for theme in (light, chosen):
        for ink, behind, least in pairs():
            found = contrast(theme[ink], theme[behind])
            assert found >= least, f"{ink} on {behind}: {found:.2f}"
