"""One side of one SCAMP connection, without I/O: bytes in, events out; calls in, bytes out.

Both sides are alike: each numbers its own messages from 0 and each message is a HEADER, DATA and an
EOF or TXERR, by the table of `scamp.wire.states`. Which message is a request and which its reply is
the business of the layer above.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from scamp.errors import LocalProtocolError, RemoteProtocolError
from scamp.limits import (
    MAX_DATA_SENT,
    MAX_INFLIGHT,
    MAX_OPEN_HEADERS,
    MAX_OPEN_MESSAGES,
    MAX_PACKET_BODY,
)
from scamp.wire.encoding import EncodedHeader
from scamp.wire.events import (
    DataReceived,
    Event,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    MessageWhole,
    PongReceived,
    ProtocolBroken,
    WindowOpened,
)
from scamp.wire.header import Header, ReplyHeader, parse_header
from scamp.wire.packets import TRAILER, UNLIMITED, Packet, PacketReader, PacketType
from scamp.wire.sending import PingPacket, PongPacket, TxErrPacket
from scamp.wire.states import TRANSITIONS, MessageState, refusal


class Role(Enum):
    """Which side we are; it only says what a HEADER without `type` means."""

    CLIENT = "reply"
    SERVER = "request"


_WHOLE: Final = (
    b"HEADER %d %d\r\n%bEND\r\n"  # a message's three packets
    b"DATA %d %d\r\n%bEND\r\n"
    b"EOF %d 0\r\nEND\r\n"
)
_PACKETS: Final = 3  # of a whole message

# A message whose packets follow each other, up to its body; and an ACK. Its HEADER is one line, as
# JSON mostly is; group 4 is the id of a reply that says nothing else. What does not match may be
# right as well: it goes the other way, packet by packet, and so does everything that is wrong.
_OPENING: Final = re.compile(
    rb"HEADER ([0-9]{1,19}) ([0-9]{1,5})\r\n"  # five digits: neither is too much for a packet
    rb'(\{"type":"reply","request_id":(0|[1-9][0-9]{0,17})\}\n?|\{[^\n]*\}\n?)END\r\n'
    rb"DATA \1 ([0-9]{1,5})\r\n"
)
_ACK: Final = re.compile(rb"ACK ([0-9]{1,18}) ([0-9]{1,6})\r\n([1-9][0-9]{0,18})END\r\n")
_ACK_BODY: Final = re.compile(rb"[1-9][0-9]{0,18}")


# As globals: in Python 3.11 a member of an enum takes longer to get than to look up in a table.
OPEN: Final = MessageState.OPEN
HEADER: Final = PacketType.HEADER
DATA: Final = PacketType.DATA
EOF: Final = PacketType.EOF
TXERR: Final = PacketType.TXERR
ACK: Final = PacketType.ACK
PING: Final = PacketType.PING
PONG: Final = PacketType.PONG


def _absent(msgno: int, following: int) -> MessageState:
    """The state of a message that is not open. How one ended that is over makes no difference."""
    return MessageState.UNSEEN if msgno >= following else MessageState.ENDED


def _first(parts: list[bytes | memoryview], enough: int) -> int:
    """How many of them have `enough` bytes together."""
    size = 0
    for count, part in enumerate(parts, 1):
        size += len(part)
        if size >= enough:
            return count
    return len(parts)


class _Incoming:
    __slots__ = ("consumed", "header_size", "received")

    def __init__(self, header_size: int) -> None:
        self.header_size = header_size
        self.received = 0
        self.consumed = 0


class _Outgoing:
    __slots__ = ("acked", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.acked = 0


class WireConnection:
    """The state of one side. The first thing that the peer does wrong ends it."""

    __slots__ = (
        "_ack_due",
        "_broken",
        "_header_bytes",
        "_in",
        "_max_inflight",
        "_next_in",
        "_next_out",
        "_out",
        "_queue",
        "_reader",
        "role",
    )

    def __init__(self, role: Role, *, max_inflight: int = MAX_INFLIGHT) -> None:
        self.role: Role = role
        self._max_inflight = max_inflight
        self._reader = PacketReader()
        self._in: dict[int, _Incoming] = {}
        self._header_bytes = 0  # of all in _in
        self._out: dict[int, _Outgoing] = {}
        self._next_in = 0
        self._next_out = 0
        self._ack_due: set[int] = set()  # open messages consumed since the last send
        self._queue: list[bytes | memoryview] = []
        self._broken = False

    # -- receiving ----------------------------------------------------------------------

    def receive(self, data: bytes, limit: int = UNLIMITED) -> list[Event]:
        """Bytes that were read from the peer; what they mean. After `limit` packets the rest is
        held: `unread` then, call again with nothing.

        When the peer broke the protocol, what came before stands and `ProtocolBroken` is the last
        event; every later call gives nothing.
        """
        events: list[Event] = []
        if not self._broken:
            self._take(self._reader.join(data), 0, limit, events)
        return events

    def receive_whole(self, data: bytes, limit: int = UNLIMITED) -> list[Event]:
        """As `receive`, but with `MessageWhole` for what comes at once: for most of what comes,
        which then costs a quarter (1.5 us a reply instead of 6.7)."""
        events: list[Event] = []
        if self._broken:
            return events
        reader = self._reader
        data = reader.join(data)
        pos = 0
        if reader.between and data:
            pos, limit = self._take_messages(data, limit, events)
        self._take(data, pos, limit, events)
        return events

    def _take_messages(self, data: bytes, limit: int, events: list[Event]) -> tuple[int, int]:
        """Take whole messages, and ACKs of what is over, from the beginning of `data`, as long as
        they are right; return where the rest begins, and how many packets of it may be taken."""
        pos, end, msgno = 0, len(data), self._next_in
        room = MAX_OPEN_HEADERS - self._header_bytes
        if len(self._in) >= MAX_OPEN_MESSAGES:
            return pos, limit
        while pos < end and limit >= _PACKETS:
            found = _OPENING.match(data, pos)
            if found is None:
                ack = _ACK.match(data, pos)
                if ack is None or not self._over(ack):
                    break
                pos = ack.end()
                limit -= 1
                continue
            number, header_size, body, request_id, size = found.groups()
            start = found.end()
            stop = start + int(size)
            trailer = b"END\r\nEOF %b 0\r\nEND\r\n" % number
            header_length = len(body)
            if (
                not data.startswith(trailer, stop)
                or int(number) != msgno
                or int(header_size) != header_length
                or header_length > room
            ):
                break
            if request_id is not None:
                header: Header = ReplyHeader(int(request_id))
            else:
                try:
                    header = parse_header(body, self.role.value)
                except RemoteProtocolError:
                    break
            events.append(MessageWhole(msgno, header, data[start:stop]))
            msgno = self._next_in = msgno + 1
            pos = stop + len(trailer)
            limit -= _PACKETS
        return pos, limit

    def _over(self, ack: re.Match[bytes]) -> bool:
        """True for an ACK of a message of ours that has ended, which says nothing any more."""
        msgno = int(ack[1])
        known = msgno < self._next_out and msgno not in self._out
        return known and len(ack[3]) == int(ack[2])

    def _take(self, data: bytes, pos: int, limit: int, events: list[Event]) -> None:
        """Take `data` from `pos` on, packet by packet."""
        packets: list[Packet] = []
        failure: RemoteProtocolError | None = None
        try:
            self._reader.cut(data, pos, packets, limit)
        except RemoteProtocolError as exc:
            failure = exc
        try:
            for packet in packets:
                self._on_packet(packet, events)
        except RemoteProtocolError as exc:
            failure = exc
        if failure is not None:
            self._broken = True
            events.append(ProtocolBroken(failure))

    @property
    def unread(self) -> bool:
        """True when `receive` has stopped at its limit and there is more."""
        return self._reader.unread and not self._broken

    def _on_packet(self, packet: Packet, events: list[Event]) -> None:
        kind, msgno, body = packet
        if kind is ACK:
            self._on_ack(msgno, body, events)
        elif kind is PING or kind is PONG:
            self._on_heartbeat(kind, msgno, body, events)
        else:
            self._on_message_packet(kind, msgno, body, events)

    def _on_message_packet(
        self, kind: PacketType, msgno: int, body: bytes, events: list[Event]
    ) -> None:
        incoming = self._in.get(msgno)
        state = OPEN if incoming is not None else _absent(msgno, self._next_in)
        after = TRANSITIONS.get((state, kind))
        if after is None:
            raise RemoteProtocolError(refusal(state, kind, msgno))
        if incoming is None:
            self._on_header(msgno, body, events)
        elif kind is DATA:
            if body:
                incoming.received += len(body)
                events.append(DataReceived(msgno, body))
        elif kind is EOF:
            if body:
                raise RemoteProtocolError(f"EOF of message {msgno} has a body")
            events.append(MessageEnded(msgno))
        else:
            if body in (b"", b"0"):
                raise RemoteProtocolError(f"TXERR of message {msgno} without an error text")
            events.append(MessageFailed(msgno, body.decode("utf-8", "replace")))
        if after is not OPEN and incoming is not None:
            del self._in[msgno]
            self._ack_due.discard(msgno)
            self._header_bytes -= incoming.header_size

    def _on_header(self, msgno: int, body: bytes, events: list[Event]) -> None:
        if msgno != self._next_in:
            raise RemoteProtocolError(f"HEADER of message {msgno}, expected {self._next_in}")
        if len(self._in) >= MAX_OPEN_MESSAGES:
            raise RemoteProtocolError(f"more than {MAX_OPEN_MESSAGES} messages open at once")
        self._header_bytes += len(body)
        if self._header_bytes > MAX_OPEN_HEADERS:
            raise RemoteProtocolError(f"more than {MAX_OPEN_HEADERS} bytes of HEADERs open at once")
        header = parse_header(body, self.role.value)
        self._next_in += 1
        self._in[msgno] = _Incoming(len(body))
        events.append(MessageStarted(msgno, header))

    def _on_ack(self, msgno: int, body: bytes, events: list[Event]) -> None:
        outgoing = self._out.get(msgno)
        state = OPEN if outgoing is not None else _absent(msgno, self._next_out)
        if (state, ACK) not in TRANSITIONS:
            raise RemoteProtocolError(refusal(state, ACK, msgno))
        if outgoing is None:
            return  # over already: it may arrive late
        if _ACK_BODY.fullmatch(body) is None:
            raise RemoteProtocolError(f"malformed ACK {body[:20]!r}")
        acked = int(body)
        if acked <= outgoing.acked:
            raise RemoteProtocolError(f"ACK {acked} after {outgoing.acked} is no advance")
        if acked > outgoing.sent:
            raise RemoteProtocolError(f"ACK {acked}, but only {outgoing.sent} bytes were sent")
        outgoing.acked = acked
        events.append(WindowOpened(msgno))

    def _on_heartbeat(
        self, kind: PacketType, number: int, body: bytes, events: list[Event]
    ) -> None:
        if body:
            raise RemoteProtocolError(f"{kind.name} with a body")
        if kind is PING:
            self._queue.append(PongPacket(number).encode())
        else:
            events.append(PongReceived(number))

    def consumed(self, msgno: int, count: int) -> None:
        """`count` bytes of an incoming message have been used: acknowledge them at the next send.

        For a message that has ended this does nothing: its sender has forgotten it. Raises
        LocalProtocolError for more than has come: the peer would close at such an ACK.
        """
        incoming = self._in.get(msgno)
        if incoming is None:
            return
        left = incoming.received - incoming.consumed
        if not 0 <= count <= left:
            raise LocalProtocolError(f"{count} bytes of message {msgno} consumed, of {left} unread")
        if count:
            incoming.consumed += count
            self._ack_due.add(msgno)

    # -- sending ------------------------------------------------------------------------

    def open_message(self, header: Header | EncodedHeader) -> int:
        """Queue a HEADER; return the number of the new message.

        Raises LocalProtocolError when the header cannot be sent, see `EncodedHeader`.
        """
        body = header if isinstance(header, EncodedHeader) else EncodedHeader(header)
        msgno = self._next_out
        self._step(msgno, HEADER)
        self._next_out = msgno + 1
        self._queue.append(b"HEADER %d %d\r\n%bEND\r\n" % (msgno, len(body), body))
        return msgno

    def send_whole(self, header: Header | EncodedHeader, body: bytes) -> int:
        """Queue a message that is complete, from HEADER to EOF; return its number.

        Raises LocalProtocolError when the header cannot be sent, and for a body that exceeds the
        window.
        """
        if not isinstance(header, EncodedHeader):
            header = EncodedHeader(header)
        size = len(body)
        if size > self._max_inflight:
            raise LocalProtocolError(f"{size} bytes exceed the window of a message")
        msgno = self._next_out
        if 0 < size <= MAX_DATA_SENT:
            # The three steps of the table at once: nobody sees the message in between.
            self._next_out = msgno + 1
            self._queue.append(_WHOLE % (msgno, len(header), header, msgno, size, body, msgno))
            return msgno
        self.open_message(header)
        self.send_data(msgno, body)
        self.end_message(msgno)
        return msgno

    def window(self, msgno: int) -> int:
        """Bytes of message `msgno` that may be sent before the peer acknowledges more."""
        outgoing = self._outgoing(msgno)
        return self._max_inflight - (outgoing.sent - outgoing.acked)

    def send_data(self, msgno: int, data: bytes | memoryview) -> None:
        """Queue body bytes; at most `window(msgno)`, else LocalProtocolError."""
        outgoing = self._step(msgno, DATA)
        size = len(data)
        if size > self._max_inflight - (outgoing.sent - outgoing.acked):
            raise LocalProtocolError(f"{size} bytes for message {msgno} exceed its window")
        outgoing.sent += size
        for start in range(0, size, MAX_DATA_SENT):
            piece = data if size <= MAX_DATA_SENT else data[start : start + MAX_DATA_SENT]
            self._queue += (b"DATA %d %d\r\n" % (msgno, len(piece)), piece, TRAILER)

    def end_message(self, msgno: int) -> None:
        """Queue the EOF; the message is complete."""
        self._step(msgno, EOF)
        self._queue.append(b"EOF %d 0\r\nEND\r\n" % msgno)

    def fail_message(self, msgno: int, text: str) -> None:
        """Queue a TXERR: give the message up. `text` must say something (not empty, not "0"); what
        is longer than a packet is cut."""
        if len(text) > MAX_PACKET_BODY // 4:  # a character takes up to four bytes
            text = text.encode("utf-8", "replace")[:MAX_PACKET_BODY].decode("utf-8", "ignore")
        packet = TxErrPacket(msgno, text).encode()
        self._step(msgno, TXERR)
        self._queue.append(packet)

    def ping(self, number: int = 0) -> None:
        """Queue a PING. Only for peers known to answer: Go closes the connection on it."""
        self._queue.append(PingPacket(number).encode())

    def data_to_send(self, enough: int = UNLIMITED) -> bytes:
        """Everything queued, ACKs first (one per message); the queue is empty afterwards.

        Where there is more, so much of it that it has `enough` bytes, and the rest in later calls.
        """
        queue = self._queue
        if self._ack_due:
            queue[:0] = self._acks()
        if not queue:
            return b""
        count = len(queue) if enough >= UNLIMITED else _first(queue, enough)
        data = b"".join(queue[:count] if count < len(queue) else queue)  # no copy of a single one
        del queue[:count]
        return data

    @property
    def has_data_to_send(self) -> bool:
        """True when `data_to_send` would give something."""
        return bool(self._queue or self._ack_due)

    def _acks(self) -> list[bytes]:
        counts = [(msgno, b"%d" % self._in[msgno].consumed) for msgno in self._ack_due]
        self._ack_due.clear()
        return [b"ACK %d %d\r\n%bEND\r\n" % (one, len(count), count) for one, count in counts]

    def _step(self, msgno: int, packet: PacketType) -> _Outgoing:
        """Take message `msgno` of ours over one packet. Raises LocalProtocolError if it may not."""
        outgoing = self._out.get(msgno)
        state = OPEN if outgoing is not None else _absent(msgno, self._next_out)
        after = TRANSITIONS.get((state, packet))
        if after is None:
            raise LocalProtocolError(refusal(state, packet, msgno))
        if outgoing is None:
            outgoing = self._out[msgno] = _Outgoing()
        elif after is not OPEN:
            del self._out[msgno]
        return outgoing

    def _outgoing(self, msgno: int) -> _Outgoing:
        outgoing = self._out.get(msgno)
        if outgoing is None:
            raise LocalProtocolError(f"message {msgno} is not open for sending")
        return outgoing

    # -- state --------------------------------------------------------------------------

    @property
    def open_incoming(self) -> int:
        """Messages of the peer that have begun and not ended."""
        return len(self._in)

    @property
    def open_outgoing(self) -> int:
        """Messages of ours that have begun and not ended."""
        return len(self._out)

    @property
    def at_boundary(self) -> bool:
        """True when the stream may end here without cutting a packet or a message."""
        return self._reader.idle and not self._in
