"""Two sides joined back to back and driven at random, beside a model of what each must know.

The model has its own idea of packets, windows and tables: it says what `data_to_send` gives, which
events a number of bytes makes, and what is refused. Nothing of it comes from `scamp.wire`.
"""

from __future__ import annotations

import copy
import json
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from unfolding import unfolded

from scamp.errors import LocalProtocolError
from scamp.wire import (
    DataReceived,
    Event,
    EventHeader,
    Header,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    NotifyHeader,
    OtherHeader,
    PongReceived,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    Role,
    SubscribeDoneHeader,
    SubscribeHeader,
    WindowOpened,
    WireConnection,
    encode_header,
)

LARGEST: Final = 131_072
"""Body bytes of the largest packet that a peer has to take."""
PIECE: Final = 65_536
"""Body bytes of the largest DATA that we send."""
LARGEST_NUMBER: Final = 10**19 - 1
"""What a packet's header line has room for."""
WINDOWS: Final = (1, 7, 40, PIECE + 5, LARGEST + 5)
BODIES: Final = (bytes(range(256)) + b"END\r\nEOF 0 0\r\nEND\r\nDATA 0 9\r\n") * 600
"""Bodies are pieces of this: all bytes, and what looks like the end of a packet."""

HEADERS: Final[dict[Role, list[tuple[Header, dict[str, Any]]]]] = {
    Role.CLIENT: [
        (
            RequestHeader("Shop.buy", 7, client_id=3, extra={"traceparent": "00"}),
            {
                "type": "request",
                "action": "Shop.buy",
                "request_id": 7,
                "version": 1,
                "envelope": "json",
                "client_id": 3,
                "traceparent": "00",
            },
        ),
        (SubscribeHeader(8), {"type": "subscribe", "request_id": 8}),
        (NotifyHeader(), {"type": "notify"}),
        (OtherHeader("of tomorrow", 9), {"type": "of tomorrow", "request_id": 9}),
    ],
    Role.SERVER: [
        (ReplyHeader(7), {"type": "reply", "request_id": 7}),
        (
            ReplyHeader("x", "no", "denied", {"dispatch_failure": True}),
            {
                "type": "reply",
                "request_id": "x",
                "error": "no",
                "error_code": "denied",
                "error_data": {"dispatch_failure": True},
            },
        ),
        (EventHeader({"n": 1}), {"type": "event", "n": 1}),
        (SubscribeDoneHeader(8), {"type": "subscribe_done", "request_id": 8}),
    ],
}
UNSENDABLE: Final[list[Header]] = [
    RequestHeader("", 1),
    RequestHeader("a.b", 0),
    RequestHeader("x" * LARGEST, 1),
    ReplyHeader(1, error_data={"dispatch_failure": True}),
    EventHeader({"type": "reply"}),
    OtherHeader("reply"),
]
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter("0".__ne__)
LONG = "\u20ac" * LARGEST
BEYOND = st.integers(1, 99) | st.just(LARGEST)
SIDES = st.sampled_from(list(Role))


class How(Enum):
    """How far the bytes of one side go."""

    STAYS = "nowhere"
    LEAVES = "into the pipe"
    SOME = "in part to the other side"
    ARRIVES = "to the other side"
    CONSUMED = "to the other side, which uses some of them at once"


HOW = st.sampled_from(How)
OTHER: Final = {Role.CLIENT: Role.SERVER, Role.SERVER: Role.CLIENT}


@dataclass
class Packet:
    """One packet; `raw` is what of it has not been delivered."""

    kind: str
    msgno: int
    body: bytes
    raw: bytes = b""

    @property
    def begun(self) -> bool:
        return len(self.raw) < len(encode(self.kind, self.msgno, self.body))


def encode(kind: str, msgno: int, body: bytes = b"") -> bytes:
    return f"{kind} {msgno} {len(body)}\r\n".encode() + body + b"END\r\n"


LINE = re.compile(rb"([A-Z]+) (\d+) (\d+)\r\n")


