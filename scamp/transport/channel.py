"""One TLS connection that carries messages both ways: the asyncio shell around `WireConnection`."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from operator import attrgetter
from typing import Final, Protocol, cast

from scamp import logs
from scamp.errors import (
    ConnectionLost,
    FingerprintMismatch,
    LocalProtocolError,
    RemoteProtocolError,
    ReplyFailed,
    RequestAborted,
    ScampError,
    anew,
)
from scamp.limits import (
    MAX_INFLIGHT,
    MAX_PACKETS_AT_ONCE,
    MAX_RECORD,
    READ_PAUSE,
    READ_SIZE,
    WRITE_FIRST,
    WRITE_HIGH,
    WRITE_LIMIT,
    WRITE_SIZE,
)
from scamp.transport.buffer import buffer_of
from scamp.transport.message import IncomingMessage, OutgoingMessage, SentMessage
from scamp.transport.states import BY_US, CHANNEL_TRANSITIONS, DEAF, ChannelEvent, ChannelState
from scamp.transport.tls import peer_fingerprint
from scamp.transport.tuning import USUAL, TcpTimes
from scamp.wire import (
    UNLIMITED,
    DataReceived,
    EncodedHeader,
    Event,
    Header,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    MessageWhole,
    ProtocolBroken,
    Role,
    WindowOpened,
    WireConnection,
)

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.transport"))

_OPEN: Final = ChannelState.OPEN  # members are slow to get at in Python 3.11
_SENT: Final = attrgetter("sent")
_ABORTED: Final = ChannelState.ABORTED
_CLOSING: Final = ChannelState.CLOSING


class ChannelHandler(Protocol):
    """What the layer above is told, always from the event loop, never from within its own calls."""

    def channel_opened(self, channel: Channel) -> None:
        """TLS is up and the fingerprint, if one was expected, is right."""

    def message_received(self, message: IncomingMessage) -> None:
        """A HEADER arrived; the body follows."""

    def channel_lost(self, error: ScampError) -> None:
        """The channel is over; every open message has been failed with ConnectionLost."""


class _Nobody:
    """Stands where the handler of a channel was that is over: nothing comes any more."""

    def channel_opened(self, channel: Channel) -> None: ...

    def message_received(self, message: IncomingMessage) -> None: ...

    def channel_lost(self, error: ScampError) -> None: ...


_NOBODY: Final = _Nobody()


class Channel(asyncio.BufferedProtocol):
    """An asyncio protocol for `create_connection` or `create_server` with TLS.

    Everything queued in one turn of the loop leaves in one write. `expected` is the fingerprint
    that the peer must show; until it has been checked nothing is written.
    """

    def __init__(
        self,
        role: Role,
        handler: ChannelHandler,
        *,
        address: str = "",
        expected: str | None = None,
        idle_limit: float | None = None,
        max_inflight: int = MAX_INFLIGHT,
        tcp: TcpTimes = USUAL,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = self._shared = buffer_of(self._loop)
        self._handler = handler
        self._wire = WireConnection(role, max_inflight=max_inflight)
        self._max_inflight = max_inflight
        self._role = role
        self._expected = expected
        self._idle_limit = idle_limit
        self._tcp = tcp
        self._gone = asyncio.Event()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._heartbeat = 0.0
        self._heartbeat_timer: asyncio.TimerHandle | None = None
        self._heard_at_ping: int | None = None  # bytes_in when the last PING left
        self._idle_since = self._loop.time()
        self._state = ChannelState.CONNECTING
        self._transport: asyncio.Transport | None = None
        self._incoming: dict[int, IncomingMessage] = {}
        self._outgoing: dict[int, OutgoingMessage] = {}
        self._paused_by: set[IncomingMessage] = set()
        self._behind = False  # what was read is not all looked at yet
        self._writable = True
        self._flush_due = False
        self._queued = 0  # body bytes since the last flush
        self._reason: str | None = None
        self.address: str = address
        self.fingerprint: str = ""
        """The certificate that the peer showed; empty when none."""
        self.failure: ScampError | None = None
        """Why the channel is unusable: set in the states of `DEAF`, None in all others."""
        self.flushes: int = 0
        """How often bytes were handed to the transport."""
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.unresponsive: bool = False
        """True when it was cut because nothing came from the peer, not even a PONG."""
        self.when_unstalled: Callable[[], None] | None = None
        """Called, from the event loop, when it is not `stalled` any more."""
        self.busy = 0
        """Requests without an answer; while there are any the channel is not idle."""

    # -- state --------------------------------------------------------------------------

    @property
    def state(self) -> ChannelState:
        """Where the channel stands."""
        return self._state

    def _move(self, event: ChannelEvent) -> ChannelState:
        """The next state. Raises LocalProtocolError for what the table does not have."""
        after = CHANNEL_TRANSITIONS.get((self._state, event))
        if after is None:
            raise LocalProtocolError(f"{event.name} on a channel that is {self._state.name}")
        self._state = after
        return after

    # -- asyncio.Protocol ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's TLS transport is one without saying so.
        transport = self._transport = cast("asyncio.Transport", transport)
        if not self.address:
            self.address = _peer_name(transport)
        self.fingerprint = peer_fingerprint(transport.get_extra_info("ssl_object"))
        if self._expected is not None and self.fingerprint != self._expected:
            self._move(ChannelEvent.MISMATCH)
            if self.failure is None:
                self.failure = FingerprintMismatch(self.address, self._expected, self.fingerprint)
        else:
            self._move(ChannelEvent.CONNECTED)
        if self._state is not _OPEN:
            transport.abort()
            return
        self._tcp.apply(transport.get_extra_info("socket"))
        transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._arm_idle_timer()
        self._handler.channel_opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read into: room for all that there is. When the socket is closed, uvloop drops
        what it could not give at once."""
        size = sizehint + MAX_RECORD  # which may have been decrypted, and is not in the hint
        self._buffer = self._shared if size <= READ_SIZE else memoryview(bytearray(size))
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes are in the buffer."""
        data = bytes(self._buffer[:nbytes])
        self._buffer = self._shared
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Bytes that came from the peer."""
        if self._state in DEAF:
            return
        self.bytes_in += len(data)
        self._take(data)
        if self._wire.unread:
            self._take_more_later()

    def _take(self, data: bytes) -> None:
        handler, now = self._handler, self._loop.time()
        for event in self._wire.receive_whole(data, MAX_PACKETS_AT_ONCE):
            if self._state is _ABORTED:
                return  # the handler aborted; what still came is void
            if type(event) is MessageWhole:
                if self._state is not _CLOSING:  # as in `_on_event`
                    msgno, header, body = event
                    self._idle_since = now
                    handler.message_received(IncomingMessage(self, msgno, header, body))
            else:
                self._on_event(event)
        if self._wire.has_data_to_send:
            self._schedule_flush()

    def _take_more_later(self) -> None:
        """Let others have their turn before what was read is looked at any further."""
        if not self._behind and self._state not in DEAF and self._transport is not None:
            self._behind = True
            self._transport.pause_reading()
            self._loop.call_soon(self._take_more)

    def _take_more(self) -> None:
        self._behind = False
        if self._state not in DEAF:
            self._take(b"")
        if self._wire.unread:
            self._take_more_later()
        else:
            self._read_on()

    def _take_rest(self) -> None:
        """All of it, before it is told that nothing more comes."""
        while self._wire.unread and self._state not in DEAF:
            self._take(b"")

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake_writers()
        self._tell_unstalled()

    def _wake_writers(self) -> None:
        # Those first that have sent least, or short ones would wait for long ones to be over. Not
        # those whose peer takes nothing: each wake begins their patience anew.
        for message in sorted(self._outgoing.values(), key=_SENT):
            if self._wire.window(message.msgno) > 0:
                message.wake()

    def eof_received(self) -> None:
        """The peer closes; TLS has no half-closed state, so what is written now goes nowhere."""
        self._take_rest()
        self._move(ChannelEvent.PEER_EOF)

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_rest()
        self._gone.set()
        self._stop_timers()
        # Each holds the other: what a lost connection had would stay until a collection of garbage.
        handler, self._handler, self._transport = self._handler, _NOBODY, None
        self.when_unstalled = None
        if self._move(ChannelEvent.GONE) is ChannelState.REFUSED:
            return  # nobody has been told that it was open
        if self._reason is None:
            self._reason = str(exc) if exc is not None else "closed by the peer"
        error = self.failure = ConnectionLost(self.address, self._reason, written=True)
        incoming = list(self._incoming.values())
        self._incoming.clear()
        self._paused_by.clear()
        for message in incoming:
            message.finish(error)
        outgoing = list(self._outgoing.values())
        self._outgoing.clear()
        for out in outgoing:
            out.wake()
        handler.channel_lost(error)

    # -- events -------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            message = self._incoming.get(event.msgno)
            if message is not None:
                message.feed(event.data)
        elif isinstance(event, MessageStarted):
            if self._state is ChannelState.CLOSING:
                return  # it crossed our close: what answers it could not be sent
            message = IncomingMessage(self, event.msgno, event.header)
            self._incoming[event.msgno] = message
            self._handler.message_received(message)
        elif isinstance(event, MessageEnded):
            self._finish(event.msgno, None)
        elif isinstance(event, MessageFailed):
            kind = ReplyFailed if self._role is Role.CLIENT else RequestAborted
            self._finish(event.msgno, kind(event.text))
        elif isinstance(event, WindowOpened):
            out = self._outgoing.get(event.msgno)
            if out is not None:
                out.wake()
        elif isinstance(event, ProtocolBroken):
            self._break(event.error)

    def _finish(self, msgno: int, error: ScampError | None) -> None:
        message = self._incoming.pop(msgno, None)
        if message is not None:
            self._idle_since = self._loop.time()
            message.finish(error)

    def _break(self, error: RemoteProtocolError) -> None:
        log.warning("protocol error from %s: %s", self.address, error)
        self.abort(f"protocol error: {error}")

    # -- for messages -------------------------------------------------------------------

    def open_message(self, header: Header | EncodedHeader) -> OutgoingMessage:
        """Begin a message. Raises LocalProtocolError; ConnectionLost when the channel is over."""
        self._check()
        message = OutgoingMessage(self, self._wire.open_message(header))
        self._outgoing[message.msgno] = message
        # A turn later: its first bytes mostly come in between, and both leave in one write.
        self._loop.call_soon(self._schedule_flush)
        return message

    def send_whole(self, header: Header | EncodedHeader, body: bytes) -> SentMessage:
        """Send a message that is complete; `body` fits the window. Raises as `open_message`."""
        transport = self._transport
        if self._state is not _OPEN or transport is None or transport.is_closing():
            self._check()
        self._wire.send_whole(header, body)
        self._queued += len(body)
        self._idle_since = self._loop.time()
        if not self._flush_due:
            self._schedule_flush()
        return SentMessage(self, len(body))

    def room(self, message: OutgoingMessage) -> int:
        """Bytes of `message` that may be sent now. Raises ConnectionLost on a lost channel."""
        if self.closing:
            # Not _check: the message is open, so its header may be out.
            raise anew(self.failure) if self.failure else self._lost(written=True)
        if not self._writable:
            return 0
        if self._queued >= WRITE_HIGH:
            # Many long ones can fill every turn; a short one gets through all the same.
            left = WRITE_FIRST - message.sent
            return min(left, self._wire.window(message.msgno)) if left > 0 else 0
        return self._wire.window(message.msgno)

    def takes(self, size: int) -> bool:
        """True when a message with a body of `size` bytes would go out as a whole now."""
        if self.closing or not self._writable:
            return False
        return size <= (self._max_inflight if self._queued < WRITE_HIGH else WRITE_FIRST)

    def send_data(self, message: OutgoingMessage, data: bytes | memoryview) -> None:
        """Called by a message: queue body bytes, at most its window."""
        self._wire.send_data(message.msgno, data)
        self._queued += len(data)
        self._schedule_flush()

    def end_message(self, message: OutgoingMessage) -> None:
        """Called by a message: queue its EOF. Does nothing when it is over."""
        if self._outgoing.pop(message.msgno, None) is not None and self._state not in DEAF:
            self._wire.end_message(message.msgno)
            self._idle_since = self._loop.time()
            self._schedule_flush()

    def fail_message(self, message: OutgoingMessage, text: str) -> None:
        """Called by a message: queue its TXERR. Does nothing when it is over."""
        if self._outgoing.pop(message.msgno, None) is not None and self._state not in DEAF:
            self._wire.fail_message(message.msgno, text)
            self._idle_since = self._loop.time()
            self._schedule_flush()

    def consumed(self, message: IncomingMessage, size: int) -> None:
        """Called by a message: so many bytes of its body were used."""
        self._wire.consumed(message.msgno, size)
        if message.unread < READ_PAUSE:
            self.resume_for(message)
        self._schedule_flush()

    def pause_for(self, message: IncomingMessage) -> None:
        """Called by a message: too much of it is unread, read nothing more."""
        if not self._paused_by and self._transport is not None:
            self._transport.pause_reading()
        self._paused_by.add(message)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS under it; None before it is up."""
        if self._transport is None:
            return None
        return cast("ssl.SSLObject | None", self._transport.get_extra_info("ssl_object"))

    @property
    def stalled(self) -> bool:
        """True while one body holds the socket: too much unread, or too much unsent."""
        return bool(self._paused_by) or not self._writable

    @property
    def free(self) -> bool:
        """True when something new may be started here, and would not queue behind a slow body."""
        return self._writable and not self._paused_by and not self.closing

    def resume_for(self, message: IncomingMessage) -> None:
        """Called by a message: as far as it is concerned, read on."""
        if message in self._paused_by:
            self._paused_by.discard(message)
            self._read_on()
            self._tell_unstalled()

    def _tell_unstalled(self) -> None:
        if self.when_unstalled is not None and not self.stalled:
            self._loop.call_soon(self.when_unstalled)

    def _read_on(self) -> None:
        held_up = self._paused_by or self._behind or self._state in DEAF
        if not held_up and self._transport is not None:
            self._transport.resume_reading()

    # -- writing ------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        transport = self._transport
        if transport is None or self.closing:
            return
        wire, queued = self._wire, self._queued
        if wire.has_data_to_send:
            self.flushes += 1
        enough = WRITE_SIZE if queued > WRITE_SIZE else UNLIMITED
        while data := wire.data_to_send(enough):
            self.bytes_out += len(data)
            transport.write(data)
            if transport.get_write_buffer_size() > WRITE_LIMIT:
                self.abort("the peer does not read")
                return
        self._queued = 0
        if queued >= WRITE_HIGH and self._writable:
            self._wake_writers()

    # -- ending -------------------------------------------------------------------------

    @property
    def closed_by_us(self) -> bool:
        """True when this side ended the channel, or is about to."""
        return self._state in BY_US

    @property
    def closing(self) -> bool:
        """True when nothing new may be started here."""
        transport = self._transport
        if self._state is _OPEN and transport is not None and transport.is_closing():
            self._move(ChannelEvent.FAILED)  # connection_lost is on its way
        return self._state is not _OPEN

    def close(self, reason: str = "closed") -> None:
        """Send what is queued, then close. Messages still open fail with ConnectionLost."""
        self._flush()
        if self._reason is None:
            self._reason = reason
        if self._move(ChannelEvent.CLOSE) in DEAF and self.failure is None:
            self.failure = self._lost(written=False)  # given up before it was open
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self, timeout: float) -> None:
        """Wait until the socket is closed; after `timeout` seconds it is cut. Safe to cancel."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            self.abort("closing took too long")
            await self._gone.wait()

    def abort(self, reason: str) -> None:
        """Close at once, dropping what is queued. Messages still open fail with ConnectionLost."""
        if self._reason is None:
            self._reason = reason
        after = self._move(ChannelEvent.ABORT)
        if self.failure is None:
            # connection_lost makes the final error.
            self.failure = self._lost(written=after is _ABORTED)
        if self._transport is not None:
            self._transport.abort()

    def _check(self) -> None:
        if self.failure is not None:
            raise anew(self.failure)
        if self.closing:
            raise self._lost(written=False)

    def _lost(self, *, written: bool) -> ConnectionLost:
        return ConnectionLost(self.address, self._reason or "closing", written=written)

    @property
    def open_messages(self) -> int:
        """Messages open in either direction."""
        return len(self._incoming) + len(self._outgoing)

    def _arm_idle_timer(self) -> None:
        if self._idle_limit:
            self._idle_timer = self._loop.call_later(self._idle_limit, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        limit = self._idle_limit or 0.0
        now = self._loop.time()
        if self.open_messages or self.busy:
            self._idle_since = now
        left = self._idle_since + limit - now
        if left <= 0:
            self._idle_timer = None
            self.close("idle")
        else:
            self._idle_timer = self._loop.call_later(left, self._on_idle_timer)

    # -- heartbeat ----------------------------------------------------------------------

    def set_heartbeat(self, seconds: float) -> None:
        """Send a PING every `seconds`; 0, as at the beginning, sends none.

        When nothing at all has come from the peer from one PING to the time of the next, the
        channel is aborted. While we do not read ourselves, because a body is not consumed, nobody
        is blamed. Only for peers known to answer: Go closes the connection on a PING.
        """
        self._heartbeat = seconds
        self._heard_at_ping = None
        if self._heartbeat_timer is not None:
            self._heartbeat_timer.cancel()
            self._heartbeat_timer = None
        if seconds > 0 and self._state not in DEAF:
            self._heartbeat_timer = self._loop.call_later(seconds, self._beat)

    def _beat(self) -> None:
        self._heartbeat_timer = None
        connecting = self._state is ChannelState.CONNECTING
        if self.closing and not connecting:
            return
        if self._paused_by or connecting:
            self._heard_at_ping = None
        elif self._heard_at_ping == self.bytes_in:
            self.unresponsive = True
            self.abort(f"no answer to PING within {self._heartbeat:g} s")
            return
        else:
            self._heard_at_ping = self.bytes_in
            self._wire.ping()
            self._schedule_flush()
        self._heartbeat_timer = self._loop.call_later(self._heartbeat, self._beat)

    def _stop_timers(self) -> None:
        for timer in (self._idle_timer, self._heartbeat_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._heartbeat_timer = None


def _peer_name(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else "unknown"
