"""One HTTP request and what became of it: the record that metrics and the access log are made from,
and the way back to the client."""

from __future__ import annotations

import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.compression_utils import ZLibCompressor
from multidict import CIMultiDict, istr

from gateway import compression
from gateway.clients import Clients
from gateway.connection import Connection

if TYPE_CHECKING:
    from gateway.actions import Announced, Target
    from gateway.auth import Caller
    from gateway.cors import Cors
    from gateway.metrics import ActionSeries
    from gateway.routing import Places
    from gateway.tracing.model import RequestTrace

CLIENT_LEFT: Final = 499
"""Status in log and metrics when there was nobody left to answer."""

MAX_LEFTOVER: Final = 64 * 1024
"""Bytes of an unwanted request body that are read so that the connection can be used again."""

Fields = Iterable[tuple[str, str]]
"""Header fields. Values are ours or went through `problems.quotable`."""

COMMON: Final = (
    (hdrs.SERVER, "scamp-gateway"),
    (hdrs.CACHE_CONTROL, "no-store"),
    (istr("X-Content-Type-Options"), "nosniff"),
)
"""Fields of every answer."""
X_REQUEST_ID: Final = istr("X-Request-ID")
_RESET: Final = struct.pack("ii", 1, 0)


class _Streamed(web.StreamResponse):
    """One whose head leaves with the first piece, in one write."""

    _send_headers_immediately = False


class Serving:
    """What all exchanges of one front share."""

    __slots__ = (
        *("clients", "compress", "cors", "draining", "held", "in_flight", "server_timing", "shed"),
    )

    def __init__(
        self,
        *,
        clients: Clients | None = None,
        cors: Cors | None = None,
        compress: bool = False,
        server_timing: bool = False,
    ) -> None:
        """`clients` has their limits. `cors`: which origins may read answers; None: only our own.
        `compress`: answers, for those who accept that. `server_timing`: tell callers the times."""
        self.draining = False
        """Every answer ends its connection."""
        self.in_flight = 0
        """Requests that are not answered yet, without those that are parked."""
        self.held = 0
        """Bytes of request bodies that are held whole."""
        self.shed: Counter[str] = Counter()
        """Requests refused here because of a limit, by that limit."""
        self.clients = clients or Clients()
        self.cors = cors
        self.compress = compress
        self.server_timing = server_timing


