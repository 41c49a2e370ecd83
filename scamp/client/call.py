"""What a caller asks for, and what it gets: `Call` and `Reply`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from scamp.client.deadline import Deadline
from scamp.client.exchange import Exchange
from scamp.client.trace import CallTrace
from scamp.discovery import Action, Offer
from scamp.errors import IdleTimeout, LocalProtocolError, ReplyFailed
from scamp.limits import MIB
from scamp.transport import IncomingMessage
from scamp.wire import EncodedHeader, ReplyHeader, RequestHeader, encode_header


@dataclass(slots=True)
class Call:
    """One request. `offers` says where it may go: what `Registry.find` gave for the action."""

    offers: tuple[Offer, ...]
    body: bytes | AsyncIterator[bytes]
    """Bytes are held and can be sent again. An iterator is read once, as fast as the service
    takes it, on a connection of its own."""
    deadline: Deadline
    """Covers queueing, connecting, retries and the wait for the reply's first byte. While a
    streamed body is moving the clock stands still; `ClientOptions.body_idle` bounds that."""
    envelope: str = "json"
    ticket: str | None = field(default=None, repr=False)
    client_id: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further HEADER fields, for example ``traceparent``."""
    retry_safe: bool = False
    """May be sent again even after it may have been executed: the action only reads."""
    pinned: bool = False
    """Only for `offers`, whatever has come since: neither who waited for one that left nor a retry
    goes elsewhere. For callers that chose among what there is."""
    caller_lowered: bool = False
    """The deadline is shorter than the action's own: running out says nothing of the service."""
    trace: CallTrace | None = field(default=None, repr=False)
    """Who is told of its attempts, and may add HEADER fields to each."""
    touched: bool = field(default=False, init=False)
    """True once a streamed body was begun to be read: it cannot be sent again."""

    def encode(
        self, action: Action, request_id: int, dialled: tuple[float, float] | None = None
    ) -> EncodedHeader:
        """The HEADER body: the action in its announced spelling, never a null `client_id`.

        `dialled` is for `trace`, which learns in this way that the request goes out.
        """
        extra = self.extra
        if self.trace is not None:
            extra = {**extra, **self.trace.starts(dialled)}
        return encode_header(
            RequestHeader(
                action=action.spelling,
                request_id=request_id,
                version=action.version,
                envelope=self.envelope,
                ticket=self.ticket,
                client_id=self.client_id,
                extra=extra,
            )
        )


class Reply:
    """A reply whose first byte, end or error header is here.

    Read it to the end, or `abandon` it; ``async with reply`` does the latter in any case.
    """

    __slots__ = (
        "_body_idle",
        "_exchange",
        "_message",
        "_upload",
        "address",
        "attempts",
        "header",
        "offer",
        "queued",
        "upstream",
    )

    def __init__(
        self,
        exchange: Exchange,
        message: IncomingMessage,
        offer: Offer,
        attempts: int,
        queued: float,
        upstream: float,
        upload: asyncio.Task[None] | None,
        body_idle: float,
    ) -> None:
        header = message.header
        if not isinstance(header, ReplyHeader):  # pragma: no cover - the connection checked it
            raise LocalProtocolError("not a reply")
        self._exchange = exchange
        self._message = message
        self._upload = upload
        self._body_idle = body_idle
        self.header: ReplyHeader = header
        self.offer: Offer = offer
        """The service and action that answered."""
        self.address: str = exchange.connection.address
        self.attempts: int = attempts
        """How many times the request was tried, 1 when at once."""
        self.queued: float = queued
        """Seconds from the first try to the start of this one: queue, dialling, retries."""
        self.upstream: float = upstream
        """Seconds from handing the request to the connection to the first byte of the reply."""

    @property
    def failed(self) -> bool:
        """True when the service says that the action failed."""
        return self.header.failed

    @property
    def complete(self) -> bool:
        """True when the whole body is here: `read_nowait` gives the rest of it."""
        return self._message.complete

    @property
    def bytes_sent(self) -> int:
        """Body bytes of the request given to the connection."""
        return self._exchange.request.sent

    @property
    def bytes_received(self) -> int:
        """Body bytes of the reply that have arrived."""
        return self._message.received

    def read_nowait(self) -> bytes:
        """What has arrived and was not read yet. Check `complete` to know whether that is all."""
        data = self._message.read_nowait()
        if self._message.ended:
            self._stop_upload()
        return data

    async def read(self, idle: float | None = None) -> bytes:
        """The next piece of the body; empty at the end. Safe to cancel.

        Raises ReplyFailed (TXERR), ConnectionLost, or IdleTimeout after `idle` seconds without a
        byte (default: `ClientOptions.body_idle`); after any of them what was read before is not
        an answer.
        """
        try:
            data = await self._message.read(self._body_idle if idle is None else idle)
        except IdleTimeout:
            self._give_up(suspect=True)
            raise
        if not data:
            self._stop_upload()
        return data

    async def read_all(self, limit: int = 16 * MIB) -> bytes:
        """The whole body. Raises as `read`, and LocalProtocolError beyond `limit` bytes."""
        try:
            body = await self._message.read_all(limit, self._body_idle)
        except BaseException as exc:
            self._give_up(suspect=isinstance(exc, IdleTimeout))
            raise
        self._stop_upload()
        return body

    async def json(self, limit: int = 16 * MIB) -> Any:
        """The whole body as JSON. Raises ReplyFailed when it is none."""
        body = await self.read_all(limit)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as exc:
            raise ReplyFailed(f"the reply is not JSON: {exc}") from exc

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    def _stop_upload(self) -> None:
        if not self._exchange.request.closed:
            self.abandon()  # the service has answered before it had everything

    def abandon(self) -> None:
        """The caller wants no more. Idempotent; does nothing when all was read.

        It is done in the way that is safe for this peer: the rest is discarded, or the connection
        is closed.
        """
        self._give_up(suspect=False)

    def _give_up(self, *, suspect: bool) -> None:
        if self._upload is not None:
            self._upload.cancel()
        self._exchange.abandon(suspect=suspect)

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.abandon()
