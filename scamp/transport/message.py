"""Messages in flight: a header and a byte stream, in either direction.

A request and its reply are both an `IncomingMessage` on the side that gets it and an
`OutgoingMessage` on the side that sends it; there is no other path for bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from scamp.errors import IdleTimeout, LocalProtocolError, ScampError, anew
from scamp.limits import BODY_IDLE, MAX_PIECES, READ_PAUSE

if TYPE_CHECKING:
    from scamp.transport.channel import Channel
    from scamp.wire import Header


class _Waiting:
    """One task at a time may wait for a message to move, for a limited time."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the waiting task, if any, look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def waiting(self) -> bool:
        """True while a task waits for this message to move."""
        return self._waiter is not None

    async def _wait(self, idle: float) -> None:
        """Wait for `wake`. Raises IdleTimeout after `idle` seconds. Safe to cancel.

        `wake` is called by the channel for every event of this message and when the channel is
        lost, so the future always resolves.
        """
        if self._waiter is not None:
            raise RuntimeError("two tasks use one message in the same direction")
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(idle, _expire, waiter, idle)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # seen: a cancel may have come between it and us
            del waiter  # it has the error, whose frames have us


def _expire(waiter: asyncio.Future[None], idle: float) -> None:
    if not waiter.done():
        waiter.set_exception(IdleTimeout(idle))


