"""A reply that breaks off is seen as broken by those who read it: curl, aiohttp, a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiohttp
import pytest

from fronted import Fronted
from scamp.testing import Script, ScriptedPeer
from scamp.testing.scripts import begun, cut_midway, txerr

SIZE: Final = 200_000
CUT: Final = (18, 56)
"""curl's exit statuses: the end came too early, or as a reset."""

BROKEN: Final = {"given up": txerr("broken", after=bytes(SIZE)), "lost": cut_midway(SIZE)}
BROWSER: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
FETCH: Final = """
    fetch("/api/Test.echo", {method: "POST"})
        .then(answer => answer.text())
        .then(text => `whole ${text.length}`, error => `broken ${error.name}`)
"""

each_break = pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)


def whole() -> Script:
    """As large as the broken ones, and complete."""
    go_on = asyncio.Event()
    go_on.set()
    return begun(bytes(SIZE // 2), go_on)


async def curl(program: str, version: str, port: int) -> tuple[int, int]:
    """Exit status, and bytes that came."""
    command = [program, "--silent", f"--http{version}", "--request", "POST", "--max-time", "20"]
    process = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{port}/api/Test.echo", stdout=asyncio.subprocess.PIPE
    )
    came, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, len(came)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@each_break
async def test_curl_fails(tool: Callable[[str], str], script: Script, version: str) -> None:
    program = tool("curl")
    async with Fronted(ScriptedPeer(script)) as gateway:
        status, _ = await curl(program, version, gateway.port)
        assert status in CUT
        await gateway.mesh.settled()
    async with Fronted(ScriptedPeer(whole())) as gateway:
        assert await curl(program, version, gateway.port) == (0, SIZE)


@each_break
async def test_aiohttp_raises(script: Script) -> None:
    """In HTTP/1.1. In HTTP/1.0 it takes a connection that was reset for the end of the body."""
    async with (
        Fronted(ScriptedPeer(script)) as broken,
        Fronted(ScriptedPeer(whole())) as sound,
        aiohttp.ClientSession() as session,
    ):
        url = "http://127.0.0.1:{}/api/Test.echo"
        async with session.post(url.format(broken.port), json={}) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        async with session.post(url.format(sound.port), json={}) as answer:
            assert len(await answer.read()) == SIZE


async def test_fetch_in_a_browser_rejects(tool: Callable[[str], str]) -> None:
    playwright: Any = pytest.importorskip("playwright.async_api", reason="needs playwright")
    program = tool("chromium")
    async with (
        Fronted(ScriptedPeer(whole())) as sound,
        playwright.async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=program, args=BROWSER)
        try:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{sound.port}/")
            assert await page.evaluate(FETCH) == f"whole {SIZE}"
            for script in BROKEN.values():
                async with Fronted(ScriptedPeer(script)) as broken:
                    await page.goto(f"http://127.0.0.1:{broken.port}/")
                    assert await page.evaluate(FETCH) == "broken TypeError"
        finally:
            await browser.close()