class Exchange:
    """What is known of one request, filled in as it goes; sends the answer.

    Answers are aiohttp's, sent from within the handler, so that one that could not be sent is
    known while it can be logged. Sending waits for a client that does not take what was written;
    `Connection` gives up one that takes nothing, which cancels the handler.
    """

    __slots__ = (
        "_packer",
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
        "headers",
        "held",
        "method",
        "parked",
        "places",
        "queued",
        "rate_limits",
        "request",
        "request_id",
        "response",
        "route",
        "series",
        "serving",
        "source",
        "started",
        "status",
        "streamed",
        "trace",
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
        """For the fast path the parsed head alone: method, headers, version."""
        self.headers = request.headers
        self.serving = serving
        self.method = request.method
        self.started = started
        """Monotonic seconds."""
        self.wall = wall
        """Seconds since 1970."""
        self.series = series
        self.request_id = ""
        self.trace: RequestTrace | None = None
        """Its spans, where the gateway makes any; None too once they have been ended."""
        self.trace_id: str | None = None
        self.client: str | None = None
        self.route: str | None = None
        self.asked: Target | None = None
        self.action: Announced | None = None
        self.caller: Caller | None = None
        self.places: Places | None = None
        """Of its action, while it has one of them."""
        self.status = 0
        self.source = "gateway"
        self.cause: str | None = None
        """Why it did not end well, in one word; None when it did."""
        self.rate_limits: Fields = ()
        """What the answer tells of the caller's limits."""
        self.upstream_code: str | None = None
        self.address: str | None = None
        """Of the instance that had the request."""
        self.attempts: int | None = 0
        """None when it was sent and how often is not known."""
        self.bytes_in = 0
        self.held = 0
        """Of the request's body, in memory until the request has ended: its part of `Serving`'s."""
        self.bytes_out = 0
        """Of the answer's body, handed over to be sent; framing does not count."""
        self.queued = 0.0
        """Seconds before the request was handed to a connection."""
        self.upstream = 0.0
        """Seconds from there to the first byte of the reply, or to the failure."""
        self.waited = 0.0
        """Seconds spent waiting for the request's body."""
        self.streamed = False
        """A body went through piece by piece: then the time says nothing about the gateway."""
        self.parked = False
        """Its end is the client's to choose: leaving is no failure, and how long it took no measure
        of anything."""
        self.head_sent = False
        self.close = False
        """The connection ends with this answer."""
        self.was_cut = False
        """The answer was ended before it was complete."""
        self.response: web.StreamResponse | None = None
        self._packer: ZLibCompressor | None = None

    @property
    def _http10(self) -> bool:
        return self.request.version < HttpVersion11

    @property
    def client_gone(self) -> bool:
        """Whether there is nobody left to write to."""
        transport = self.request.transport
        return transport is None or transport.is_closing()

    def park(self) -> None:
        """Take it out of the requests in flight: it lasts as long as the client likes, under a
        limit of its own. To be called once, before its head is sent."""
        self.parked = True
        self.serving.in_flight -= 1

    def whole(
        self, status: int, content_type: str | None, body: bytes, extra: Fields = ()
    ) -> web.Response:
        """A complete answer, noted as the one that is given; to be sent at once."""
        headers = self.head(content_type, extra)
        response = web.Response(
            status=status, headers=headers, body=body, zlib_executor_size=compression.MAX_AT_ONCE
        )
        if (
            self.serving.compress
            and len(body) >= compression.MIN_SIZE
            and compression.negotiate(response.headers, self.headers)
        ):
            response.enable_compression(web.ContentCoding.gzip)
        self._note(response)
        if self.method != hdrs.METH_HEAD:
            self.bytes_out = len(body)
        return response

    async def send_whole(
        self, status: int, content_type: str | None, body: bytes, extra: Fields = ()
    ) -> None:
        """Send a complete answer in one piece; HEAD gets its header alone.

        Raises ConnectionError when the client has left.
        """
        await self.send(self.whole(status, content_type, body, extra))

    async def send_options(self, allow: str) -> None:
        """Answer OPTIONS: `allow` is the value of ``Allow``, a browser's preflight gets what it
        asks for. Raises ConnectionError when the client has left."""
        extra = [("Allow", allow)]
        if self.serving.cors is not None:
            extra += self.serving.cors.preflight(self.headers, allow)
        await self.send_whole(204, None, b"", extra)

    async def send(self, response: web.Response) -> None:
        """Send what `whole` made. Raises ConnectionError when the client has left."""
        self.head_sent = True
        await response.prepare(self.request)
        if self.serving.compress and response.compression and self.method != hdrs.METH_HEAD:
            self.bytes_out = response.content_length or 0
        await response.write_eof()
        response.body = None  # aiohttp holds the answer as long as it waits for the next request

    async def begin(
        self, content_type: str, first: bytes, extra: Fields = (), status: int = 200
    ) -> None:
        """Send the head of an answer whose length is not known, and the first piece of its body.

        HEAD gets the header alone, and is complete. Raises ConnectionError when the client has
        left.
        """
        self.streamed = True
        response = _Streamed(status=status, headers=self.head(content_type, extra))
        if self.serving.compress and compression.negotiate(response.headers, self.headers):
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
            self._packer = ZLibCompressor("gzip", max_sync_chunk_size=compression.MAX_AT_ONCE)
        self._note(response)
        head_alone = self.method == hdrs.METH_HEAD
        if self._http10 and not head_alone:
            self._close(response)  # aiohttp tells so and yet keeps the connection
        self.head_sent = True
        await response.prepare(self.request)
        if self.parked and self.trace is not None:  # how long it lasts is the client's to choose
            self.trace.end(self)
            self.trace = None
        if head_alone:
            await response.write_eof()
        else:
            await self.piece(first)

    async def piece(self, data: bytes) -> None:
        """Send one more piece, not empty; wait until the client has taken enough.

        Raises ConnectionError when the client has left.
        """
        assert self.response is not None  # noqa: S101 - begun
        if self._packer is not None:
            # aiohttp's own compression of streams keeps back what a slow one has sent so far.
            data = await self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        self.bytes_out += len(data)
        await self.response.write(data)
        # aiohttp waits every 64 KiB only; what is added to a full buffer would hide that it drains.
        if self.request.protocol.writing_paused:
            await self.request.writer.drain()

    async def end(self, last: bytes = b"") -> None:
        """The body that `begin` opened is complete, with `last`. Raises ConnectionError."""
        assert self.response is not None  # noqa: S101 - begun
        if self._packer is not None:
            packed = await self._packer.compress(last) if last else b""
            last = packed + self._packer.flush()
        self.bytes_out += len(last)
        await self.response.write_eof(last)

    def timing(self) -> Fields:
        """``Server-Timing``: milliseconds in the gateway, waiting for a connection, and with the
        service. Those of a failed attempt count as the service's as a whole."""
        total = time.monotonic() - self.started
        own = max(0.0, total - self.waited - self.queued - self.upstream)
        parts = {"gateway": own, "queue": self.queued, "upstream": self.upstream}
        told = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts.items())
        return (("Server-Timing", told),)

    def cut(self) -> None:
        """End the connection so that nobody takes what was sent for a whole answer.

        Without chunks an orderly end would be the end of the body, so HTTP/1.0 gets a reset.
        """
        self.was_cut = True
        transport = self.request.transport
        if transport is not None and self._http10:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.abort()

    def abort(self) -> None:
        """End the connection; whatever is written after this fails."""
        if self.request.transport is not None:
            self.request.transport.abort()

    # -- inside -------------------------------------------------------------------------

    def head(self, content_type: str | None, extra: Fields = ()) -> CIMultiDict[str]:
        """The header of an answer, without what frames its body."""
        headers = CIMultiDict(COMMON)
        headers[X_REQUEST_ID] = self.request_id
        if content_type is not None:
            headers[hdrs.CONTENT_TYPE] = content_type
        if self.rate_limits:
            headers.extend(self.rate_limits)
        if extra:
            headers.update(extra)  # over the common ones; one that is given twice stays twice
        if self.serving.cors is not None:
            self.serving.cors.mark(headers, self.headers)
        return headers

    def _note(self, response: web.StreamResponse) -> None:
        self.response = response
        self.status = response.status
        ends = self.close or self.serving.draining or self._much_to_come()
        if hdrs.TRANSFER_ENCODING in self.headers:
            ends = ends or self._trailed()
        if ends or (self._http10 and not self.request.keep_alive):
            self._close(response)

    def _close(self, response: web.StreamResponse) -> None:
        response.force_close()
        if self._http10:  # aiohttp leaves it out there, where it goes without saying
            response.headers[hdrs.CONNECTION] = "close"

    def _trailed(self) -> bool:
        """Whether the connection may have been spoilt for the next request, see `Connection`."""
        protocol = self.request.protocol
        return not isinstance(protocol, Connection) or protocol.may_have_trailers

    def _much_to_come(self) -> bool:
        """Whether more of the body is to come than is worth reading for the connection, or one that
        may never come."""
        content = self.request.content
        if content.is_eof():
            return False
        if hdrs.EXPECT in self.headers and not content.total_bytes:
            return True  # it may not send the body at all: what comes next would be read as one
        length = self.request.content_length
        return length is None or length > MAX_LEFTOVER
