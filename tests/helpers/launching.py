"""Calls that are launched, for tests."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from scamp.client import Call, ClientOptions, Deadline, Launch
from scamp.testing import Mesh

OPTIONS: Final = ClientOptions(retry_minimum=10_000, max_connections=4)
BODY: Final = b'{"n":1}'


def make(mesh: Mesh, body: Any = BODY, seconds: float = 10.0, **fields: Any) -> Call:
    offers = mesh.registry.find("main", "Test.echo", 1)
    return Call(offers=offers, body=body, deadline=Deadline.after(seconds), **fields)


class Launched:
    """One call under way, and how often it was said that there is news of it."""

    def __init__(self, mesh: Mesh, call: Call) -> None:
        self.requester = mesh.requester
        self.told = 0
        self._news = asyncio.Event()
        made = self.requester.launch(call, self._done)
        assert made is not None
        assert self.told == 0, "never from within"
        self.launch: Launch = made

    def _done(self) -> None:
        self.told += 1
        self._news.set()

    async def news(self) -> None:
        async with asyncio.timeout(5):
            await self._news.wait()
        assert self.told == 1

    async def read(self) -> bytes:
        """The body of the reply, whichever way it comes."""
        await self.news()
        reply = self.launch.reply()
        if reply is None:
            reply = await self.requester.resume(self.launch)
        return await reply.read_all()


async def ask(mesh: Mesh, body: bytes = BODY) -> bytes:
    reply = await mesh.requester.request("Test.echo", body)
    return await reply.read_all()
