"""The health check of the container: what it asks, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway import health
from gateway.settings import ENV_PREFIX, Settings


async def check(*arguments: str, **environ: str) -> tuple[int | None, str]:
    """Run it as a container does; its status, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.health", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    out, err = await process.communicate()
    assert out == b""
    return process.returncode, err.decode()


@pytest.fixture
async def admin() -> AsyncIterator[TestServer]:
    async def livez(request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        return web.Response(status=503 if "verbose" in request.query else 200)

    application = web.Application()
    application.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    server = TestServer(application)
    await server.start_server()
    yield server
    await server.close()


async def test_it_asks_where_the_environment_has_the_listener(admin: TestServer) -> None:
    # A proxy of the container's environment is for elsewhere.
    proxy = {"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    for host in ("127.0.0.1", "0.0.0.0", ""):  # noqa: S104 - asked, not listened on
        bind = f"{host}:{admin.port}"
        assert await check(SCAMP_GATEWAY_ADMIN_BIND=bind, **proxy) == (0, ""), bind


async def test_a_url_goes_before_the_environment(admin: TestServer) -> None:
    elsewhere = {"SCAMP_GATEWAY_ADMIN_BIND": "127.0.0.1:1"}
    assert await check(f"http://127.0.0.1:{admin.port}", **elsewhere) == (0, "")
    assert await check(f"http://127.0.0.1:{admin.port}/readyz", **elsewhere) == (0, "")
    url = f"http://127.0.0.1:{admin.port}/readyz?verbose"
    assert await check(url, **elsewhere) == (1, f"{url}: status 503\n")


async def test_whoever_does_not_answer_is_not_alive() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/livez"
        assert await asyncio.to_thread(health.problem, url, 0.05) == "timed out"
    status, said = await check(SCAMP_GATEWAY_ADMIN_BIND=f"127.0.0.1:{port}")
    assert status == 1
    assert said == f"{url}: [Errno 111] Connection refused\n"
    assert (await check("nonsense"))[0] == 1
    assert (await check("http://127.0.0.1:x/"))[0] == 1


def test_without_anything_it_asks_the_usual_one() -> None:
    assert f"{ENV_PREFIX}ADMIN_BIND" == health._VARIABLE
    assert str(Settings.model_fields["admin_bind"].default) == health._USUAL
    assert health.admin_url("[::]:9090") == "http://[::]:9090/livez"
    assert health.admin_url("*:9090") == "http://127.0.0.1:9090/livez"


async def test_it_is_cheap() -> None:
    """It runs beside requests: none of what makes the gateway slow to start is imported."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import gateway.health, sys; print(*sys.modules)"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    loaded = {name.partition(".")[0] for name in out.decode().split()}
    assert loaded & {"aiohttp", "asyncio", "click", "pydantic", "scamp"} == set()
