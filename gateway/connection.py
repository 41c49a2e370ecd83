"""One client's connection: how much the machine holds for it, and when it is given up."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from contextlib import suppress
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import _ErrInfo

UNSENT: Final = 128 * 1024
"""Bytes that the kernel holds for a client and could not send yet."""

MAX_HEAD: Final = 64 * 1024
"""Bytes of one request's head in all: a hundred fields of the greatest size would be a megabyte,
held for whoever sends them slowly."""

_PLAIN_END: Final = b"\r\n0\r\n\r\n"
"""How a body in chunks ends when no trailer comes behind it."""

_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Connection(web.RequestHandler):
    """aiohttp's connection, cut once its client takes nothing of what waits for it.

    What counts is that bytes move, not that a piece of any size has gone.
    """

    __slots__ = ("_head", "_idle", "_last", "_timer", "stalled")

    def __init__(self, manager: web.Server, *, idle: float, **options: Any) -> None:
        """`idle`: seconds in which something has to move while the write buffer is full.
        `options` are those of aiohttp's ``RequestHandler``."""
        super().__init__(manager, **options)
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        self._last = b""
        self._head = 0
        self.stalled = False
        """It was cut for that; its request is cancelled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the kernel from taking megabytes that a slow client has not asked for: they cost
        memory, and hide for minutes whether the client takes anything at all."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and _NOTSENT_LOWAT is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)

    def data_received(self, data: bytes) -> None:
        """What breaks the framing of a body ends that body too.

        aiohttp only queues its error behind the request whose body it is, which would go on waiting
        for the rest until the idle limit.
        """
        waiter = self._waiter
        super().data_received(data)
        if waiter is None or waiter.done():
            self._head = 0
        else:  # nothing but a head is awaited, and it was not whole
            self._count_head(len(data), waiter)
        size = len(_PLAIN_END)
        self._last = data[-size:] if len(data) >= size else (self._last + data)[-size:]
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._break_body()

    @property
    def may_have_trailers(self) -> bool:
        """Whether a body in chunks, read to its end, may have had trailers; False is certain.

        aiohttp's parser in C keeps the last trailer and takes it for a field of the next request on
        the connection, which may be somebody else's: it must not come to that.
        """
        return bool(self._messages) or self._last != _PLAIN_END

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a request of which nothing was read, in the loop's time; None
        when it does not wait."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._head:
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
        if sock is None or not _has_something(sock):
            self.force_close()

    def _count_head(self, size: int, waiter: asyncio.Future[None]) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            exc = HttpProcessingError(code=431, message="Too many headers in all")
            self._messages.append((_ErrInfo(431, exc, exc.message), EMPTY_PAYLOAD))
            waiter.set_result(None)

    def _break_body(self) -> None:
        body: StreamReader | None = None
        if len(self._messages) > 1:
            body = self._messages[-2][1]
        elif self._current_request is not None:
            body = self._current_request.content
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(web.RequestPayloadError("the framing is broken"))

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        self._watch(None)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        super().resume_writing()
        self._rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is left to wait for."""
        self._rest()
        super().connection_lost(exc)

    def _watch(self, seen: int | None) -> None:
        transport = self.transport
        if transport is None:
            return
        left = transport.get_write_buffer_size()
        if seen is None or left < seen:
            self._timer = self._loop.call_later(self._idle, self._watch, left)
        else:
            self._timer = None
            self.stalled = True
            transport.abort()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _has_something(sock: socket.socket) -> bool:
    """Whether bytes are there to be read; the end is none. With TLS it may be an alert."""
    ready = select.poll()
    ready.register(sock.fileno(), select.POLLIN)
    if not ready.poll(0):
        return False
    # The loop's sockets cannot be read by others (uvloop's have no `recv`), but looked into.
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as twin:
            return bool(twin.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False
