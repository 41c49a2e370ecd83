"""A service as a process of its own behind load balancers: ``balanced_service.py FOLDER``.

It stops and goes on at gates, which other requests open and wait at, so that a test knows what has
passed the proxies without looking at a clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import uvloop

from scamp.discovery import write_cache
from scamp.errors import ServiceError
from scamp.server import Request, Service

PIECE: Final = hashlib.sha256(b"balanced").digest() * 2048
"""64 KiB of which a download is made, over and over."""

INTERVAL: Final = 1.0


class Gates:
    """Each has two events, by name: somebody stands at it, and it is open."""

    def __init__(self) -> None:
        self._reached: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def stand(self, name: str) -> None:
        """Wait until it is open."""
        self._reached[name].set()
        await self._open[name].wait()

    async def reached(self, name: str) -> None:
        """Wait until somebody stands there, or has."""
        await self._reached[name].wait()

    def open(self, name: str) -> None:
        """Let everybody through, from now on."""
        self._open[name].set()


def make(folder: Path) -> Service:
    service = Service(
        "show",
        key=(folder / "service.key").read_bytes(),
        certificate=(folder / "service.crt").read_bytes(),
        require_tickets=False,
        interval=INTERVAL,
    )
    gates = Gates()
    add_gates(service, gates)
    add_answers(service)
    add_streams(service, gates)
    add_changes(service, gates)
    return service


def add_gates(service: Service, gates: Gates) -> None:
    @service.action("Show.pass", flags="noauth,read")
    async def let_pass(request: Request) -> None:
        gates.open((await request.json())["gate"])

    @service.action("Show.reached", flags="noauth,read")
    async def reached(request: Request) -> None:
        await gates.reached((await request.json())["gate"])


def add_answers(service: Service) -> None:
    service.publish("price", "apple", 1)

    @service.action("Show.hello", flags="noauth,read")
    async def hello(request: Request) -> dict[str, Any]:
        return {"trace": request.header.extra.get("traceparent"), "body": await request.json()}

    @service.action("Show.fetch", flags="read")
    async def fetch(request: Request) -> dict[str, Any]:
        return {"ticket": request.header.ticket}

    @service.action("Show.fails", flags="noauth,read")
    async def fails(request: Request) -> None:
        raise ServiceError("conflict", "taken", {"by": "somebody"})

    @service.action("Show.price", flags="noauth,update")
    async def price(request: Request) -> None:
        body = await request.json()
        service.publish("price", body["key"], body["value"])


def add_streams(service: Service, gates: Gates) -> None:
    async def begun(gate: str, *, whole: bool) -> AsyncIterator[bytes]:
        yield b'["first",'
        await gates.stand(gate)
        if not whole:
            raise ServiceError("broken", "in the middle")
        yield b'"last"]'

    async def many(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE

    @service.action("Show.pieces", flags="noauth,read")
    async def pieces(request: Request) -> AsyncIterator[bytes]:
        return begun((await request.json())["gate"], whole=True)

    @service.action("Show.breaks", flags="noauth,read")
    async def breaks(request: Request) -> AsyncIterator[bytes]:
        return begun((await request.json())["gate"], whole=False)

    @service.action("Show.download", flags="noauth,read,t600")
    async def download(request: Request) -> AsyncIterator[bytes]:
        return many((await request.json())["pieces"])

    @service.action("Show.upload", flags="noauth,update,t600")
    async def upload(request: Request) -> dict[str, Any]:
        """A body that begins with ``gate=NAME`` is read on when that is open."""
        size, digest = 0, hashlib.sha256()
        async for piece in request:
            if not size and piece.startswith(b"gate="):
                await gates.stand(piece.split(b"\n", 1)[0].decode().partition("=")[2])
            size += len(piece)
            digest.update(piece)
        return {"bytes": size, "sha256": digest.hexdigest()}


def add_changes(service: Service, gates: Gates) -> None:
    made: Counter[str] = Counter()

    @service.action("Show.change", flags="noauth,update")
    @service.action("Show.remove", flags="noauth,destroy")
    async def change(request: Request) -> dict[str, Any]:
        body = await request.json()
        made[body["n"]] += 1
        if gate := body.get("gate"):
            await gates.stand(gate)
        return {"n": body["n"]}

    @service.action("Show.made", flags="noauth,read")
    async def count(request: Request) -> dict[str, Any]:
        """How often each change was made."""
        return dict(made)


async def serve(folder: Path) -> None:
    """Until told to stop; prints a line once the cache file is there, which it keeps fresh."""
    service = make(folder)
    host, port = await service.start(port=0)
    write_cache(folder / "cache", [service.announcement()])
    print(f"{host}:{port}", flush=True)  # noqa: T201 - for whoever waits
    try:
        while True:
            await asyncio.sleep(INTERVAL)
            write_cache(folder / "cache", [service.announcement()])
    finally:
        await service.stop(grace=0)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
