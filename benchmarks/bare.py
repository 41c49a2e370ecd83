"""What the gateway is measured against: aiohttp that echoes, and nothing else.

No upstream, no tickets, no log, no metrics. The body goes back as it came, which is the least that
a JSON echo can do. Answers the paths of the gateway's actions, so that both get the same requests.

    python -m benchmarks.bare [application|server [FOLDER]]

serves, over TLS with key and certificate from FOLDER, and prints its address, as the gateway does.
Nothing of ours is loaded, and nothing that is not needed: memory and time to start count, too.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from benchmarks.work import HOLD, WAIT, pieces

JSON: Final = "application/json"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def echo(request: web.BaseRequest) -> web.Response:
    return web.Response(body=await request.read(), content_type=JSON)


async def wait(request: web.BaseRequest) -> web.Response:
    await asyncio.sleep(WAIT)
    return await echo(request)


async def hold(request: web.BaseRequest) -> web.Response:
    await asyncio.sleep(HOLD)
    return await echo(request)


async def upload(request: web.BaseRequest) -> web.Response:
    size, check = 0, 0
    async for piece in request.content.iter_any():
        size += len(piece)
        check = zlib.crc32(piece, check)
    return web.json_response({"bytes": size, "crc32": check})


async def download(request: web.BaseRequest) -> web.StreamResponse:
    size = json.loads(await request.read())["bytes"]
    response = web.StreamResponse()
    response.content_type = JSON
    await response.prepare(request)
    for piece in pieces(size):
        await response.write(piece)
    await response.write_eof()
    return response


HANDLERS: Final[dict[str, Handler]] = {
    f"/api/Bench.{handler.__name__}": handler for handler in (echo, wait, hold, upload, download)
}


def application() -> web.AppRunner:
    """What most people would write."""
    app = web.Application(client_max_size=0)  # without a limit
    app.router.add_routes([web.post(path, handler) for path, handler in HANDLERS.items()])
    return web.AppRunner(app, access_log=None)


def server() -> web.ServerRunner:
    """The same without router, middlewares and signals."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await HANDLERS[request.path](request)

    return web.ServerRunner(web.Server(handle, access_log=None))


FORMS: Final[dict[str, Callable[[], web.AppRunner | web.ServerRunner]]] = {
    "application": application,
    "server": server,
}


async def serve(form: str, tls: Path | None) -> None:
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "service.crt", tls / "service.key")
    runner = FORMS[form]()
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context, backlog=4096)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"{'https' if context else 'http'}://{host}:{port}", flush=True)
    await asyncio.Event().wait()


def main(form: str = "application", folder: str | None = None) -> None:
    uvloop.run(serve(form, Path(folder) if folder else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
