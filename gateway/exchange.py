"""One HTTP request and what became of it: the record that metrics and the access log are made from,
and the way back to the client."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

if TYPE_CHECKING:
    from gateway.auth import Caller
    from gateway.metrics import ActionSeries
    from gateway.translate import Announced, Target

CLIENT_LEFT: Final = 499
"""Status in log and metrics when there was nobody left to answer."""

MAX_LEFTOVER: Final = 64 * 1024
"""Bytes of an unwanted request body that are read so that the connection can be used again."""

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}
_RESET: Final = struct.pack("ii", 1, 0)


class Written(web.StreamResponse):
    """Stands for an answer that is on the wire already; aiohttp asks it only about keep-alive."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether the connection takes another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to be done."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be done."""


_KEEP: Final = Written(keep_alive=True)
_CLOSE: Final = Written(keep_alive=False)


class _Common:
    """``Server`` and ``Date``, made once a second."""

    __slots__ = ("_second", "text")

    def __init__(self) -> None:
        self._second = 0
        self.text = ""

    def at(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            date = email.utils.formatdate(second, usegmt=True)
            self.text = (
                f"Server: scamp-gateway\r\nDate: {date}\r\n"
                "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            )
        return self.text


_common: Final = _Common()


class Serving:
    """What all exchanges of one front share."""

    __slots__ = ("draining", "idle")

    def __init__(self, idle: float) -> None:
        self.draining = False
        """Every answer ends its connection."""
        self.idle = idle
        """Seconds after which a client that takes nothing is given up."""


class Exchange:
    """What is known of one request, filled in as it goes; sends the answer.

    Writing goes straight to the transport. When the client does not take what was written,
    `drain` waits, and gives the connection up once nothing moved for the idle limit.
    """

    __slots__ = (
        "_http10",
        "_keep",
        "_timer",
        "action",
        "address",
        "asked",
        "attempts",
        "bytes_in",
        "bytes_out",
        "caller",
        "cause",
        "client",
        "close",
        "head_sent",
        "method",
        "queued",
        "request",
        "request_id",
        "route",
        "series",
        "serving",
        "source",
        "started",
        "status",
        "streamed",
        "trace_id",
        "upstream",
        "upstream_code",
        "waited",
        "wall",
        "was_cut",
    )

    def __init__(
        self,
        request: web.BaseRequest,
        serving: Serving,
        series: ActionSeries,
        started: float,
        wall: float,
    ) -> None:
        self.request = request
        self.serving = serving
        self.method = request.method
        self.started = started
        """Monotonic seconds."""
        self.wall = wall
        """Seconds since 1970."""
        self.series = series
        self.request_id = ""
        self.trace_id: str | None = None
        self.client: str | None = None
        self.route: str | None = None
        self.asked: Target | None = None
        self.action: Announced | None = None
        self.caller: Caller | None = None
        self.status = 0
        self.source = "gateway"
        self.cause: str | None = None
        """Why it did not end well, in one word; None when it did."""
        self.upstream_code: str | None = None
        self.address: str | None = None
        """Of the instance that had the request."""
        self.attempts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.queued = 0.0
        """Seconds before the request was handed to a connection."""
        self.upstream = 0.0
        """Seconds from there to the first byte of the reply, or to the failure."""
        self.waited = 0.0
        """Seconds spent waiting for the request's body."""
        self.streamed = False
        """A body went through piece by piece: then the time says nothing about the gateway."""
        self.head_sent = False
        self.close = False
        """The connection ends with this answer."""
        self.was_cut = False
        """The answer was ended before it was complete."""
        self._http10 = request.version < HttpVersion11
        self._keep = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def written(self) -> web.StreamResponse:
        """What a handler of aiohttp returns for this."""
        return _KEEP if self._keep else _CLOSE

    def send_whole(
        self, status: int, content_type: str | None, body: bytes, extra: str = ""
    ) -> None:
        """Write a complete answer. Raises ConnectionResetError when the client has left.

        `extra` are complete header lines. HEAD gets the header alone.
        """
        length = f"Content-Length: {len(body)}\r\n" if status != 204 else ""  # RFC 9110, 8.6
        head = self._head(status, content_type, length + extra, keep=True)
        if self.method == "HEAD":
            self._write(head)
            return
        self._write(head + body)
        self.bytes_out = len(body)

    def begin(self, content_type: str, first: bytes, extra: str = "") -> None:
        """Write the head of a 200 whose length is not known, and the first piece of its body."""
        self.streamed = True
        if self._http10 or self.method == "HEAD":
            head = self._head(200, content_type, extra, keep=self.method == "HEAD")
        else:
            extra += "Transfer-Encoding: chunked\r\n"
            head = self._head(200, content_type, extra, keep=True)
        if self.method == "HEAD":
            self._write(head)
        elif self._http10:
            self._write(head + first)
        else:
            self._write(b"%b%x\r\n%b\r\n" % (head, len(first), first))
        if self.method != "HEAD":
            self.bytes_out += len(first)

    def piece(self, data: bytes) -> None:
        """Write one more piece; not empty."""
        self._write(data if self._http10 else b"%x\r\n%b\r\n" % (len(data), data))
        self.bytes_out += len(data)

    def end(self) -> None:
        """The body that `begin` opened is complete."""
        if not self._http10 and self.method != "HEAD":
            self._write(b"0\r\n\r\n")

    def cut(self) -> None:
        """End the connection so that nobody takes what was sent for a whole answer.

        Without chunks an orderly end would be the end of the body, so HTTP/1.0 gets a reset.
        """
        self._keep = False
        self.was_cut = True
        transport = self.request.transport
        if transport is None:
            return
        if self._http10:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written. Safe to cancel.

        When nothing moves for the idle limit the connection is cut, which cancels the handler.
        """
        request = self.request
        if not request.protocol.writing_paused:
            return
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._watch(asyncio.get_running_loop(), transport, None)
        try:
            await request.writer.drain()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _watch(
        self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, seen: int | None
    ) -> None:
        left = transport.get_write_buffer_size()
        if seen is None or left < seen:
            self._timer = loop.call_later(self.serving.idle, self._watch, loop, transport, left)
        else:
            self._timer = None
            self.cause = "client_stalled"
            transport.abort()

    # -- inside -------------------------------------------------------------------------

    def _head(self, status: int, content_type: str | None, extra: str, *, keep: bool) -> bytes:
        line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Error\r\n"
        if self.close or self.serving.draining or self._much_to_come():
            keep = False
        keep = keep and self.request.keep_alive
        self._keep = keep
        if not keep:
            extra += "Connection: close\r\n"
        elif self._http10:
            extra += "Connection: keep-alive\r\n"
        if content_type is not None:
            extra += f"Content-Type: {content_type}\r\n"
        self.status = status
        return (
            f"{line}{_common.at(self.wall)}X-Request-ID: {self.request_id}\r\n{extra}\r\n"
        ).encode("latin-1")

    def _much_to_come(self) -> bool:
        """Whether the client is still sending more than is worth reading for the connection."""
        if self.request.content.is_eof():
            return False
        length = self.request.content_length
        return length is None or length > MAX_LEFTOVER

    def _write(self, data: bytes) -> None:
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        self.head_sent = True
        transport.write(data)


def header_lines(fields: Iterable[tuple[str, str]]) -> str:
    """Header fields as lines. Values are ours or went through `problems.quotable`."""
    return "".join(f"{name}: {value}\r\n" for name, value in fields)
