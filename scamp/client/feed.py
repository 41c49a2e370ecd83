"""One connection of a subscription: asks, receives the values of now, then what changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scamp import logs
from scamp.client.dialing import Dialer, is_resumed
from scamp.client.picture import Picture
from scamp.errors import (
    ConnectionLost,
    LocalProtocolError,
    RemoteProtocolError,
    ReplyTimeout,
    ScampError,
    SubscriptionRefused,
)
from scamp.limits import CLOSE_TIMEOUT, DISCARD_LIMIT, MAX_CLIENT_MESSAGE, MAX_SUBSCRIBED
from scamp.transport import Channel, IncomingMessage
from scamp.transport.intake import Intake, whole
from scamp.wire import (
    EventHeader,
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    SubscribeDoneHeader,
    SubscribeHeader,
    header_type,
)
from scamp.wire.subdata import encode_value, parse_records

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.client"))

_REQUEST_ID = 1


@dataclass(slots=True)
class SubscriptionStats:
    """Totals of one subscription."""

    connects: int = 0
    """How often it was made: 1 unless it was lost."""
    resumed: int = 0
    """How often it was made with the TLS session of a connection before."""
    losses: int = 0
    """How often it was lost."""
    failures: int = 0
    """Attempts that came to nothing."""
    events: int = 0
    """Messages with values."""
    malformed: int = 0
    """Records that could not be used; they were skipped. An event that is of no use as a whole ends
    the connection instead: the values that the next one begins with make up for it."""


class Feed:
    """A `ChannelHandler`. Made for one attempt; `run` it.

    `on_ready` is called when the picture is complete, `on_news` after every event from then on.
    """

    def __init__(
        self,
        dialer: Dialer,
        filter_body: bytes,
        picture: Picture,
        stats: SubscriptionStats,
        *,
        on_ready: Callable[[Feed], None],
        on_news: Callable[[], None],
    ) -> None:
        self._dialer = dialer
        self._filter_body = filter_body
        self._picture = picture
        self._stats = stats
        self._on_ready = on_ready
        self._on_news = on_news
        self._intake = Intake(
            self._on_message,
            lambda: self._give_up(
                RemoteProtocolError(f"events of more than {MAX_SUBSCRIBED} bytes at once")
            ),
            limit=MAX_SUBSCRIBED,
            total=MAX_SUBSCRIBED,
        )
        loop = asyncio.get_running_loop()
        self._settled: asyncio.Future[None] = loop.create_future()  # ready, or failed
        self._lost: asyncio.Future[None] = loop.create_future()
        self._failure: ScampError | None = None
        self._channel: Channel | None = None
        self._left = ""  # why, when it is to be given up
        self._answered = False
        self.ready: bool = False
        """True from ``subscribe_done`` until the connection ends."""
        self.asked: bool = False
        """True once the service was asked to subscribe."""

    @property
    def address(self) -> str:
        """``host:port``; empty before it is connected."""
        return self._channel.address if self._channel is not None else ""

    # -- its life -----------------------------------------------------------------------

    async def run(
        self,
        host: str,
        port: int,
        fingerprint: str,
        *,
        timeout: float,
        heartbeat: float,
    ) -> ScampError:
        """Connect, subscribe, and stay until the connection ends; returns what ended it.

        Raises ConnectFailed; ReplyTimeout when there is no picture after `timeout` seconds;
        SubscriptionRefused; ConnectionLost before there was a picture. When it is cancelled or
        has ended, nothing is left open.
        """
        self._picture.begin()
        try:
            await self._dialer.dial(host, port, fingerprint, self, idle_limit=0.0)
            await self._subscribe(timeout)
            if self.ready and self._channel is not None:
                self._channel.set_heartbeat(heartbeat)
            await self._lost
        finally:
            await self._end()
        assert self._failure is not None  # noqa: S101 - set before _lost is resolved
        return self._failure

    async def _subscribe(self, timeout: float) -> None:
        assert self._channel is not None  # noqa: S101 - connect has opened it
        try:
            async with asyncio.timeout(timeout):
                out = self._channel.open_message(SubscribeHeader(_REQUEST_ID))
                await out.write(self._filter_body)
                out.end()
                self.asked = True
                await self._settled
        except TimeoutError as exc:
            raise ReplyTimeout(timeout) from exc
        if not self.ready:
            assert self._failure is not None  # noqa: S101 - settled either way
            raise self._failure

    async def _end(self) -> None:
        self.ready = False
        self._intake.stop()
        if self._channel is not None:
            self._channel.close("the subscription ends")
            await self._channel.wait_closed(CLOSE_TIMEOUT)

    def leave(self, reason: str) -> None:
        """Close, now or as soon as it is connected; `run` ends soon."""
        self._left = reason
        if self._channel is not None:
            self._channel.close(reason)

    def _give_up(self, error: ScampError) -> None:
        """The service does what it must not; `run` ends with `error`."""
        if self._failure is None:
            self._failure = error
        self._settle()
        if self._channel is not None:
            self._channel.abort(str(error))

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    # -- from the channel ---------------------------------------------------------------

    def channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        if self._left:
            channel.close(self._left)

    def channel_lost(self, error: ScampError) -> None:
        self.ready = False
        if self._failure is None:
            self._failure = error
        self._settle()
        channel = self._channel
        if channel is not None and not self._answered and not channel.closed_by_us:
            self._dialer.drop(channel)
        if not self._lost.done():
            self._lost.set_result(None)

    def message_received(self, message: IncomingMessage) -> None:
        if isinstance(message.header, EventHeader | SubscribeDoneHeader | ReplyHeader):
            self._intake.add(message)
            return
        if isinstance(message.header, OtherHeader) and message.header.problem:
            # Of an event, most likely: what it says would be missing.
            self._give_up(RemoteProtocolError(message.header.problem))
            return
        kind = header_type(message.header)[:64]
        log.warning("%s sent a message of type %r to a subscriber", self.address, kind)
        message.discard(DISCARD_LIMIT, lambda: self.leave("too much that nobody asked for"))

    def _on_message(self, message: IncomingMessage, body: bytes | ScampError) -> None:
        header = message.header
        if isinstance(body, ConnectionLost):
            return  # channel_lost follows
        if isinstance(body, LocalProtocolError):
            self._give_up(RemoteProtocolError(f"{header_type(header)}: {body}"))
        elif isinstance(header, EventHeader):
            self._on_event(body)
        elif isinstance(header, SubscribeDoneHeader):
            self._on_done(header, body)
        elif isinstance(header, ReplyHeader) and not self.ready:
            reason = header.error or header.error_code or "it answers as to a request"
            self._give_up(SubscriptionRefused(self.address, reason))

    def _on_event(self, body: bytes | ScampError) -> None:
        self._stats.events += 1
        try:
            records, malformed = parse_records(whole(body))
            malformed += self._picture.apply(records)
        except RemoteProtocolError as exc:
            # What it would have said is missing now, and nobody knows what that was. Only a new
            # connection, which begins with all values, makes the picture right again.
            self._give_up(RemoteProtocolError(f"an event that is of no use: {exc}"))
            return
        if malformed:
            self._stats.malformed += malformed
            log.error("%s sent malformed or unwanted records: %d", self.address, malformed)
        if self.ready:
            self._on_news()

    def _on_done(self, header: SubscribeDoneHeader, body: bytes | ScampError) -> None:
        if header.request_id != _REQUEST_ID or self.ready:
            log.warning("%s answered what was not asked: %r", self.address, header.request_id)
        elif body == b"true" or (isinstance(body, bytes) and body.strip() == b"true"):
            self.ready = True
            self._answered = True
            if self._channel is not None:
                self._stats.resumed += is_resumed(self._channel)
                self._dialer.keep(self._channel)
            self._picture.complete()
            self._settle()
            self._on_ready(self)
        else:
            self._give_up(SubscriptionRefused(self.address, "the service refuses the codes"))

    # -- to the service -----------------------------------------------------------------

    async def notify(self, data: Any) -> None:
        """See `Subscription.notify`."""
        body = encode_value(data)
        if len(body) > MAX_CLIENT_MESSAGE:
            raise LocalProtocolError(f"{len(body)} bytes, the limit is {MAX_CLIENT_MESSAGE}")
        if self._channel is None or not self.ready:
            raise ConnectionLost(self.address, "not connected", written=False)
        out = self._channel.open_message(NotifyHeader())
        try:
            await out.write(body)
        except BaseException:
            out.fail("given up")
            raise
        out.end()