class IncomingMessage(_Waiting):
    """A message that the peer sends. Read it to the end, or `discard` it.

    Unread bytes are bounded: the peer's window, or READ_PAUSE for a peer that ignores the window.
    Bytes are acknowledged when they are read.
    """

    __slots__ = (
        "_buffered",
        "_channel",
        "_chunks",
        "_discard_left",
        "_given_up",
        "_on_discarded",
        "_on_ended",
        "_on_ready",
        "ended",
        "error",
        "header",
        "msgno",
        "overran",
        "received",
    )

    def __init__(
        self, channel: Channel, msgno: int, header: Header, whole: bytes | None = None
    ) -> None:
        """`whole` is the body of a message that has ended already."""
        self._waiter = None
        self._channel = channel
        self._chunks: list[bytes] = [whole] if whole else []
        self._buffered = size = len(whole) if whole else 0
        self._discard_left = -1
        self._given_up = False
        self._on_ready: Callable[[], None] | None = None
        self._on_ended: Callable[[], None] | None = None
        self._on_discarded: Callable[[], None] | None = None
        self.msgno: int = msgno
        self.header: Header = header
        self.received: int = size
        """Bytes of body received so far."""
        self.ended: bool = whole is not None
        """True once the last byte, or the failure, has arrived; some may still be unread."""
        self.error: ScampError | None = None
        """Why the message failed: TXERR, or the connection was lost."""
        self.overran: bool = False
        """True when the peer sent far more than its window without an ACK; for those who want to
        know what kind of peer it is."""

    # -- for the channel ----------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """A piece of the body arrived (called by the channel)."""
        self.received += len(data)
        if self._discard_left >= 0:
            self._drop(len(data))
            return
        if len(self._chunks) >= MAX_PIECES:
            joined = b"".join(self._chunks)
            self._chunks.clear()
            self._chunks.append(joined)
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > READ_PAUSE:
            self.overran = True
            self._channel.pause_for(self)
        self.wake()
        self._notify_ready()

    def finish(self, error: ScampError | None) -> None:
        """The message ended (called by the channel)."""
        self.ended = True
        self.error = error
        if error is not None:
            self._chunks.clear()
            self._buffered = 0
        self._channel.resume_for(self)
        self.wake()
        callback, self._on_ended = self._on_ended, None
        if callback is not None:
            callback()
        self._notify_ready()  # last: whoever is ready may go on at once

    def _notify_ready(self) -> None:
        callback, self._on_ready = self._on_ready, None
        if callback is not None:
            callback()

    # -- for the owner ------------------------------------------------------------------

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when there are bytes to read, at the end, or at the failure."""
        if self._buffered or self.ended:
            callback()
        else:
            self._on_ready = callback

    def when_more(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the next piece, the end, or the failure is here."""
        self._on_ready = callback

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the last byte or the failure has arrived."""
        if self.ended:
            callback()
        else:
            self._on_ended = callback

    def read_nowait(self) -> bytes:
        """All unread bytes that have arrived, maybe none; they are acknowledged."""
        size = self._buffered
        if not size:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if not self.ended:
            self._channel.consumed(self, size)
        return data

    async def read(self, idle: float = BODY_IDLE) -> bytes:
        """The next bytes of the body, as many as have arrived; empty at the end.

        Raises what ended the message (ReplyFailed, RequestAborted, ConnectionLost), IdleTimeout
        when nothing arrives for `idle` seconds, or LocalProtocolError when bytes were discarded:
        what is left would pass for the whole. Safe to cancel: nothing is lost.
        """
        while True:
            if self.error is not None:
                raise anew(self.error)
            if self._given_up:
                raise LocalProtocolError("the rest of the body was discarded")
            data = self.read_nowait()
            if data or self.ended:
                return data
            await self._wait(idle)

    async def gather(self, size: int, until: float) -> None:
        """Wait until the message has ended, `size` bytes of it are unread, or it is `until` (loop
        time). Nothing is read or acknowledged. Safe to cancel."""
        loop = asyncio.get_running_loop()
        while not self.ended and self._buffered < size and (left := until - loop.time()) > 0:
            try:
                await self._wait(left)
            except IdleTimeout:
                return

    async def read_all(self, limit: int, idle: float = BODY_IDLE) -> bytes:
        """The whole body. Raises LocalProtocolError when it is longer than `limit` bytes."""
        pieces = []
        size = 0
        while data := await self.read(idle):
            size += len(data)
            if size > limit:
                raise LocalProtocolError(f"body longer than {limit} bytes")
            pieces.append(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    @property
    def complete(self) -> bool:
        """True when all of the body is here and nothing is wrong: `read_nowait` gives the rest."""
        return self.ended and self.error is None and not self._given_up

    def discard(self, limit: int, on_exceeded: Callable[[], None]) -> None:
        """Throw away what is unread and up to `limit` bytes of what still comes.

        Beyond that nothing more is acknowledged, and `on_exceeded` is called once.
        """
        if self.ended:
            self._given_up = self._given_up or self._buffered > 0
            self._chunks.clear()
            self._buffered = 0
            return
        self._given_up = True
        self._discard_left = limit
        self._on_discarded = on_exceeded
        dropped, self._buffered = self._buffered, 0
        self._chunks.clear()
        self._channel.resume_for(self)
        if dropped:
            self._drop(dropped)
        self.wake()

    def _drop(self, size: int) -> None:
        if self._discard_left >= size:
            self._discard_left -= size
            self._channel.consumed(self, size)
            return
        self._discard_left = 0
        callback, self._on_discarded = self._on_discarded, None
        if callback is not None:
            callback()

    @property
    def unread(self) -> int:
        """Bytes that have arrived and have not been read."""
        return self._buffered


class OutgoingMessage(_Waiting):
    """A message that we send: `write` its body, then `end` or `fail` it."""

    __slots__ = ("_channel", "_opened_at", "closed", "msgno", "sent")

    def __init__(self, channel: Channel, msgno: int) -> None:
        super().__init__()
        self._channel = channel
        self._opened_at = channel.flushes
        self.msgno: int = msgno
        self.closed: bool = False
        """True after `end` or `fail`."""
        self.sent: int = 0
        """Bytes of body given to the channel so far."""

    @property
    def flushed(self) -> bool:
        """True when bytes of this message may have reached the socket."""
        return self._channel.flushes > self._opened_at

    def write_nowait(self, data: bytes | memoryview) -> int:
        """Send as much of `data` as window and transport take now; return how many bytes."""
        room = self._channel.room(self)
        if room <= 0:
            return 0
        if len(data) > room:
            data = memoryview(data)[:room]
        self._channel.send_data(self, data)
        self.sent += len(data)
        return len(data)

    async def write(self, data: bytes, idle: float = BODY_IDLE) -> None:
        """Send `data`, any size, waiting for the peer to take it.

        Raises ConnectionLost, or IdleTimeout when the peer takes nothing for `idle` seconds. When
        cancelled, part of `data` may have been sent: the message can then only be failed.
        """
        if self.closed:
            raise LocalProtocolError("the message has ended")
        rest: bytes | memoryview = data
        while rest:
            taken = self.write_nowait(rest)
            if not taken:
                await self._wait(idle)
            elif taken < len(rest):
                rest = memoryview(data)[len(data) - len(rest) + taken :]
            else:
                return

    async def drain(self, idle: float = BODY_IDLE) -> None:
        """Wait until `write_nowait` would take something. Raises as `write` does."""
        while self._channel.room(self) <= 0:
            await self._wait(idle)

    def end(self) -> None:
        """The body is complete."""
        if not self.closed:
            self.closed = True
            self._channel.end_message(self)

    def fail(self, text: str) -> None:
        """Give the message up with TXERR. Not safe on requests to every peer."""
        if not self.closed:
            self.closed = True
            self._channel.fail_message(self, text)


class SentMessage:
    """A message that we sent as a whole: there is nothing left to do with it.

    To its owner it is an `OutgoingMessage` that has ended.
    """

    __slots__ = ("_channel", "_opened_at", "sent")

    closed: Final = True

    def __init__(self, channel: Channel, sent: int) -> None:
        self._channel = channel
        self._opened_at = channel.flushes
        self.sent: int = sent
        """Bytes of its body."""

    @property
    def flushed(self) -> bool:
        """True when bytes of this message may have reached the socket."""
        return self._channel.flushes > self._opened_at

    def end(self) -> None:
        """Does nothing, as on every message that has ended."""

    def fail(self, text: str) -> None:
        """Does nothing, as on every message that has ended."""
