"""One connection to one service: requests out, each reply to the request that it belongs to.

Some peers do not echo `request_id` but number their replies as they send them. With two requests in
flight on such a connection a reply could reach the wrong caller, so:

* ids start at a random high number, which a counting peer cannot hit;
* until the first reply has shown what the peer is, one request is in flight;
* a peer that renumbers has one request at a time, and the connection is closed as soon as one is
  abandoned: its reply, if it still came, could not be told from the next.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from scamp import logs
from scamp.client.exchange import Exchange
from scamp.client.states import (
    ONE_PLACE,
    SLOT_TRANSITIONS,
    SlotEvent,
    SlotState,
)
from scamp.client.traits import PeerKind
from scamp.errors import (
    ConnectionLost,
    LocalProtocolError,
    ScampError,
)
from scamp.limits import (
    DISCARD_LIMIT,
    MAX_ABANDONED,
    MAX_INFLIGHT,
    MAX_REQUEST_ID,
)
from scamp.transport import Channel, IncomingMessage, OutgoingMessage, SentMessage
from scamp.wire import EncodedHeader, ReplyHeader, RequestTemplate, header_type

if TYPE_CHECKING:
    from scamp.client.stats import ClientStats

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.client"))

FIRST_ID_FROM: Final = 1 << 29
FIRST_ID_TO: Final = 1 << 30


RACE: Final = 1.0
"""Seconds after its first request in which the end of an idle connection may have been on its way
when the request was written."""


_SHARED: Final = SlotState.SHARED  # members are slow to get at in Python 3.11
_CLOSED: Final = SlotState.CLOSED
_STARTED: Final = SlotEvent.STARTED
_RETIRED: Final = SlotState.RETIRED
_ECHOES: Final = PeerKind.ECHOES
_FINISHED: Final = SlotEvent.FINISHED

_LEARNED: Final = {
    PeerKind.ECHOES: SlotEvent.ECHOES,
    PeerKind.RENUMBERS: SlotEvent.RENUMBERS,
}


class ClientConnection:
    """A `ChannelHandler` that matches replies to requests. `Dialer.dial` opens its channel."""

    def __init__(
        self,
        kind: PeerKind,
        *,
        stats: ClientStats,
        on_change: Callable[[ClientConnection], None],
        on_learned: Callable[[PeerKind], None],
        max_streams: int,
        on_answered: Callable[[ClientConnection], None] | None = None,
    ) -> None:
        self._stats = stats
        self._on_change = on_change
        self._on_learned = on_learned
        self._on_answered = on_answered
        self._max_streams = max_streams
        # Those that are never answered hold their places: before they hold all, retire.
        self._max_unwanted = min(MAX_ABANDONED, max(1, max_streams // 2))
        self._next_id = FIRST_ID_FROM + secrets.randbelow(FIRST_ID_TO - FIRST_ID_FROM)
        self._first_id = self._next_id
        self._exchanges: dict[int, Exchange] = {}  # no reply HEADER yet
        self._open = 0  # exchanges that hold a place: until both messages have ended
        self._unwanted = 0  # of those, whose callers have gone
        self._alone = False  # its one request is not to be disturbed
        self._cut_short = False  # a reply was under way when the channel was lost
        self._answered = False  # a reply has come on this connection
        self._quiet_since: float | None = None  # when it had its first request, if none came since
        self.channel: Channel | None = None
        self.kind: PeerKind = kind
        self._state = SlotState.DIALING
        self.dialled: tuple[float, float] | None = None
        """When it was opened, from and to (`time.monotonic`)."""
        self.lost_in_use: bool = False
        """True when it ended while somebody waited for a reply, or for the rest of one."""
        self.lost_to_peer: bool = False
        """True when the peer ended it, not we."""
        self.lost_in_race: bool = False
        """True when the peer seems to have ended it for being idle as a request was on its way."""

    # -- state --------------------------------------------------------------------------

    @property
    def state(self) -> SlotState:
        """Where the connection stands."""
        return self._state

    def _move(self, event: SlotEvent) -> SlotState:
        """The next state. Raises LocalProtocolError for what the table does not have."""
        after = SLOT_TRANSITIONS.get((self._state, event))
        if after is None:
            raise LocalProtocolError(f"{event.name} on a connection that is {self._state.name}")
        self._state = after
        return after

    # -- for the pool -------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Exchanges that hold a place here."""
        return self._open

    @property
    def room(self) -> int:
        """How many more requests may be started now."""
        state, channel = self._state, self.channel
        if state is _SHARED:
            places = self._max_streams - self._open
        elif state in ONE_PLACE:
            places = 1
        else:
            return 0
        # Not free: lost, or idle and about to close, and we shall be told; or a slow body holds the
        # socket, and nobody new should queue behind it.
        return places if places > 0 and channel is not None and channel.free else 0

    @property
    def empty(self) -> bool:
        """True when a request that needs the connection for itself may be started."""
        channel = self.channel
        free = self._state is _SHARED or self._state in ONE_PLACE
        return free and self._open == 0 and channel is not None and not channel.closing

    @property
    def alone(self) -> bool:
        """True while a request has it for itself."""
        return self._alone

    @property
    def answered(self) -> bool:
        """True once a reply has begun here."""
        return self._answered

    @property
    def doubtful(self) -> bool:
        """True once a reply has come: with the last one on its way here the peer may be idle, and
        just be closing it."""
        return self._answered

    @property
    def mute(self) -> bool:
        """True when it has requests in flight and no reply has begun since the first of them."""
        return self._quiet_since is not None

    @property
    def unresponsive(self) -> bool:
        """True when it ended because nothing came from the peer, not even a PONG."""
        return self.channel is not None and self.channel.unresponsive

    @property
    def address(self) -> str:
        """``host:port`` of the service."""
        return self.channel.address if self.channel is not None else ""

    # -- exchanges ----------------------------------------------------------------------

    def start(
        self, encode: Callable[[int], EncodedHeader], body: bytes, *, end: bool, exclusive: bool
    ) -> Exchange:
        """Begin a request. `encode` makes the HEADER body for an id; `body` fits the window.

        With `end` the request is complete at once and leaves in one write. Raises ConnectionLost
        with `written` False when the connection has just gone or has no place for it,
        LocalProtocolError when the header cannot be sent.
        """
        channel = self.channel
        event = SlotEvent.STARTED_ALONE if exclusive else _STARTED
        fits = (self._state, event) in SLOT_TRANSITIONS and not (exclusive and self._open)
        if channel is None or not fits or channel.closing:
            raise ConnectionLost(self.address, "closing", written=False)
        if len(body) > MAX_INFLIGHT:
            raise LocalProtocolError(f"first piece of {len(body)} bytes exceeds the window")
        header = encode(self._next_id)
        if end:
            return self._begun(channel, channel.send_whole(header, body), event)
        request = channel.open_message(header)
        exchange = self._begun(channel, request, event)
        self._alone = exclusive
        if body:
            channel.send_data(request, body)
            request.sent += len(body)
        return exchange

    def start_whole(
        self, template: RequestTemplate, ticket: str | None, client_id: int | None, body: bytes
    ) -> Exchange:
        """As `start` with `end`, for a request whose header is the template's but for these."""
        channel = self.channel
        fits = self._state is _SHARED or (self._state, _STARTED) in SLOT_TRANSITIONS
        if channel is None or not fits:
            raise ConnectionLost(self.address, "closing", written=False)
        header = template.encode(self._next_id, ticket, client_id)
        return self._begun(channel, channel.send_whole(header, body), _STARTED)

    def _begun(
        self, channel: Channel, request: OutgoingMessage | SentMessage, event: SlotEvent
    ) -> Exchange:
        """A request with the next id has been queued."""
        if self._state is not _SHARED or event is not _STARTED:  # which changes nothing
            self._move(event)
        request_id = self._next_id
        self._next_id = request_id + 1
        exchange = self._exchanges[request_id] = Exchange(self, request_id, request)
        if not self._open:
            self._quiet_since = asyncio.get_running_loop().time()
        self._open += 1
        channel.busy += 1
        self._stats.attempts += 1
        if request_id + 1 >= MAX_REQUEST_ID:
            self.retire()
        return exchange

    def request_ended(self, exchange: Exchange) -> None:
        """A streamed request is complete: its EOF has been queued."""
        if exchange.reply is not None and exchange.reply.ended:
            self._finish(exchange)

    def abandon(self, exchange: Exchange, *, suspect: bool) -> None:
        """See `Exchange.abandon`."""
        if exchange.finished or exchange.unwanted:
            return
        exchange.forget()
        if self._state is _CLOSED:
            self._finish(exchange)
            return
        exchange.unwanted = True
        self._unwanted += 1
        if not exchange.request.closed or self.kind is not PeerKind.ECHOES:
            # A request half sent, or a peer whose next reply could be taken for this one.
            self._stats.abandoned["close"] += 1
            self.close("request abandoned")
            self._finish(exchange)  # where its reply has ended, nothing else would
            return
        self._stats.abandoned["discard"] += 1
        if exchange.reply is not None:
            self._discard(exchange.reply)
        if suspect or self._unwanted >= self._max_unwanted:
            self.retire()
        self._close_if_done()

    def _discard(self, reply: IncomingMessage) -> None:
        """Read the rest of a reply for nobody; a long one retires the connection."""
        reply.discard(DISCARD_LIMIT, self.retire)

    def _finish(self, exchange: Exchange) -> None:
        """Both messages have ended: give the place back."""
        if exchange.finished:
            return
        exchange.finished = True
        exchange.done()
        self._open -= 1
        self._alone = False
        if exchange.unwanted:
            self._unwanted -= 1
        if self._state is not _SHARED:  # which this does not change
            self._move(_FINISHED)
        channel = self.channel
        if channel is not None:
            channel.busy -= 1
        if exchange.reply is not None:
            self._stats.bytes_received += exchange.reply.received
        self._stats.bytes_sent += exchange.request.sent
        self._close_if_done()
        if self._state is not _CLOSED:
            self._on_change(self)

    def _close_if_done(self) -> None:
        if self._state is _RETIRED and not self._live:
            self.close("retired")

    @property
    def _live(self) -> bool:
        """True while somebody still waits for something on this connection."""
        return self._open > self._unwanted

    # -- replies ------------------------------------------------------------------------

    def channel_opened(self, channel: Channel) -> None:
        """From the channel: TLS is up and the fingerprint is right."""
        self.channel = channel
        channel.when_unstalled = self._unstalled
        if self._move(SlotEvent.CONNECTED) is _CLOSED:
            channel.close("given up while it was dialled")
        elif self.kind is not PeerKind.UNKNOWN:
            self._move(_LEARNED[self.kind])

    def _unstalled(self) -> None:
        if self._state is not _CLOSED:
            self._on_change(self)  # there is room again

    def message_received(self, message: IncomingMessage) -> None:
        """From the channel: a HEADER arrived."""
        header = message.header
        if not isinstance(header, ReplyHeader):
            log.warning("%s sent a message of type %r", self.address, header_type(header)[:64])
            message.discard(DISCARD_LIMIT, self.retire)
            return
        exchange = self._match(header)
        if exchange is None:
            message.discard(DISCARD_LIMIT, self.retire)
            return
        del self._exchanges[exchange.request_id]
        if not self._answered and self._on_answered is not None:
            self._on_answered(self)
        self._answered = True
        self._quiet_since = None
        exchange.reply = message
        if not message.ended:
            message.when_ended(lambda: self._reply_ended(exchange))
        elif exchange.request.closed:
            self._finish(exchange)
        if exchange.unwanted:
            self._discard(message)
        elif message.ended or header.failed:
            exchange.ready()
        else:
            message.when_ready(exchange.ready)

    def _match(self, header: ReplyHeader) -> Exchange | None:
        """The exchange that this reply belongs to; None when it is nobody's."""
        request_id = header.request_id
        if self.kind is _ECHOES and type(request_id) is int:
            exchange = self._exchanges.get(request_id)
            if exchange is None:
                self._stray(header)
            return exchange
        if isinstance(request_id, str) and request_id.isascii() and request_id.isdigit():
            request_id = int(request_id[:20])
        exchange = self._exchanges.get(request_id) if isinstance(request_id, int) else None
        if self.kind is PeerKind.ECHOES:
            if exchange is None:
                self._stray(header)
            return exchange
        if exchange is not None and self.kind is PeerKind.UNKNOWN:
            self._learn(PeerKind.ECHOES)
            return exchange
        # The peer renumbers, or is about to be found out. It can only mean the one request that is
        # in flight, and it answers requests that are complete. One that was not even written is
        # not meant either: its place came free in this very read.
        if exchange is None and len(self._exchanges) == 1:
            (exchange,) = self._exchanges.values()
        if exchange is None or not exchange.request.closed or not exchange.request.flushed:
            self._stray(header)
            self.close("a reply that belongs to no request")
            return None
        if self.kind is PeerKind.UNKNOWN:
            self._learn(PeerKind.RENUMBERS)
        return exchange

    def learn(self, kind: PeerKind) -> None:
        """What another connection has shown of the peer; only where nothing is known here."""
        if self.kind is PeerKind.UNKNOWN and kind is not PeerKind.UNKNOWN:
            self.kind = kind
            self._move(_LEARNED[kind])

    def _learn(self, kind: PeerKind) -> None:
        self.learn(kind)
        self._stats.learned[kind.value] += 1
        self._on_learned(kind)

    def _stray(self, header: ReplyHeader) -> None:
        self._stats.stray_replies += 1
        request_id = header.request_id
        log.warning("%s sent a reply with id %r, which is not in flight", self.address, request_id)
        issued = isinstance(request_id, int) and self._first_id <= request_id < self._next_id
        if self.kind is PeerKind.ECHOES and not issued:
            # It may have been replaced by something that counts; do not trust what was learned.
            self._on_learned(PeerKind.UNKNOWN)
            self.retire()

    def _reply_ended(self, exchange: Exchange) -> None:
        reply = exchange.reply
        cut_short = reply is not None and isinstance(reply.error, ConnectionLost)
        if cut_short and not exchange.unwanted:
            self._cut_short = True
        if exchange.request.closed or cut_short:
            self._finish(exchange)

    # -- ending -------------------------------------------------------------------------

    def retire(self) -> None:
        """Take nothing new; close when the last request that somebody waits for has finished."""
        before = self._state
        if self._move(SlotEvent.RETIRE) is before:
            return
        self._on_change(self)
        self._close_if_done()

    def close(self, reason: str) -> None:
        """Close now; requests in flight fail with ConnectionLost."""
        channel = self.channel
        if channel is not None and self._state is not _CLOSED:
            if self._open:
                channel.abort(reason)
            else:
                channel.close(reason)
        self._end(SlotEvent.CLOSE, ConnectionLost(self.address, reason, written=True))

    def channel_lost(self, error: ScampError) -> None:
        """From the channel: it is over."""
        self.lost_to_peer = self.channel is not None and not self.channel.closed_by_us
        if self.lost_to_peer and self._answered and self._quiet_since is not None:
            quiet = asyncio.get_running_loop().time() - self._quiet_since
            self.lost_in_race = quiet <= RACE
        self._end(SlotEvent.GONE, error)

    def _end(self, event: SlotEvent, error: ScampError) -> None:
        before = self._state
        self._move(event)
        if before is _CLOSED or before is SlotState.DIALING:
            return
        unwritten = sum(not e.unwanted and not e.request.flushed for e in self._exchanges.values())
        if self._cut_short or self._open - self._unwanted > unwritten:
            self.lost_in_use = True
            self._stats.lost_in_use += 1
        else:
            self._stats.lost_idle += 1
        reason = error.reason if isinstance(error, ConnectionLost) else str(error)
        if reason.startswith("protocol error"):
            self._stats.protocol_errors += 1
        exchanges, self._exchanges = list(self._exchanges.values()), {}
        for exchange in exchanges:
            written = exchange.request.flushed
            exchange.fail(ConnectionLost(self.address, reason, written=written))
            self._finish(exchange)
        self._on_change(self)
