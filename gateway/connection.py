"""One client's connection: what is read of its requests, and which way each of them goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import _ErrInfo

from gateway.clients import Clients
from gateway.repeats import Repeated
from gateway.sockets import has_something
from gateway.watched import WatchedConnection

if TYPE_CHECKING:
    from gateway.fastpath import FastPath
    from gateway.flight import Flight
    from gateway.tracing.model import RequestTrace

MAX_HEAD: Final = 64 * 1024
"""Bytes of one request's head in all: a hundred fields of the greatest size would be a megabyte,
held for whoever sends them slowly."""

MAX_HEADS: Final = 64 * 1024 * 1024
"""Bytes of all heads that are not whole: each may have its limit, and ten thousand be under way."""

SMALL_HEAD: Final = 8 * 1024
"""Bytes of a head that is waited for even then; hardly any has more."""

SLICE: Final = 16 * 1024
"""Bytes that are parsed before they are counted. A read has up to 256 KiB, and all but the end of
a request may be the beginning of the next one's head."""

READ_AHEAD: Final = 4
"""Requests that are read while one is under way. A head takes up to 40 times its size once it is
parsed, and aiohttp's 32 of them on each connection are gigabytes."""

SOON: Final = 0.01
"""Seconds that a small body is waited for before its request gets a task: many clients send it in a
packet of its own, right behind the head."""

MAX_MISSES: Final = 4
"""Heads in a row that differ from the ones before, until a connection keeps no more of them: that
costs more than it gives."""

LINGER: Final = 1.0
"""Seconds in which one whose head was refused can read why."""

_PLAIN_END: Final = b"\r\n0\r\n\r\n"
"""How a body in chunks ends when no trailer comes behind it."""


