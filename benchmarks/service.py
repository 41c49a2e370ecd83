"""The service behind the gateway in a benchmark: echoes, gives and takes as much as it is told to.

``python -m benchmarks.service FOLDER [CACHE]`` finds its key and the tickets' public key in FOLDER,
writes the discovery cache there, and prints its address when it serves.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.work import HOLD, WAIT, pieces
from scamp.discovery import write_cache
from scamp.errors import ServiceError
from scamp.keys import load_public_key
from scamp.limits import MIB
from scamp.server import Request, Service
from scamp.tickets import TicketVerifier

ENVELOPES: Final = ("json", "blob")

SLOW_START: Final = 2.0
SLOW_RATE: Final = 32 * MIB
"""A slow reader takes nothing for so many seconds, then so many bytes each second."""


def make_service(folder: Path) -> Service:
    service = Service(
        "bench",
        key=(folder / "service.key").read_bytes(),
        certificate=(folder / "service.crt").read_bytes(),
        ticket_verifier=TicketVerifier([load_public_key((folder / "tickets.pub").read_bytes())]),
    )

    @service.action("Bench.echo")
    async def echo(request: Request) -> bytes:
        return await request.read_all()

    @service.action("Bench.open", flags="noauth")
    async def without_ticket(request: Request) -> bytes:
        return await request.read_all()

    @service.action("Bench.wait")
    async def wait(request: Request) -> bytes:
        await asyncio.sleep(WAIT)
        return await request.read_all()

    @service.action("Bench.hold")
    async def hold(request: Request) -> bytes:
        await asyncio.sleep(HOLD)
        return await request.read_all()

    @service.action("Bench.download", flags="read,t600", envelopes=ENVELOPES)
    async def download(request: Request) -> AsyncIterator[bytes]:
        body = await request.json()
        try:
            size = int(body["bytes"])
        except (KeyError, TypeError, ValueError) as exc:
            raise ServiceError("bad_request", "bytes: how many, please") from exc
        return _streamed(size)

    @service.action("Bench.upload", flags="t600", envelopes=ENVELOPES)
    async def upload(request: Request) -> dict[str, int]:
        return await _taken(request, None)

    @service.action("Bench.slowUpload", flags="t600")
    async def slow_upload(request: Request) -> dict[str, int]:
        await asyncio.sleep(SLOW_START)
        return await _taken(request, SLOW_RATE)

    return service


async def _streamed(size: int) -> AsyncIterator[bytes]:
    for piece in pieces(size):
        yield piece


async def _taken(request: Request, rate: float | None) -> dict[str, int]:
    """Read the body, at most `rate` bytes a second, and say what it was."""
    size, check, loop = 0, 0, asyncio.get_running_loop()
    began = loop.time()
    async for piece in request:
        size += len(piece)
        check = zlib.crc32(piece, check)
        if rate is not None:
            await asyncio.sleep(max(0.0, began + size / rate - loop.time()))
    return {"bytes": size, "crc32": check}


async def serve(folder: Path, cache: str = "cache") -> None:
    service = make_service(folder)
    host, port = await service.start(port=0)
    write_cache(folder / cache, [service.announcement()])
    print(f"{host}:{port}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await service.stop(grace=0)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), *sys.argv[2:]))