def split(raw: bytes) -> list[Packet]:
    """Whole packets, which is all that a side ever gives."""
    packets = []
    at = 0
    while at < len(raw):
        line = LINE.match(raw, at)
        assert line is not None, raw[at : at + 40]
        end = line.end() + int(line[3])
        assert raw[end : end + 5] == b"END\r\n"
        body = raw[line.end() : end]
        packets.append(Packet(line[1].decode(), int(line[2]), body, raw[at : end + 5]))
        at = end + 5
    return packets


@dataclass
class Sent:
    """One message that a side has open for sending, as it must see it."""

    sent: int = 0
    acked: int = 0


@dataclass
class Got:
    """One message of the peer that is open, as its receiver must see it."""

    header_size: int
    received: int = 0
    consumed: int = 0
    acked: int = 0


@dataclass
class Side:
    """One machine and what we expect of it."""

    role: Role
    window: int
    wire: WireConnection
    headers: list[tuple[Header, dict[str, Any]]] = field(default_factory=list)  # of all messages
    out: dict[int, Sent] = field(default_factory=dict)
    got: dict[int, Got] = field(default_factory=dict)
    heard: int = 0  # messages that the peer has begun
    queue: list[tuple[str, int, bytes]] = field(default_factory=list)  # but for ACKs
    pipe: deque[Packet] = field(default_factory=deque)  # on its way to the other
    whole: bool = False  # whether what comes at once is taken at once

    # -- sending --------------------------------------------------------------------------

    def room(self, msgno: int) -> int:
        return self.window - (self.out[msgno].sent - self.out[msgno].acked)

    def body(self, msgno: int, size: int) -> bytes:
        """What stands in the body of a message after what was sent of it."""
        start = (msgno * 31 + self.out[msgno].sent) % 1_000
        return BODIES[start : start + size]

    def acks(self) -> dict[int, int]:
        """ACKs that are due."""
        return {n: got.consumed for n, got in self.got.items() if got.consumed > got.acked}

    def end(self, msgno: int) -> None:
        self.wire.end_message(msgno)
        del self.out[msgno]
        self.queue.append(("EOF", msgno, b""))

    def fail(self, msgno: int, text: str) -> None:
        self.wire.fail_message(msgno, text)
        del self.out[msgno]
        said = LONG[: LARGEST // 3] if text is LONG else text  # cut, but not within a character
        self.queue.append(("TXERR", msgno, said.encode()))

    @property
    def under_way(self) -> int:
        """Bytes that have left and not arrived."""
        return sum(len(packet.raw) for packet in self.pipe)

    def flush(self) -> None:
        """What was queued goes into the pipe, and is what it should be."""
        acks, queue = self.acks(), self.queue
        packets = split(self.wire.data_to_send())
        assert len(packets) == len(acks) + len(queue)
        first, rest = packets[: len(acks)], packets[len(acks) :]
        assert {(one.kind, one.msgno, one.body) for one in first} == {
            ("ACK", msgno, b"%d" % count) for msgno, count in acks.items()
        }
        for msgno, count in acks.items():
            self.got[msgno].acked = count
        for one, (kind, msgno, body) in zip(rest, queue, strict=True):
            assert (one.kind, one.msgno) == (kind, msgno)
            if kind == "HEADER":
                assert json.loads(one.body) == self.headers[msgno][1]
            else:
                assert one.body == body
        queue.clear()
        self.pipe.extend(packets)

    # -- receiving ------------------------------------------------------------------------

    def receive(self, source: Side, size: int) -> None:
        """The next `size` bytes of what `source` sent: they tell what they should."""
        raw = b""
        expected: list[Event] = []
        while len(raw) < size:
            packet = source.pipe[0]
            piece, packet.raw = packet.raw[: size - len(raw)], packet.raw[size - len(raw) :]
            raw += piece
            if packet.kind == "DATA":
                expected += self._data(packet, len(piece))
            elif not packet.raw:
                expected += self._whole(packet, source)
            if not packet.raw:
                source.pipe.popleft()
        assert merged(unfolded(self.take(self.wire, raw))) == merged(expected)

    def take(self, wire: WireConnection, raw: bytes) -> list[Event]:
        return wire.receive_whole(raw) if self.whole else wire.receive(raw)

    def _data(self, packet: Packet, taken: int) -> list[Event]:
        """What `taken` bytes of a DATA packet mean, the last ones that were taken."""
        total = len(encode("DATA", packet.msgno, packet.body))
        before = total - len(packet.raw) - taken - (total - 5 - len(packet.body))
        piece = packet.body[max(0, before) : max(0, before + taken)]
        self.got[packet.msgno].received += len(piece)
        return [DataReceived(packet.msgno, piece)] if piece else []

    def _whole(self, packet: Packet, source: Side) -> list[Event]:
        msgno, body = packet.msgno, packet.body
        if packet.kind == "HEADER":
            self.heard += 1
            self.got[msgno] = Got(len(body))
            return [MessageStarted(msgno, source.headers[msgno][0])]
        if packet.kind == "EOF":
            del self.got[msgno]
            return [MessageEnded(msgno)]
        if packet.kind == "TXERR":
            del self.got[msgno]
            return [MessageFailed(msgno, body.decode())]
        if packet.kind == "ACK":
            if msgno not in self.out:
                return []  # too late
            self.out[msgno].acked = int(body)
            return [WindowOpened(msgno)]
        if packet.kind == "PING":
            self.queue.append(("PONG", msgno, b""))
            return []
        assert packet.kind == "PONG"
        return [PongReceived(msgno)]

    def consume(self, msgno: int, size: int) -> None:
        self.wire.consumed(msgno, size)
        self.got[msgno].consumed += size

    def breaks(self) -> list[bytes]:
        """What the peer must not send now."""
        later = self.heard + 1
        wrong = [
            b"rubbish\r\n",
            encode("HELLO", 0),
            encode("PING", 0).lower(),
            encode("PING", 0).replace(b"END", b"EnD"),
            encode("HEADER", later, b'{"type":"event"}'),
            encode("HEADER", self.heard, b"[]"),
            encode("HEADER", self.heard, b"{"),
            encode("PING", 0, b"x"),
            encode("PONG", 0, b"x"),
            encode("ACK", len(self.headers), b"1"),
            *(encode(*one) for one in (("DATA", later), ("EOF", later), ("TXERR", later, b"no"))),
        ]
        for msgno in range(self.heard):
            wrong.append(encode("HEADER", msgno, b'{"type":"event"}'))
            if msgno in self.got:
                wrong += encode("EOF", msgno, b"x"), encode("TXERR", msgno)
                wrong += encode("TXERR", msgno, b"0"), encode("DATA", msgno)[:-3] + b"d\r\n"
            else:
                wrong += encode("DATA", msgno, b"x"), encode("EOF", msgno)
                wrong += encode("DATA", msgno), encode("TXERR", msgno, b"no")
        for msgno, out in self.out.items():
            counts = (b"", b"0", b"x", b"%d" % out.acked, b"%d" % (out.sent + 1), b"-1", b"01")
            wrong += [encode("ACK", msgno, count) for count in counts]
        return wrong


def merged(events: list[Event]) -> list[Event]:
    """Pieces of one body that follow each other, put together."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived):
            assert event.data
            if isinstance(last, DataReceived) and last.msgno == event.msgno:
                result[-1] = DataReceived(event.msgno, last.data + event.data)
                continue
        result.append(event)
    return result


class Connection(RuleBasedStateMachine):
    """A client's side, a server's side, and two pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[Role, Side] = {}

    @initialize(window=st.sampled_from(WINDOWS), whole=st.booleans())
    def begin(self, window: int, whole: bool) -> None:
        for role in Role:
            wire = WireConnection(role, max_inflight=window)
            self.sides[role] = Side(role, window, wire, whole=whole)

    # -- what may be sent -----------------------------------------------------------------

    @rule(role=SIDES, data=st.data(), early=st.booleans())
    def open(self, role: Role, data: st.DataObject, early: bool) -> None:
        side = self.sides[role]
        header, fields = data.draw(st.sampled_from(HEADERS[role]))
        msgno = side.wire.open_message(encode_header(header) if early else header)
        assert msgno == len(side.headers)
        side.headers.append((header, fields))
        side.out[msgno] = Sent()
        side.queue.append(("HEADER", msgno, b""))

    def _one_to_send(self, role: Role, data: st.DataObject) -> tuple[Side, int]:
        """A message that `role` may send more of, rather one whose window is open."""
        side = self.sides[role]
        if not side.out:
            self.open(role, data, False)
        able = [msgno for msgno in side.out if side.room(msgno)]
        return side, data.draw(st.sampled_from(able or sorted(side.out)))

    @rule(role=SIDES, data=st.data(), full=st.booleans(), how=HOW)
    def send(self, role: Role, data: st.DataObject, full: bool, how: How) -> None:
        side, msgno = self._one_to_send(role, data)
        room = side.room(msgno)
        size = room if full else data.draw(st.integers(min(room, 1), room))
        body = side.body(msgno, size)
        side.wire.send_data(msgno, body)
        side.out[msgno].sent += size
        for at in range(0, size, PIECE):
            side.queue.append(("DATA", msgno, body[at : at + PIECE]))
        self.move(role, data, how)

    @rule(role=SIDES, data=st.data(), text=st.none() | TEXTS | st.just(LONG), how=HOW)
    def finish(self, role: Role, data: st.DataObject, text: str | None, how: How) -> None:
        side = self.sides[role]
        if len(side.out) <= data.draw(st.integers(0, 3)):
            return  # let some live for longer
        msgno = data.draw(st.sampled_from(sorted(side.out)))
        if text is None:
            side.end(msgno)
        else:
            side.fail(msgno, text)
        self.move(role, data, how)

    @rule(role=SIDES, data=st.data(), early=st.booleans(), how=HOW)
    def send_whole(self, role: Role, data: st.DataObject, early: bool, how: How) -> None:
        side = self.sides[role]
        header, fields = data.draw(st.sampled_from(HEADERS[role]))
        size = data.draw(st.integers(0, min(side.window, 60)) | st.just(side.window))
        body = BODIES[:size]
        msgno = side.wire.send_whole(encode_header(header) if early else header, body)
        assert msgno == len(side.headers)
        side.headers.append((header, fields))
        side.queue.append(("HEADER", msgno, b""))
        for at in range(0, size, PIECE):
            side.queue.append(("DATA", msgno, body[at : at + PIECE]))
        side.queue.append(("EOF", msgno, b""))
        self.move(role, data, how)

    @rule(role=SIDES, number=st.integers(0, LARGEST_NUMBER))
    def ping(self, role: Role, number: int) -> None:
        side = self.sides[role]
        side.wire.ping(number)
        side.queue.append(("PING", number, b""))

    @rule(role=SIDES, data=st.data())
    def empty_data(self, role: Role, data: st.DataObject) -> None:
        """What other implementations may send, and ours does not: it says nothing."""
        side, msgno = self._one_to_send(role, data)
        side.flush()
        side.pipe.append(Packet("DATA", msgno, b"", encode("DATA", msgno)))

    # -- receiving ------------------------------------------------------------------------

    @rule(role=SIDES, data=st.data(), how=HOW)
    def move(self, role: Role, data: st.DataObject, how: How) -> None:
        """What `role` has sent goes on its way, that far."""
        source, target = self.sides[role], self.sides[OTHER[role]]
        if how is How.STAYS:
            return
        source.flush()
        size = source.under_way
        if how is How.SOME and size:
            size = data.draw(st.integers(1, min(size, 60)) | st.integers(1, size))
        if how is not How.LEAVES:
            target.receive(source, size)
        if how is How.CONSUMED:
            for msgno in list(target.got):
                self._consume(target, msgno, data)

    @rule(role=SIDES, data=st.data(), how=HOW)
    def consume(self, role: Role, data: st.DataObject, how: How) -> None:
        side = self.sides[role]
        if side.got:
            unread = [n for n, got in side.got.items() if got.received > got.consumed]
            msgno = data.draw(st.sampled_from(unread or sorted(side.got)))
            self._consume(side, msgno, data)
        over = [n for n in range(side.heard) if n not in side.got]
        if over:  # its sender has forgotten it, so this is nothing
            side.wire.consumed(data.draw(st.sampled_from(over)), 9)
        self.move(role, data, how)

    def _consume(self, side: Side, msgno: int, data: st.DataObject) -> None:
        most = side.got[msgno].received - side.got[msgno].consumed
        side.consume(msgno, data.draw(st.integers(min(most, 1), most)))

    # -- what must not be, and changes nothing --------------------------------------------

    @rule(role=SIDES, data=st.data(), header=st.sampled_from(UNSENDABLE), beyond=BEYOND)
    def what_must_not_be_sent(
        self, role: Role, data: st.DataObject, header: Header, beyond: int
    ) -> None:
        """That it had no effect is for the invariants and the next flush to see."""
        side, wire = self.sides[role], self.sides[role].wire
        closed = [-1, *(n for n in range(len(side.headers) + 2) if n not in side.out)]
        over = data.draw(st.sampled_from(closed))
        calls: list[Callable[[], object]] = [
            lambda: wire.open_message(header),
            lambda: wire.send_whole(header, b"{}"),
            lambda: wire.send_whole(EventHeader(), bytes(side.window + beyond)),
            lambda: wire.ping(-beyond),
            lambda: wire.ping(LARGEST_NUMBER + beyond),
            lambda: wire.send_data(over, b"x"),
            lambda: wire.send_data(over, b""),
            lambda: wire.end_message(over),
            lambda: wire.fail_message(over, "no"),
            lambda: wire.window(over),
        ]
        if side.out:
            msgno = data.draw(st.sampled_from(sorted(side.out)))
            room = side.room(msgno)
            calls += (
                lambda: wire.send_data(msgno, bytes(room + 1)),
                lambda: wire.send_data(msgno, bytes(room + beyond)),
                lambda: wire.fail_message(msgno, ""),
                lambda: wire.fail_message(msgno, "0"),
            )
        if side.got:
            unread = data.draw(st.sampled_from(sorted(side.got)))
            left = side.got[unread].received - side.got[unread].consumed
            calls += (
                lambda: wire.consumed(unread, left + beyond),
                lambda: wire.consumed(unread, -beyond),
            )
        for call in calls:
            with pytest.raises(LocalProtocolError):
                call()

    @rule(role=SIDES)
    def what_the_peer_must_not_send(self, role: Role) -> None:
        """On copies, since it is the end of them."""
        side, source = self.sides[role], self.sides[OTHER[role]]
        if source.pipe and source.pipe[0].begun:
            return
        for raw in side.breaks():
            wire = copy.deepcopy(side.wire)
            (event,) = side.take(wire, raw + encode("PONG", 0))
            assert isinstance(event, ProtocolBroken), raw
            assert side.take(wire, encode("PONG", 0)) == []

    # -- what always holds ----------------------------------------------------------------

    @invariant()
    def each_side_knows_what_it_must(self) -> None:
        for role, side in self.sides.items():
            wire = side.wire
            assert wire.open_outgoing == len(side.out)
            assert wire.open_incoming == len(side.got)
            for msgno in side.out:
                assert wire.window(msgno) == side.room(msgno)
            assert wire.has_data_to_send == bool(side.queue or side.acks())
            source = self.sides[OTHER[role]]
            begun = bool(source.pipe and source.pipe[0].begun)
            assert wire.at_boundary == (not begun and not side.got)
            assert wire._header_bytes == sum(got.header_size for got in side.got.values())

    def teardown(self) -> None:
        """All messages end and all bytes arrive: nothing is left."""
        for side in self.sides.values():
            for msgno in list(side.out):
                side.end(msgno)
        while any(side.queue or side.acks() or side.pipe for side in self.sides.values()):
            for role, side in self.sides.items():
                side.flush()
                self.sides[OTHER[role]].receive(side, side.under_way)
        self.each_side_knows_what_it_must()
        for side in self.sides.values():
            wire = side.wire
            assert (side.out, side.got) == ({}, {})
            assert (wire._in, wire._out, wire._ack_due, wire._queue) == ({}, {}, set(), [])
            assert wire._header_bytes == 0
            assert wire.at_boundary
            assert not wire.has_data_to_send


TestConnection = pytest.mark.timeout(400)(Connection.TestCase)  # a failure is made small first
TestConnection.settings = settings(
    max_examples=60, stateful_step_count=70, deadline=None, report_multiple_bugs=False
)