class Connection(WatchedConnection):
    """Reads requests: ends the connection when a head does not come in time, holds no more of them
    than is worth it, and lets the fast path have those that it takes."""

    __slots__ = (
        "_ahead",
        "_body",
        "_fast",
        "_flight",
        "_handed_over",
        "_head",
        "_head_timer",
        "_last",
        "_misses",
        "_over",
        "_parsed",
        "_repeated",
        "_soon",
        "_unparsed",
        "remote",
        "trace",
    )

    def __init__(
        self,
        manager: web.Server,
        *,
        idle: float,
        clients: Clients | None = None,
        fast: FastPath | None = None,
        **options: Any,
    ) -> None:
        """`idle` and `clients` as for `WatchedConnection`. Requests that `fast` takes are not given
        to the handler. `options` are those of aiohttp's ``RequestHandler``."""
        super().__init__(manager, idle=idle, clients=clients, **options)
        self._max_msg_queue_size = READ_AHEAD
        self._msg_queue_resume_size = READ_AHEAD // 2
        self._parser = HttpRequestParser(  # aiohttp gives its own no other length of the queue
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=web.RequestPayloadError,
            auto_decompress=options.get("auto_decompress", True),
            max_msg_queue_size=READ_AHEAD,
        )
        self._fast = fast
        self._flight: Flight | None = None
        """The request that is under way without a task."""
        self._handed_over: Flight | None = None
        """What became of such a one, until the handler takes it up."""
        self._soon: asyncio.TimerHandle | None = None
        self._repeated: Repeated | None = None
        """The head of the request before, while nothing else has come."""
        self._misses = MAX_MISSES
        """Heads in a row that may yet differ from the ones before."""
        self._parsed = True
        """Whether the flight came by the parser."""
        self.remote: str | None = None
        """The peer's address."""
        self.trace: tuple[RequestTrace, str | None] | None = None
        """Of the next request, with its id, if begun before it: whether it is sampled is
        decided once."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._body: StreamReader = EMPTY_PAYLOAD
        self._last = b""
        self._head = 0
        self._ahead = 0
        """Bytes of whole heads, and what follows them, behind a request that is under way."""
        self._unparsed = b""
        """Of what was read, the part that is not parsed before there is room."""
        self._over = False
        """Its last answer is decided on; nothing more is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is here; its first head has to come."""
        super().connection_made(transport)
        peer = self.peername
        self.remote = str(peer[0] if isinstance(peer, list | tuple) else peer) if peer else None
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """What breaks the framing of a body ends that body too.

        aiohttp only queues its error behind the request whose body it is, which would go on waiting
        for the rest until the idle limit.
        """
        if self._repeated is not None and self._repeats(data):
            return
        if data and self._unparsed:
            self._unparsed += data
            self._count_ahead(len(data))
            return
        if len(data) <= SLICE or len(data) <= self._body_left():
            self._take(data)
            return
        start, end = 0, len(data)
        while start < end:
            if self._buffer_paused:  # each call would make one more request of it
                self._unparsed = data[start:]
                self._count_ahead(len(self._unparsed))
                return
            stop = start + max(SLICE, self._body_left())
            self._take(data[start:stop])
            start = stop

    def _body_left(self) -> int:
        """Bytes to come that are of a body for certain."""
        if self._body.is_eof():
            return 0
        message = self._messages[-1][0] if self._messages else self._current_request
        length = getattr(message, "headers", {}).get(hdrs.CONTENT_LENGTH, "")
        return int(length) - self._body.total_bytes if length else 0

    def _take(self, data: bytes) -> None:
        if self._over or self._upgraded:
            return
        self._repeated = None
        idle = self._flight is None
        body = self._body
        in_body = not body.is_eof()  # this may be the rest of it
        taken = in_body and not self._messages
        parsed = self._parse(data)
        if taken and body.is_eof():
            parsed = self._settle_up() or parsed
        if parsed:
            size = len(data)
            if self._head:
                size += self._head
                self._forget_head()
            self._body = self._messages[-1][1]
            if (
                self._current_request is not None
                or self._flight is not None
                or len(self._messages) > 1
            ):
                self._count_ahead(size)
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif data and not in_body:  # a head may begin behind the end of a body; let it
            self._count_head(len(data))
        size = len(_PLAIN_END)
        self._last = data[-size:] if len(data) >= size else (self._last + data)[-size:]
        if self._messages:
            if isinstance(self._messages[-1][0], _ErrInfo):
                self._break_body()
            self._next()
            if idle and self._misses and self._flight is not None:
                self._remember(data, self._flight)

    def _parse(self, data: bytes) -> bool:
        """Queue the requests that are in `data`; whether there is one. What aiohttp's own
        `data_received` does, but for WebSockets, and for waking `start`, see `_next`."""
        if self._force_close or self._close:
            return False
        assert self._parser is not None  # noqa: S101 - connected
        try:
            messages, self._upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as exc:
            messages = [(_ErrInfo(400, exc, exc.message), EMPTY_PAYLOAD)]
            self._upgraded = False
        if not messages:
            return False
        self._request_count += len(messages)
        self._messages.extend(messages)
        if not self._buffer_paused and self._has_enough:
            self._pause_reading_for_buffer()
        return True

    def _settle_up(self) -> bool:
        """The body of the request under way has ended. The parser counts a request when it is
        whole; this one was taken out of the queue before, which aiohttp has told it then, for
        nothing. It would stop one sooner than we know of, and nobody would make it go on."""
        if self._parser is None:
            return False
        self._parser.message_consumed()
        return self._parse(b"")

    @property
    def _has_enough(self) -> bool:
        """Whether the parser has stopped, with so many requests that are not done with."""
        under_way = self._flight is not None
        return len(self._messages) + under_way >= self._max_msg_queue_size

    def resume_reading(self, resume_parser: bool = True) -> None:
        """As aiohttp, which asks for it at the end of every body, paused or not."""
        if self._reading_paused or resume_parser:
            super().resume_reading(resume_parser)

    # -- requests without a task --------------------------------------------------------

    def _next(self) -> None:
        """Begin the first request that waits, unless one is under way."""
        waiter = self._waiter
        if self._flight is not None or waiter is None or waiter.done():
            return
        if self._fast is not None:
            message, payload = self._messages[0]
            if self._soon is not None and not payload.is_eof():
                return  # as before: it is worth waiting
            flight = self._fast.begin(self, message, payload)
            if flight is not None:
                self._messages.popleft()
                self._fly(flight)
                self._parsed = True
                self._stop_waiting()
                if self._body is payload:  # or it would keep the body as long as nothing comes
                    self._body = EMPTY_PAYLOAD
                return
            if not payload.is_eof() and self._fast.is_worth_waiting(message):
                if self._soon is None:
                    self._soon = self._loop.call_later(SOON, self._wake)
                return
        self._wake()

    def _fly(self, flight: Flight) -> None:
        self._flight = flight
        self._request_in_progress = True

    def _remember(self, data: bytes, flight: Flight) -> None:
        """Keep the head of a request that has just begun, for the next one."""
        self._repeated = Repeated.of(data, flight.message, flight.exchange.bytes_in)

    def _repeats(self, data: bytes) -> bool:
        """Begin a request with the head of the one before, for which the parser is not needed.

        As long as a head is remembered everything before `data` was that of whole requests, so the
        parser is where a request begins; what else may come is for it.
        """
        repeated, waiter = self._repeated, self._waiter
        if self._flight is not None or waiter is None or waiter.done() or self._messages:
            self._repeated = None
            return False
        assert repeated is not None  # noqa: S101 - asked before
        assert self._fast is not None  # noqa: S101 - remembered by it
        body = repeated.body(data)
        if body is None:
            self._misses -= 1
            self._repeated = None
            return False
        flight = None
        if not (self._force_close or self._close or self._over):
            flight = self._fast.begin(self, repeated.message, body=body)
        if flight is None:
            self._repeated = None
            return False
        self._request_count += 1
        self._misses = MAX_MISSES
        self._parsed = False
        self._fly(flight)
        return True

    def _wake(self) -> None:
        """Let the first request that waits have its task."""
        self._stop_waiting()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _stop_waiting(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def landed(self) -> None:
        """The request that was under way without a task has its answer: on with the next."""
        self._flight = None
        self._request_in_progress = False
        if self._parser is not None and self._parsed:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        if self._messages:
            self._next()

    def hand_over(self) -> None:
        """Let what is under way without a task go on with one, and what waits for its body."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.handed_over()
            self._handed_over = flight
            self._messages.appendleft((flight.message, flight.payload))
        if self._messages:
            self._wake()

    def crash(self) -> None:
        """Cut the connection: it cannot be told what became of the request that was under way."""
        self._flight = None
        if self.transport is not None:
            self.transport.abort()

    def take_over(self) -> Flight | None:
        """What the request that the handler got now was before, if it was anything."""
        flight, self._handed_over = self._handed_over, None
        return flight

    def close(self) -> None:
        """As aiohttp: end the connection with the answer to what is under way."""
        self.hand_over()
        super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """As aiohttp: end the connection, within so many seconds."""
        self.hand_over()
        await super().shutdown(timeout)

    @property
    def may_have_trailers(self) -> bool:
        """Whether a body in chunks, read to its end, may have had trailers; False is certain.

        aiohttp's parser in C keeps the last trailer and takes it for a field of the next request on
        the connection, which may be somebody else's: it must not come to that.
        """
        return bool(self._messages) or self._last != _PLAIN_END

    # -- heads --------------------------------------------------------------------------

    def _await_head(self) -> None:
        timeout = self._clients.limits.header_timeout
        self._head_timer = self._loop.call_later(timeout, self._head_late)

    def _count_head(self, size: int) -> None:
        """No request came of these bytes: they are of a head that is not whole."""
        self._head += size
        self._clients.heads += size
        most = SMALL_HEAD if self._clients.heads > MAX_HEADS else MAX_HEAD
        if self._head > most:
            self._refuse_head(HttpProcessingError(code=431, message="Too many headers in all"))
        elif self._head_timer is None and self._waits:
            self._await_head()

    def _count_ahead(self, size: int) -> None:
        """These bytes are, or will be, requests that have to wait."""
        self._ahead += size
        if self._ahead <= SMALL_HEAD:
            return
        first = self._ahead - size <= SMALL_HEAD
        self._clients.heads += self._ahead if first else size
        if self._clients.heads > MAX_HEADS:
            self._messages.clear()
            self._unparsed = b""
            self._refuse_head(HttpProcessingError(code=431, message="Too many headers in all"))
        else:
            self._pause_reading_for_buffer()

    def _resume_reading_if_drained(self) -> None:
        """From aiohttp, when it took a request out of the queue."""
        if self._ahead > SMALL_HEAD and self._messages:
            return
        super()._resume_reading_if_drained()
        if not self._buffer_paused and self._has_enough:  # aiohttp does not know of the one
            self._pause_reading_for_buffer()
        if not self._buffer_paused:
            self._forget_ahead()
            rest, self._unparsed = self._unparsed, b""
            if rest:
                self.data_received(rest)

    def _forget_ahead(self) -> None:
        if self._ahead > SMALL_HEAD:
            self._clients.heads -= self._ahead
        self._ahead = 0

    def _forget_head(self) -> None:
        self._clients.heads -= self._head
        self._head = 0

    @property
    def _waits(self) -> bool:
        """Nothing but a head is awaited."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and self._flight is None

    def _head_late(self) -> None:
        self._head_timer = None
        if not self._waits:
            return
        self._clients.timeouts["header"] += 1
        if self._head > 0:
            self._refuse_head(HttpProcessingError(code=408, message="Head too slow"))
        else:  # nothing to be answered has come
            self.force_close()

    def _refuse_head(self, exc: HttpProcessingError) -> None:
        """What comes after is read and dropped for a moment: unread it would make a reset of the
        end, which may take the answer along."""
        self._over = True
        self._lingering_time = LINGER
        rest = StreamReader(self, limit=1, loop=self._loop)  # it never ends
        self._messages.append((_ErrInfo(exc.code, exc, exc.message), rest))
        self._next()

    def _process_keepalive(self) -> None:
        busy = self._head > 0 and self._head_timer is not None  # that has its own limit
        if busy or self._flight is not None or self._messages:  # idle no more
            self._keepalive_handle = None
            return
        closed = self._force_close
        super()._process_keepalive()
        if self._force_close and not closed:
            self._clients.timeouts["idle"] += 1

    @property
    def idle_since(self) -> float | None:
        """When the last request was answered, or the connection began, in the loop's seconds; None
        while there is a request, or part of one."""
        if not self._waits or self._head > 0 or self._messages or self._force_close:
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    @property
    def settled(self) -> bool:
        """Whether it may be ended without loss: it waits for a request, or all was sent."""
        transport = self.transport
        if transport is None or self.idle_since is not None:
            return True
        return transport.is_closing() and not transport.get_write_buffer_size()

    def retire(self) -> None:
        """End it, unless the next request is there and was only not read yet."""
        transport = self.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None or not has_something(sock):
            self.force_close()

    def _break_body(self) -> None:
        body: StreamReader | None = None
        if len(self._messages) > 1:
            body = self._messages[-2][1]
        elif self._current_request is not None:
            body = self._current_request.content
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(web.RequestPayloadError("the framing is broken"))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """As aiohttp, but for a body that broke while the rest of it was only read away: its sender
        has the answer, and would fill our log."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is left to wait for."""
        for flight in (self._flight, self._handed_over):
            if flight is not None:
                flight.lost()
        self._flight = self._handed_over = None
        if self._soon is not None and self._fast is not None:
            self._fast.missed(self, *self._messages[0])
        self._stop_waiting()
        self._forget_head()
        self._forget_ahead()
        self._unparsed = b""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)
        self._body = EMPTY_PAYLOAD
        self._messages.clear()  # their bodies have us
