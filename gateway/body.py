"""The body of a request: small ones collected so that they can be sent again, others as a stream.

Memory is bounded by the small limit, or by aiohttp's read buffer while streaming: a service that is
slow to take the body stops us reading it. Sizes are those of the body as the service gets it,
unpacked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import HttpVersion11, web

from gateway import catalogue
from gateway.exchange import Exchange
from gateway.problems import UNKNOWN_RETRY_AFTER, Problem
from gateway.unpacking import BrokenEncodingError, Unpacker
from scamp.client import Deadline
from scamp.limits import MAX_INFLIGHT, MIB, REPLAY_LIMIT

MAX_HELD: Final = 256 * MIB
"""Bytes of all bodies that are held to be put together with parts of the URL, or twice the limit of
one: each may have that limit, and thousands be under way. Those that came at once do not count."""

PIECE: Final = MAX_INFLIGHT
"""Bytes that are taken at once: as many as leave at once."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """Reads the body of one request; an iterator of its pieces, to be used once.

    What goes wrong comes out as Problem: too large (413), too slow (408), broken framing (400); or
    as ConnectionError when the client left.
    """

    __slots__ = (
        "_content",
        "_credit",
        "_exchange",
        "_held",
        "_idle",
        "_limit",
        "_more",
        "_rate",
        "_size",
        "_unpacker",
        "problem",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        limit: int | None,
        idle: float,
        unpacker: Unpacker | None = None,
    ) -> None:
        """At most `limit` bytes in all, `idle` seconds between two pieces. `unpacker` for a body
        that comes compressed.

        The clients' `min_body_rate` holds for the time that we wait for them: pauses may take
        `idle` seconds in all, and each byte gives some of that back."""
        self._exchange = exchange
        self._content = exchange.request.content
        self._limit = limit
        self._idle = idle
        self._rate = exchange.serving.clients.limits.min_body_rate
        self._credit = idle
        self._held: list[bytes] = []
        self._more = True
        self._size = 0
        self._unpacker = unpacker
        self.problem: Problem | None = None
        """What was raised, for when it did not come out where the request was sent."""

    async def collect(self, deadline: Deadline) -> bytes | AsyncIterator[bytes]:
        """The whole body when it is small (`REPLAY_LIMIT`), else an iterator. Safe to cancel.

        Raises Problem when the body is announced or found to be too large, or is not here within
        `deadline`.
        """
        content = self._content
        if self._unpacker is None and content.is_eof():
            exception = content.exception()
            if exception is None:
                body = content.read_nowait()
                self._count(len(body))
                return body
        length = self._announced()
        if length is not None and self._limit is not None and length > self._limit:
            raise self._too_large()
        self._invite()
        if length is not None and length > REPLAY_LIMIT:
            return self
        size = 0
        began = asyncio.get_running_loop().time()
        while size <= REPLAY_LIMIT:
            piece = await self._read(min(self._idle, deadline.remaining()))
            if not piece:
                self._exchange.waited = asyncio.get_running_loop().time() - began
                held, self._held = self._held, []
                return b"".join(held)
            size += len(piece)
            self._held.append(piece)
        self._exchange.waited = asyncio.get_running_loop().time() - began
        return self

    async def hold(self, deadline: Deadline, limit: int) -> bytes:
        """The whole body, which has at most `limit` bytes. Safe to cancel.

        Raises Problem as `collect`, and when there is more.
        """
        length = self._announced()
        if length is not None and length > limit:
            raise self._too_large(limit)
        first = await self.collect(deadline)
        if isinstance(first, bytes):
            if len(first) > limit:
                raise self._fail(self._too_large(limit))
            return first
        pieces: list[bytes] = []
        size = 0
        while self._held or self._more:
            piece = self._held.pop(0) if self._held else await self._within(deadline)
            size += len(piece)
            if size > limit:
                raise self._fail(self._too_large(limit))
            self._reserve(len(piece), limit)
            pieces.append(piece)
        return b"".join(pieces)

    def _reserve(self, size: int, limit: int) -> None:
        """Count what is held until the request has ended."""
        exchange = self._exchange
        if exchange.serving.held + size > max(MAX_HELD, 2 * limit):
            exchange.serving.shed["held_bodies"] += 1
            detail = "Too many request bodies are held."
            raise self._fail(
                Problem(catalogue.SATURATED, detail, retry_after=UNKNOWN_RETRY_AFTER, close=True)
            )
        exchange.serving.held += size
        exchange.held += size

    async def _within(self, deadline: Deadline) -> bytes:
        loop = asyncio.get_running_loop()
        began = loop.time()
        piece = await self._read(min(self._idle, deadline.remaining()))
        self._exchange.waited += loop.time() - began
        return piece

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Safe to cancel."""
        if self._held:
            return self._held.pop(0)
        if self._more:
            piece = await self._read(self._idle)
            if piece:
                return piece
        raise StopAsyncIteration

    def _announced(self) -> int | None:
        """The size, where the request tells: the length of a compressed body is not it."""
        return self._exchange.request.content_length if self._unpacker is None else None

    def _invite(self) -> None:
        """Ask for the body when the client waits to be asked."""
        request = self._exchange.request
        if "Expect" not in request.headers or request.version < HttpVersion11:  # RFC 9110, 10.1.1
            return
        transport = request.transport
        if transport is not None and not self._content.total_bytes:
            transport.write(_CONTINUE)

    async def _read(self, seconds: float) -> bytes:
        clock, had = asyncio.get_running_loop().time, self._exchange.bytes_in
        waited = 0.0
        try:
            piece = self._content.read_nowait(PIECE) if self._unpacker is None else b""
            if not piece:
                began = clock()
                async with asyncio.timeout(min(seconds, self._credit)):
                    if self._unpacker is None:
                        piece = await self._content.read(PIECE)
                    else:
                        piece = await self._unpacked(self._unpacker)
                waited = clock() - began
        except TimeoutError:
            raise self._fail(self._too_slow(seconds)) from None
        except web.RequestPayloadError:
            raise self._fail(Problem(catalogue.BAD_FRAMING, close=True)) from None
        except BrokenEncodingError as exc:
            raise self._fail(Problem(catalogue.BAD_FRAMING, str(exc), close=True)) from None
        except (OSError, RuntimeError) as exc:  # aiohttp's ways to say that the connection is lost
            raise ConnectionResetError("the client has left") from exc
        if piece:
            self._count(len(piece))
            if self._rate:
                earned = (self._exchange.bytes_in - had) / self._rate
                self._credit = min(self._idle, self._credit - waited + earned)
        else:
            self._more = False
        return piece

    def _too_slow(self, seconds: float) -> Problem:
        trickles = self._credit < seconds
        self._exchange.serving.clients.timeouts["body_rate" if trickles else "body"] += 1
        detail = f"The body has to come at {self._rate:g} bytes/s." if trickles else ""
        return Problem(catalogue.REQUEST_TIMEOUT, detail, close=True)

    async def _unpacked(self, unpacker: Unpacker) -> bytes:
        while not (piece := unpacker.take()):
            packed = await self._content.readany()
            if not packed:
                unpacker.finish()
                break
            self._exchange.bytes_in += len(packed)
            unpacker.feed(packed)
        return piece

    def _count(self, size: int) -> None:
        self._size += size
        if self._unpacker is None:
            self._exchange.bytes_in += size
        if self._limit is not None and self._size > self._limit:
            raise self._fail(self._too_large())

    def _too_large(self, limit: int | None = None) -> Problem:
        limit = self._limit if limit is None else limit
        return Problem(catalogue.BODY_TOO_LARGE, f"The limit is {limit} bytes.", close=True)

    def _fail(self, problem: Problem) -> Problem:
        self.problem = problem
        return problem
