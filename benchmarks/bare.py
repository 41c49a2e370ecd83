"""What the gateway is measured against: an aiohttp application that echoes, and nothing else.

No upstream, no tickets, no log, no metrics. The body goes back as it came, which is the least that
a JSON echo can do. Prints its address when it serves, as the gateway does.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/json")


async def serve() -> None:
    app = web.Application()
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}/echo", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
