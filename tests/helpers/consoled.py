"""The demo's services and the real command in front of them, each a process that can be killed,
and load on it. What is killed stays announced, as in a mesh where announcements expire."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import aiohttp

from gateway.demo.folder import Folder
from gateway.demo.process import Child
from gateway.demo.store import Store
from gateway.demo.supervisor import SERVICES
from scamp.discovery import write_cache

_READY: Final = re.compile(r"scamp-gateway ready: (\S+) admin (\S+)")

_CALLS: Final = (
    *(("GET", "/api/Product.Sku.ping"), ("GET", "/api/Product.Sku.list")) * 9,
    *(("GET", "/api/Product.Sku.fetch?code=CHAIR-1"), ("GET", "/v1/skus/DESK-1")) * 7,
    ("GET", "/api/Product.Sku.fetch?code=NONE"),
    ("PUT", "/api/Product.Price.set"),
    ("GET", "/api/Product.Sku.broken"),
    ("GET", "/api/Product.Sku.paint"),
)


class Consoled:
    """What a test of the admin page has to do with. `admin` is where the page is."""

    def __init__(self, folder: Folder, workers: int) -> None:
        self.folder = folder
        self.workers = workers
        self.admin = self.public = ""
        self.refused: list[bytes] = []
        """Records in the discovery cache that are no good."""
        self._children: dict[str, Child] = {}
        self._gateway: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Everything."""
        self.folder.database.unlink(missing_ok=True)
        Store(self.folder.database).prepare()
        for name in SERVICES:
            self.folder.record(name).unlink(missing_ok=True)
        await asyncio.gather(*map(self.start_service, SERVICES))
        self._keeper = asyncio.create_task(self._keep())
        await self.start_gateway("127.0.0.1:0", "127.0.0.1:0")

    async def _keep(self) -> None:
        """The cache file is fresh for as long as somebody writes it."""
        while True:
            await asyncio.sleep(1)
            os.utime(self.folder.cache)

    async def start_gateway(self, bind: str, admin: str) -> None:
        """Wait until it is ready."""
        folder = self.folder
        self._gateway = await Child.start(
            [
                *(sys.executable, "-m", "gateway.cli", "run", "--workers", str(self.workers)),
                *("--bind", bind, "--admin-bind", admin),
                *("--discovery-cache", str(folder.cache), "--discovery-poll-interval", "0.1"),
                *("--authorized-services", str(folder.authorized)),
                *("--ticket-key", str(folder.ticket_key), "--routes", str(folder.routes)),
                *("--access-log", "off", "--log-level", "warning", "--log-format", "text"),
                *("--drain-delay", "0", "--drain-limit", "1"),
            ],
            output=True,
        )
        line = await self._gateway.line()
        found = _READY.fullmatch(line)
        assert found is not None, line
        self.public, self.admin = found.groups()

    async def start_service(self, name: str) -> None:
        """Start it, maybe once more, and wait until it is announced."""
        record = self.folder.record(name)
        before = record.read_bytes() if record.exists() else b""
        kind = "auth" if name == "auth" else "shop"
        command = [sys.executable, "-m", "gateway.demo.services", kind, name]
        self._children[name] = await Child.start([*command, str(self.folder.path)], quiet=True)
        while not record.exists() or record.read_bytes() == before:  # noqa: ASYNC110 - a process
            await asyncio.sleep(0.02)
        self.announce()

    def announce(self) -> None:
        """Write the discovery cache."""
        records = [self.folder.record(name) for name in SERVICES]
        good = [record.read_bytes() for record in records if record.exists()]
        write_cache(self.folder.cache, [*good, *self.refused])

    def kill(self, name: str) -> None:
        """As ``kill -9`` does."""
        os.kill(self._children[name].pid, signal.SIGKILL)

    async def stop_gateway(self) -> None:
        """And wait for its end."""
        if self._gateway is not None:
            await self._gateway.end(signal.SIGTERM)

    async def stop(self) -> None:
        """Everything."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self.stop_gateway()
        await asyncio.gather(*(child.end(signal.SIGKILL) for child in self._children.values()))

    # -- load ---------------------------------------------------------------------------

    @asynccontextmanager
    async def load(self, clients: int = 3) -> AsyncIterator[None]:
        """Requests of all kinds while the block runs."""
        tasks = [asyncio.create_task(self._call(number)) for number in range(clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, number: int) -> None:
        ticket = self.folder.ticket("alice").read_text()
        headers = {"Authorization": f"Bearer {ticket}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            while True:
                for method, path in _CALLS:
                    body = {"code": "CHAIR-1", "price": 14900} if method == "PUT" else None
                    with suppress(aiohttp.ClientError):
                        async with http.request(method, self.public + path, json=body) as answer:
                            await answer.read()
                    await asyncio.sleep(0.02 + 0.005 * number)


@asynccontextmanager
async def consoled(folder: Folder, workers: int = 1) -> AsyncIterator[Consoled]:
    """A `Consoled` that runs; `folder` is prepared."""
    made = Consoled(folder, workers)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def tampered(folder: Folder, name: str) -> bytes:
    """A record of somebody else, under a signature that does not fit."""
    return folder.record(name).read_bytes().replace(b"shop:", b"shoq:", 1)
