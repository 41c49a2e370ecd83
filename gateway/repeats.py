"""A request that begins with the same bytes as the one before it on its connection.

What the parser said of a head holds for the same head. A client program mostly sends one and the
same, but for the length of the body: then the parser need not be asked again.
"""

from __future__ import annotations

import re
from typing import Any, Final

MAX_REPEATED: Final = 2048
"""Bytes of a head that is kept with its connection, for as long as that is idle, too."""

MAX_FIELDS: Final = 24
"""Fields in it: what the parser made of them is kept as well, and takes some 200 bytes for each."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]{0,4})\r\n", re.IGNORECASE)


_ZERO: Final = ord("0")


class Repeated:
    """A head that was found right, in front of its body, which has had any length but none."""

    __slots__ = ("_after", "_before", "message")

    def __init__(self, message: Any, before: bytes, after: bytes) -> None:
        """`message` is what the parser made of it; the digits of the length stand between `before`
        and `after`. Without a body `after` is empty."""
        self.message = message
        self._before = before
        self._after = after

    @classmethod
    def of(cls, data: bytes, message: Any, size: int) -> Repeated | None:
        """For `data` that was read at the beginning of a request; None unless it is the one that
        `message` is of, byte by byte, whole and alone, with a body of `size` bytes."""
        end = data.find(b"\r\n\r\n") + 4
        if not 4 <= end <= MAX_REPEATED or len(data) != end + size:
            return None
        first, *lines = data[: end - 4].split(b"\r\n")
        target = message.path.encode("utf-8", "surrogateescape")
        if first != b"%b %b HTTP/1.1" % (message.method.encode(), target):
            return None
        if len(lines) > MAX_FIELDS or tuple(map(_field, lines)) != message.raw_headers:
            return None
        if not size:
            return cls(message, data, b"")
        length = _LENGTH.search(data, 0, end - 2)
        names = [name.lower() for name, _ in message.raw_headers]
        if length is None or names.count(b"content-length") != 1:
            return None
        start, stop = length.span(1)
        return cls(message, data[:start], data[stop:end])

    def body(self, data: bytes) -> bytes | None:
        """The body of another request with this head, if `data` is that, whole and alone."""
        before, after = self._before, self._after
        if not data.startswith(before):
            return None
        start = len(before)
        if not after:
            return b"" if len(data) == start else None
        stop = data.find(b"\r", start, start + 6)
        digits = data[start:stop]
        if stop < 0 or not digits.isdigit() or digits[0] == _ZERO:
            return None
        end = stop + len(after)
        if len(data) - end != int(digits) or not data.startswith(after, stop):
            return None
        return data[end:]


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")
