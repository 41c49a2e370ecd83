"""Harnesses for what browsers send: heads with cookies, origins and codings; compressed bodies."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.compression import accepts_gzip
from gateway.cors import KNOWN_FIELDS, MAX_ASKED, Cors
from gateway.credentials import Credentials, DifferentTicketsError
from gateway.problems import Problem
from gateway.unpacking import MAX_PIECE, BrokenEncodingError, Unpacker, unpacker_of

APP: Final = "https://app.example"

HEADS: Final = (
    b"Host: test\nCookie: a=b; ticket=1,2,3; c\nOrigin: http://test\n",
    b'Host: test:81\nCookie: ticket="1\\0542"\nCookie: ticket=1%2C2\nSec-Fetch-Site: none\n',
    b"Host: a\nOrigin: https://app.example\nAccess-Control-Request-Method: PUT\n"
    b"Access-Control-Request-Headers: x-a, content-type\n",
    b"Host: a\nAccept-Encoding: gzip;q=0.5, identity;q=0, *\nContent-Encoding: gzip\n",
    b"Authorization: Bearer t\nX-SCAMP-Ticket: t\nCookie: ticket=t\nOrigin: null\n",
)
BODIES: Final = tuple(
    bytes([step]) + packed
    for step in (0, 3)
    for packed in (
        gzip.compress(b"[1,2,3]" * 30, mtime=0) + gzip.compress(b"x", mtime=0),
        zlib.compress(b"[1,2,3]" * 30),
        zlib.compress(bytes(2 * MAX_PIECE)),
        zlib.compress(b"[1]")[2:-4],
    )
)

_CREDENTIALS: Final = Credentials("ticket", origins=(APP,))
_CORS: Final = Cors((APP,), credentials=True)


def request_head(data: bytes) -> None:
    """A ticket is the caller's own words, and an origin that is let in is one that is listed."""
    fields: CIMultiDict[str] = CIMultiDict()
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields.add(name, value.strip())
    head = CIMultiDictProxy(fields)
    with suppress(DifferentTicketsError):
        text, ambient = _CREDENTIALS.find(head)
        assert text != ""
        assert not ambient or "Cookie" in head
    if _CREDENTIALS.trusts(head) and "Origin" in head:
        assert head["Origin"].lower() in {APP, *_own(head)}
    answer: CIMultiDict[str] = CIMultiDict()
    _CORS.mark(answer, head)
    assert answer.get("Access-Control-Allow-Origin") in (None, APP)
    for _, value in _CORS.preflight(head, "GET"):
        assert value.isascii()
        assert value.isprintable()
        assert value.count(",") < len(KNOWN_FIELDS) + MAX_ASKED
    accepts_gzip(head)
    with suppress(Problem):
        unpacker_of(head, enabled=True)


def _own(head: CIMultiDictProxy[str]) -> set[str]:
    hosts = head.getall("Host", ())
    return {f"{scheme}://{host.lower()}" for scheme in ("http", "https") for host in hosts}


def compressed_body(data: bytes) -> None:
    """However it is cut, the same comes out, in pieces of bearable size; or all cuts fail."""
    step, packed = (data[0] or MAX_PIECE, data[1:]) if data else (1, b"")
    for coding in ("gzip", "deflate"):
        whole, cut = (_unpacked(Unpacker(coding), packed, one) for one in (MAX_PIECE, step))
        assert whole == cut


def _unpacked(unpacker: Unpacker, packed: bytes, step: int) -> bytes | None:
    out: list[bytes] = []
    try:
        for at in range(0, len(packed), step):
            unpacker.feed(packed[at : at + step])
            while piece := unpacker.take():
                assert len(piece) <= MAX_PIECE
                out.append(piece)
        unpacker.finish()
    except BrokenEncodingError:
        return None
    return b"".join(out)
