"""By how much large bodies move the gateway's peak memory: up, down, and with those that are slow.

``python -m benchmarks.memory --size 1GiB``. Bodies are compared by length and CRC-32. A slow reader
takes nothing for two seconds, then 32 MiB a second: whatever is not held back piles up somewhere.
What is packed (gzip) is a hundredth or so of the size on its way between client and gateway.
"""

from __future__ import annotations

import http.client
import json
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from pydantic import ByteSize, TypeAdapter

from benchmarks.mesh import gateway
from benchmarks.processes import Serving
from benchmarks.service import SLOW_RATE, SLOW_START
from benchmarks.tables import columns
from benchmarks.work import PIECE, pieces
from scamp.limits import MIB

LIMIT: Final = 32 * MIB
TIMEOUT: Final = 300.0
ARGUMENTS: Final = ("--compress-replies",)
"""Of the gateway; only clients that ask for it get any of it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One body of `size` bytes that went through. `growth` is of the peak, in bytes."""

    name: str
    size: int
    growth: int
    seconds: float
    cpu: float

    def row(self) -> tuple[str, ...]:
        mebibytes = self.size / MIB
        return (
            self.name,
            f"{mebibytes:.0f}",
            f"{self.growth / MIB:.1f}",
            f"{mebibytes / self.seconds:.0f}",
            f"{self.cpu / mebibytes * 1000:.2f}",
            "" if self.growth < LIMIT else "TOO MUCH",
        )


HEADER: Final = ("", "MiB", "peak grew by MiB", "MiB/s", "CPU ms/MiB", "")


class BodyDamagedError(Exception):
    """What came out is not what went in."""


@cache
def checksum(size: int) -> int:
    check = 0
    for piece in pieces(size):
        check = zlib.crc32(piece, check)
    return check


def upload(
    front: Serving,
    size: int,
    path: str = "/api/Bench.upload",
    *,
    method: str = "POST",
    content_type: str = "application/json",
    chunked: bool = False,
) -> tuple[int, int]:
    """Send a body of `size` bytes; return length and checksum of what the service got."""
    connection = _connect(front)
    try:
        headers = dict([*front.headers, ("Content-Type", content_type)])
        if not chunked:
            headers["Content-Length"] = str(size)
        connection.request(method, path, body=pieces(size), headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return _told(answer.status, body)


def _told(status: int, body: bytes) -> tuple[int, int]:
    if status != 200:
        raise BodyDamagedError(f"{status} {body[:500]!r}")
    got = json.loads(body)
    return got["bytes"], got["crc32"]


def _packed(body: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    for piece in body:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def packed_upload(front: Serving, size: int) -> tuple[int, int]:
    """The same, compressed."""
    connection = _connect(front)
    try:
        headers = dict([*front.headers, ("Content-Encoding", "gzip")])
        connection.request(
            "POST",
            "/api/Bench.upload",
            body=_packed(pieces(size)),
            headers=headers,
            encode_chunked=True,
        )
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    return _told(answer.status, body)


def download(
    front: Serving,
    size: int,
    *,
    delay: float = 0.0,
    rate: float | None = None,
    path: str = "/api/Bench.download",
    content_type: str = "application/json",
    produces: str = "",
) -> tuple[int, int]:
    """Fetch a body of `size` bytes, at most `rate` a second and nothing for the first `delay`.

    Returns length and checksum of what came. Its length is not known before: it comes in chunks.
    """
    connection = _connect(front)
    try:
        headers = dict([*front.headers, ("Content-Type", content_type)])
        body = json.dumps({"bytes": size})
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        time.sleep(delay)
        got, check, began = 0, 0, time.monotonic()
        while piece := answer.read(len(PIECE)):
            got += len(piece)
            check = zlib.crc32(piece, check)
            if rate is not None:
                time.sleep(max(0.0, began + got / rate - time.monotonic()))
    finally:
        connection.close()
    if answer.status != 200 or answer.headers["Content-Type"] != (produces or content_type):
        raise BodyDamagedError(f"{answer.status} {answer.headers['Content-Type']}")
    return got, check


def packed_download(front: Serving, size: int) -> tuple[int, int]:
    """The same, compressed on its way."""
    connection = _connect(front)
    try:
        headers = dict([*front.headers, ("Accept-Encoding", "gzip")])
        connection.request("GET", f"/api/Bench.download?bytes={size}", headers=headers)
        answer = connection.getresponse()
        if answer.headers["Content-Encoding"] != "gzip":
            raise BodyDamagedError(f"{answer.status}, and not compressed")
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
        got, check = 0, 0
        while piece := answer.read(len(PIECE)):
            plain = unpacker.decompress(piece)
            got += len(plain)
            check = zlib.crc32(plain, check)
    finally:
        connection.close()
    if not unpacker.eof:
        raise BodyDamagedError("the compressed body broke off")
    return got, check


BLOB: Final = "application/vnd.scamp.blob"
IMAGE: Final = "image/png"

MOVES: Final[dict[str, Callable[[Serving, int], tuple[int, int]]]] = {
    "upload": upload,
    "chunked-upload": partial(upload, chunked=True),
    "blob-upload": partial(upload, content_type=BLOB),
    "chunked-blob-upload": partial(upload, content_type=BLOB, chunked=True),
    "download": download,
    "blob-download": partial(download, content_type=BLOB),
    "route-upload": partial(upload, path="/raw", method="PUT", content_type=IMAGE),
    "route-download": partial(download, path="/raw", produces=IMAGE),
    "slow-upload": partial(upload, path="/api/Bench.slowUpload"),
    "slow-download": partial(download, delay=SLOW_START, rate=SLOW_RATE),
    "packed-upload": packed_upload,
    "packed-download": packed_download,
}
"""A client and a service that are slow, and every way to say what a body is and where it ends."""


def measure(front: Serving, name: str, size: int) -> Moved:
    """Move one body. The peak before is what was resident just then.

    Raises BodyDamagedError when what came out is not what went in.
    """
    process, wanted = front.process, (size, checksum(size))
    before, cpu, began = process.forget_peak(), process.cpu(), time.monotonic()
    got = MOVES[name](front, size)
    seconds = time.monotonic() - began
    moved = Moved(name, size, process.peak() - before, seconds, process.cpu() - cpu)
    if got != wanted:
        raise BodyDamagedError(f"{name}: length and CRC-32 are {got}, not {wanted}")
    return moved


def _connect(front: Serving) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(front.url).netloc, timeout=TIMEOUT)


def parse_size(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """The value of an option that is a size."""
    if value is None:
        return None
    try:
        return TypeAdapter(ByteSize).validate_python(value)
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not a size such as 1GiB") from exc


@click.command()
@click.argument("names", metavar="[MOVE]...", nargs=-1, type=click.Choice(list(MOVES)))
@click.option(
    "--size", default="1GiB", show_default=True, callback=parse_size, help="Of each body."
)
@click.option("--times", default=1, show_default=True, help="How often, with a new gateway each.")
def main(names: tuple[str, ...], size: int, times: int) -> None:
    """Move large bodies through a gateway that has just started, and print what that cost it.

    Exit status 1 when its peak grew by 32 MiB or more.
    """
    found = []
    for name in [*(names or MOVES)] * times:
        with (
            tempfile.TemporaryDirectory(prefix="scamp-bench-") as folder,
            gateway(Path(folder), arguments=ARGUMENTS) as front,
        ):
            found.append(measure(front, name, size))
    click.echo("\n".join(columns([HEADER, *(moved.row() for moved in found)])))
    if any(moved.growth >= LIMIT for moved in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
