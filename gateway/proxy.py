"""The way of one request to a service and of the reply back to the client."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, Final

from gateway.body import RequestBody
from gateway.exchange import Exchange
from gateway.problems import Problem, StatusMap, from_reply
from scamp.client import Call, Launch, Reply, Requester
from scamp.errors import ScampError

BROKEN_OFF: Final = "reply_broken_off"
"""Cause in the log when a reply failed after its first byte had gone out."""


class Proxy:
    """Sends calls through a requester and writes what comes back."""

    __slots__ = ("_idle", "_requester", "_statuses")

    def __init__(self, requester: Requester, statuses: StatusMap, *, idle: float) -> None:
        """`idle`: seconds that a body may stand still."""
        self._requester = requester
        self._statuses = statuses
        self._idle = idle

    async def run(
        self,
        exchange: Exchange,
        call: Call,
        upload: RequestBody | None,
        status: int,
        content_type: str,
    ) -> None:
        """Send `call` and answer with its reply; `upload` is where its body comes from, None when
        there is none to come. `status` and `content_type` are those of a success.

        Raises Problem and ScampError while the client has not had a byte; after that a failure
        cuts its connection. When cancelled the request is abandoned.
        """
        replying = self._requester.send(call)
        await self._finish(exchange, replying, time.monotonic(), upload, status, content_type)

    async def go_on(
        self, exchange: Exchange, launch: Launch, status: int, content_type: str
    ) -> None:
        """`run` for a call of the fast path, which is on its way."""
        replying = self._requester.resume(launch)
        await self._finish(exchange, replying, exchange.started, None, status, content_type)

    async def _finish(
        self,
        exchange: Exchange,
        replying: Coroutine[Any, Any, Reply],
        sent: float,
        upload: RequestBody | None,
        status: int,
        content_type: str,
    ) -> None:
        try:
            reply = await replying
        except BaseException as exc:
            exchange.upstream = time.monotonic() - sent
            exchange.attempts = None
            if isinstance(exc, ScampError):
                # Without a count it never came to an attempt: there was nowhere to send it.
                exchange.address, exchange.attempts = exc.instance, exc.attempts or 0
            raise
        exchange.queued = reply.queued
        exchange.upstream = reply.upstream
        exchange.address = reply.address
        exchange.attempts = reply.attempts
        try:
            if reply.failed:
                raise self._service_problem(exchange, reply)
            if not reply.complete:
                await self._stream(exchange, reply, upload, status, content_type)
                return
            body = reply.read_nowait()
        finally:
            if exchange.trace is not None:
                exchange.trace.replied(reply)
            reply.abandon()
        await self._send_whole(exchange, status, content_type, body)

    async def _send_whole(
        self, exchange: Exchange, status: int, content_type: str, body: bytes
    ) -> None:
        exchange.source = "service"
        extra = exchange.timing() if exchange.serving.server_timing else ()
        await exchange.send_whole(status, content_type, body, extra)

    async def _stream(
        self,
        exchange: Exchange,
        reply: Reply,
        upload: RequestBody | None,
        status: int,
        content_type: str,
    ) -> None:
        exchange.streamed = True
        try:
            piece = reply.read_nowait() or await reply.read(self._idle)
            if reply.complete:  # also one that is empty
                await self._send_whole(exchange, status, content_type, piece)
                return
            exchange.source = "service"
            extra = exchange.timing() if exchange.serving.server_timing else ()
            await exchange.begin(content_type, piece, extra, status)
            if exchange.method == "HEAD":
                return
            while piece := await reply.read(self._idle):
                if reply.complete:
                    break  # it is the last, and leaves with the end in one write
                await exchange.piece(piece)
            await exchange.end(piece)
        except ScampError:
            problem = upload.problem if upload is not None else None
            if not exchange.head_sent:
                if problem is not None:
                    raise problem from None
                raise
            exchange.cause = BROKEN_OFF if problem is None else problem.kind.code
            exchange.cut()

    def _service_problem(self, exchange: Exchange, reply: Reply) -> Problem:
        exchange.source = "service"
        exchange.upstream_code = reply.header.error_code or None
        label = (
            exchange.action.label if exchange.action is not None else reply.offer.action.spelling
        )
        return from_reply(reply.header, self._statuses, label)
