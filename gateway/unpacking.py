"""Request bodies that come compressed, unpacked piece by piece.

aiohttp could do it in its parser (`auto_decompress`), but takes a gzip body that breaks off for a
whole one, and unpacks for callers who have not shown a ticket yet. So the standard library's zlib
does it here, behind the reader. Brotli and zstd would need a package more.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

from multidict import CIMultiDictProxy

from gateway import catalogue
from gateway.problems import Problem

Coding = Literal["gzip", "deflate"]

MAX_PIECE: Final = 64 * 1024
"""Bytes that are unpacked at once, whatever the input would grow to."""

MAX_MEMBERS: Final = 1000
"""Members of one gzip body: each costs as much as kilobytes, and may be empty."""

_STEP: Final = 16 * 1024
"""Bytes of input per step: what is behind the end of a member is copied for each of them."""

_CODINGS: Final[dict[str, Coding]] = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


class BrokenEncodingError(Exception):
    """What came is not, or not all of, what its Content-Encoding says."""


class Unpacker:
    """Takes pieces of a compressed body, and gives pieces of what it was. Holds no more than one
    of each. gzip may consist of several members; deflate comes with or without zlib's header."""

    def __init__(self, coding: Coding) -> None:
        self._gzip = coding == "gzip"
        self._inflater: zlib._Decompress | None = None
        self._input = b""
        self._at = 0
        self._tail = b""
        self._full = False
        self._members = 0

    def feed(self, data: bytes) -> None:
        """More of the body; only when `take` had nothing left."""
        self._input, self._at = data, 0

    def take(self) -> bytes:
        """The next piece, at most `MAX_PIECE` bytes; empty when more of the body is needed.

        Raises BrokenEncodingError.
        """
        while self._full or self._tail or self._at < len(self._input):
            step = self._tail
            if not step and not self._full:
                step = self._input[self._at : self._at + _STEP]
                self._at += len(step)
            if piece := self._inflate(step):
                return piece
        return b""

    def finish(self) -> None:
        """The body has ended. Raises BrokenEncodingError if what was fed has not; a body of no
        bytes at all is an empty one."""
        if self._inflater is not None and not self._inflater.eof:
            raise BrokenEncodingError("The compressed body ends in the middle.")

    def _inflate(self, step: bytes) -> bytes:
        inflater = self._inflater
        if inflater is None or inflater.eof:
            inflater = self._inflater = self._begin(step)
        try:
            piece = inflater.decompress(step, MAX_PIECE)
        except zlib.error:
            raise BrokenEncodingError("The body is not what its Content-Encoding says.") from None
        self._tail = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        # What does not fit may be held inside, after all of the input was taken.
        self._full = len(piece) == MAX_PIECE and not inflater.eof
        return piece

    def _begin(self, step: bytes) -> zlib._Decompress:
        self._members += 1
        if self._members > (MAX_MEMBERS if self._gzip else 1):
            raise BrokenEncodingError("The compressed body goes on after its end.")
        if self._gzip:
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # RFC 9110 means zlib's format; some clients leave its header out.
        return zlib.decompressobj(zlib.MAX_WBITS if step[0] & 0x0F == 8 else -zlib.MAX_WBITS)


def unpacker_of(headers: CIMultiDictProxy[str], *, enabled: bool) -> Unpacker | None:
    """What unpacks the body that this header announces; None when it comes as it is.

    Raises Problem (unsupported_encoding) for other codings, for several, and for any at all
    unless `enabled`.
    """
    listed = ",".join(headers.getall("Content-Encoding", ())).split(",")
    codings = [one.strip().lower() for one in listed if one.strip().lower() not in ("", "identity")]
    if not codings:
        return None
    coding = _CODINGS.get(codings[0]) if enabled and len(codings) == 1 else None
    if coding is None:
        taken = "gzip, deflate" if enabled else "identity"
        raise Problem(
            catalogue.UNSUPPORTED_ENCODING,
            "Send the body without Content-Encoding"
            + (", or with one of gzip and deflate." if enabled else "."),
            headers=(("Accept-Encoding", taken),),
        )
    return Unpacker(coding)
