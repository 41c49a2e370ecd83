"""One browser's event stream, from its head to its end."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from gateway.connection import Connection
from gateway.events.hub import EventStats
from gateway.events.topic import Topic
from gateway.events.upstream import Listener
from gateway.events.values import MEDIA_TYPE, PIECE, bare_event
from gateway.exchange import Exchange

FIELDS: Final = (("X-Accel-Buffering", "no"),)
"""For nginx, which would hold events back until they fill a buffer."""

_RETRY: Final = (2.0, 5.0)
"""Seconds after which a browser comes back; at random between, so that not all do so at once."""

_HEARTBEAT: Final = b": heartbeat\n\n"
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Seconds."""

    heartbeat: float = 15.0
    """A stream on which nothing was sent for so long gets a comment."""
    idle: float = 60.0
    """A client that takes nothing for so long is given up."""
    clock: Callable[[], float] = time.time


class Stream:
    """Sends what its listener has not seen until one side ends it; `run` it once."""

    def __init__(
        self,
        exchange: Exchange,
        listener: Listener,
        topic: Topic,
        stats: EventStats,
        options: StreamOptions,
        *,
        expires: float | None,
    ) -> None:
        """`topic` in this caller's spelling; `expires`: when its ticket does, in seconds since
        1970."""
        self._exchange = exchange
        self._listener = listener
        self._upstream = listener.upstream
        self._values = listener.upstream.values
        self._topic = topic
        self._stats = stats
        self._options = options
        self._expires = expires
        self._said: bool | None = None  # what it was told of being ready
        self._sent_at = 0.0  # of the loop's clock

    async def run(self, event_id: str) -> None:
        """Stream from `event_id` on if that is still possible, else from a snapshot on.

        Returns when the stream has ended in good order. Raises ConnectionError or CancelledError
        when the client has left or was cut off.
        """
        exchange, listener = self._exchange, self._listener
        exchange.park()
        exchange.close = True  # then the end of the stream is seen by whatever stands between
        listener.cut = exchange.cut
        listener.position = self._values.resume(event_id)
        self._notice_a_dead_client()
        try:
            await exchange.begin(MEDIA_TYPE, retry_hint(), FIELDS)
            self._sent_at = asyncio.get_running_loop().time()
            while not self._over():
                await self._step()
            if listener.ended == "expired":
                await self._signal("expired")
            await exchange.end()
        except BaseException:
            self._ended(self._why_cut())
            raise
        self._ended(listener.ended or "")

    def _over(self) -> bool:
        if self._expires is not None and self._options.clock() >= self._expires:
            self._listener.end("expired")
        return self._listener.ended is not None

    def _ended(self, reason: str) -> None:
        self._stats.ended[reason] += 1
        if not reason.startswith("client_"):  # the front knows of those
            self._exchange.cause = reason

    def _why_cut(self) -> str:
        if self._listener.ended is not None:
            return self._listener.ended
        protocol = self._exchange.request.protocol
        if isinstance(protocol, Connection) and protocol.stalled:
            return "client_stalled"
        return "client_left" if self._exchange.client_gone else "stopping"

    # -- what is sent -------------------------------------------------------------------

    async def _step(self) -> None:
        """Send what is due, or wait."""
        listener = self._listener
        listener.news.clear()
        if listener.behind:
            await self._snapshot()
        elif missed := self._values.after(listener.position):
            await self._write(b"".join([entry.text for entry in missed]))
            listener.position = missed[-1].position
            self._stats.sent["change"] += len(missed)
        elif self._upstream.ready != self._said:
            self._said = self._upstream.ready
            await self._signal("ready" if self._said else "stale")
        else:
            await self._wait()

    async def _snapshot(self) -> None:
        # Before it has all been taken: what counts as missed meanwhile is what comes after this.
        self._listener.position = self._values.position
        for piece in self._values.snapshot(self._topic):
            await self._write(piece)
        self._said = True  # it goes without saying
        self._stats.sent["snapshot"] += 1

    async def _signal(self, name: str) -> None:
        await self._write(bare_event(name, self._values.event_id(self._listener.position)))
        self._stats.sent[name] += 1

    async def _wait(self) -> None:
        """Until there is news, or it is time for a heartbeat."""
        loop = asyncio.get_running_loop()
        due = self._sent_at + self._options.heartbeat
        left = due - loop.time()
        if self._expires is not None:
            left = min(left, self._expires - self._options.clock())
        try:
            async with asyncio.timeout(left):
                await self._listener.news.wait()
        except TimeoutError:
            if loop.time() >= due:
                await self._write(_HEARTBEAT)

    async def _write(self, text: bytes) -> None:
        self._listener.writing = True
        try:
            for start in range(0, len(text), PIECE):
                await self._exchange.piece(text[start : start + PIECE])
        finally:
            self._listener.writing = False
        self._sent_at = asyncio.get_running_loop().time()

    def _notice_a_dead_client(self) -> None:
        """A machine that was switched off says nothing. The kernel would go on sending heartbeats
        to it for a quarter of an hour; `Connection` sees only a full buffer, so it comes first."""
        transport = self._exchange.request.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is not None and _USER_TIMEOUT is not None:
            with suppress(OSError):
                milliseconds = int(2000 * self._options.idle)
                sock.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, milliseconds)


def retry_hint() -> bytes:
    """How long a browser waits before it connects again."""
    seconds = random.uniform(*_RETRY)  # noqa: S311 - jitter, not a secret
    return b"retry: %d\n\n" % (seconds * 1000)
