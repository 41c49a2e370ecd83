"""A client's connection that is given up when nothing of what waits for it is taken."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from gateway.clients import Clients
from gateway.sockets import in_kernel

UNSENT: Final = 128 * 1024
"""Bytes that the kernel holds for a client and could not send yet."""

_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class WatchedConnection(web.RequestHandler):
    """aiohttp's connection, cut once its client takes nothing of what waits for it.

    What counts of an answer is what the client's machine has acknowledged: pieces of any size that
    the kernel took from us would hide for minutes how slow a client is.
    """

    __slots__ = ("_clients", "_idle", "_leaving", "_timer", "_wire", "stalled")

    def __init__(
        self, manager: web.Server, *, idle: float, clients: Clients | None = None, **options: Any
    ) -> None:
        """`idle`: seconds in which the client has to take `idle` times its `min_body_rate`, while
        the write buffer is full or the connection ends. `options` are those of aiohttp's
        ``RequestHandler``."""
        super().__init__(manager, **options)
        self._idle = idle
        self._clients = clients or Clients()
        self._timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self._leaving = False
        self.stalled = False
        """It was cut for that; its request is cancelled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the kernel from taking megabytes that a slow client has not asked for: they cost
        memory."""
        super().connection_made(transport)
        self._wire = self.transport
        sock = transport.get_extra_info("socket")
        if sock is not None and _NOTSENT_LOWAT is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)

    async def start(self) -> None:
        """Serve the connection; what is not sent at the end has to move as answers do."""
        try:
            await super().start()
        finally:
            self._leaving = True
            if self._timer is None and self._wire is not None and self._unsent(self._wire):
                self._watch(None)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        super().pause_writing()
        if self._timer is None:
            self._watch(None)

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        super().resume_writing()
        if not self._leaving:
            self._rest()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody is left to wait for."""
        self._wire = None
        self._rest()
        super().connection_lost(exc)

    def _watch(self, seen: int | None) -> None:
        wire = self._wire
        if wire is None:
            return
        left = self._unsent(wire)
        least = max(1.0, self._clients.limits.min_body_rate * self._idle)
        if seen is None or seen - left >= min(least, seen):
            self._timer = self._loop.call_later(self._idle, self._watch, left)
        else:
            self._timer = None
            self.stalled = True
            self._clients.timeouts["reader"] += 1
            wire.abort()

    @staticmethod
    def _unsent(wire: asyncio.Transport) -> int:
        """Bytes that the client has not acknowledged, in our buffer and in the kernel's."""
        try:
            return wire.get_write_buffer_size() + in_kernel(wire.get_extra_info("socket"))
        except AttributeError:
            return 0  # asyncio's for TLS: closed twice, it knows nothing any more

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
