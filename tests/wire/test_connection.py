"""One side of a connection: messages, ACKs, heartbeats, and every way to break the rules."""

from __future__ import annotations

import pytest

from scamp.errors import LocalProtocolError, RemoteProtocolError
from scamp.limits import (
    MAX_INFLIGHT,
    MAX_OPEN_HEADERS,
    MAX_OPEN_MESSAGES,
    MAX_PACKET_BODY,
)
from scamp.wire import (
    DataReceived,
    EncodedHeader,
    Event,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    PongReceived,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    Role,
    WindowOpened,
    WireConnection,
)

REPLY = EncodedHeader(ReplyHeader(1))


def packet(kind: str, msgno: int, body: bytes = b"") -> bytes:
    return b"%b %d %d\r\n%bEND\r\n" % (kind.encode(), msgno, len(body), body)


def request(msgno: int = 0) -> bytes:
    return packet("HEADER", msgno, b'{"action":"a.b","request_id":1}')


def server() -> WireConnection:
    return WireConnection(Role.SERVER)


def sender(size: int = 0) -> WireConnection:
    """A side with message 0 open and `size` bytes of it sent."""
    wire = WireConnection(Role.CLIENT)
    assert wire.open_message(RequestHeader("a.b", 1)) == 0
    if size:
        wire.send_data(0, bytes(size))
    wire.data_to_send()
    return wire


def broken(events: list[Event]) -> RemoteProtocolError:
    assert events
    assert isinstance(events[-1], ProtocolBroken)
    assert not any(isinstance(event, ProtocolBroken) for event in events[:-1])
    return events[-1].error


# -- receiving ----------------------------------------------------------------------------


def test_a_message_is_header_data_and_eof() -> None:
    events = server().receive(request() + packet("DATA", 0, b"xy") + packet("EOF", 0))
    assert events == [
        MessageStarted(0, RequestHeader("a.b", 1)),
        DataReceived(0, b"xy"),
        MessageEnded(0),
    ]


def test_a_message_may_fail() -> None:
    events = server().receive(request() + packet("TXERR", 0, b"gone \xff"))
    assert events[-1] == MessageFailed(0, "gone \ufffd")


def test_messages_may_interleave() -> None:
    raw = request(0) + request(1) + packet("DATA", 1, b"b") + packet("DATA", 0, b"a")
    raw += packet("EOF", 1) + packet("EOF", 0)
    kinds = [(type(event), event.msgno) for event in server().receive(raw)]  # type: ignore[union-attr]
    assert kinds == [
        (MessageStarted, 0),
        (MessageStarted, 1),
        (DataReceived, 1),
        (DataReceived, 0),
        (MessageEnded, 1),
        (MessageEnded, 0),
    ]


def test_a_header_without_type_means_what_the_peer_sends() -> None:
    raw = packet("HEADER", 0, b'{"request_id":1}')
    assert WireConnection(Role.CLIENT).receive(raw) == [MessageStarted(0, ReplyHeader(1))]
    (started,) = WireConnection(Role.SERVER).receive(raw)
    assert isinstance(started, MessageStarted)
    assert isinstance(started.header, RequestHeader)


OPEN = request()
BREAKS = {
    "empty data without a message": b"DATA 7 0\r\nEND\r\n",
    "unknown packet type": packet("HELLO", 0),
    "first message is not 0": request(1),
    "message number skipped": request(0) + request(2),
    "message number repeated while open": request(0) + request(0),
    "message number repeated after its end": request(0) + packet("EOF", 0) + request(0),
    "header is not JSON": packet("HEADER", 0, b"{"),
    "header is empty": packet("HEADER", 0),
    "DATA before HEADER": packet("DATA", 0, b"x"),
    "DATA after EOF": OPEN + packet("EOF", 0) + packet("DATA", 0, b"x"),
    "DATA after TXERR": OPEN + packet("TXERR", 0, b"e") + packet("DATA", 0, b"x"),
    "DATA for another message": OPEN + packet("DATA", 1, b"x"),
    "EOF before HEADER": packet("EOF", 0),
    "EOF twice": OPEN + packet("EOF", 0) + packet("EOF", 0),
    "EOF with a body": OPEN + packet("EOF", 0, b"x"),
    "TXERR before HEADER": packet("TXERR", 0, b"e"),
    "TXERR after EOF": OPEN + packet("EOF", 0) + packet("TXERR", 0, b"e"),
    "TXERR without text": OPEN + packet("TXERR", 0),
    "TXERR of 0": OPEN + packet("TXERR", 0, b"0"),
    "ACK for what was never sent": packet("ACK", 0, b"1"),
    "PING with a body": packet("PING", 0, b"x"),
    "PONG with a body": packet("PONG", 0, b"x"),
}


@pytest.mark.parametrize("raw", BREAKS.values(), ids=BREAKS)
def test_breaking_a_rule_ends_the_connection(raw: bytes) -> None:
    wire = server()
    broken(wire.receive(raw))
    assert wire.receive(request()) == []


@pytest.mark.parametrize("raw", BREAKS.values(), ids=BREAKS)
def test_breaking_a_rule_byte_by_byte_ends_it_too(raw: bytes) -> None:
    wire = server()
    events: list[Event] = []
    for byte in raw:
        events += wire.receive(bytes((byte,)))
    broken(events)


def test_an_empty_data_packet_of_an_open_message_says_nothing() -> None:
    events = server().receive(request() + packet("DATA", 0, b"") + packet("EOF", 0, b""))
    assert events == [MessageStarted(0, RequestHeader("a.b", 1)), MessageEnded(0)]


def test_what_came_before_the_error_stands() -> None:
    events = server().receive(request() + packet("DATA", 0, b"x") + b"nonsense\n")
    assert events[:2] == [MessageStarted(0, RequestHeader("a.b", 1)), DataReceived(0, b"x")]
    broken(events)


def test_more_open_messages_than_the_cap_end_it() -> None:
    wire = server()
    for number in range(MAX_OPEN_MESSAGES):
        (event,) = wire.receive(request(number))
        assert isinstance(event, MessageStarted)
    assert "open at once" in str(broken(wire.receive(request(MAX_OPEN_MESSAGES))))


def test_ended_messages_do_not_count_against_the_cap() -> None:
    wire = server()
    for number in range(MAX_OPEN_MESSAGES + 10):
        events = wire.receive(request(number) + packet("EOF", number))
        assert events[-1] == MessageEnded(number)
    assert wire.open_incoming == 0


def large_request(msgno: int) -> bytes:
    body = b'{"action":"a.b","request_id":1,"x":"%b"}' % bytes(100_000).replace(b"\0", b"x")
    return packet("HEADER", msgno, body)


def test_more_bytes_of_open_headers_than_the_cap_end_it() -> None:
    wire = server()
    fit = MAX_OPEN_HEADERS // 100_100
    for number in range(fit):
        (event,) = wire.receive(large_request(number))
        assert isinstance(event, MessageStarted)
    assert "HEADERs" in str(broken(wire.receive(large_request(fit) + large_request(fit + 1))))


@pytest.mark.parametrize("end", [("EOF", b""), ("TXERR", b"no")])
def test_headers_of_ended_messages_do_not_count_against_the_cap(end: tuple[str, bytes]) -> None:
    wire = server()
    for number in range(MAX_OPEN_HEADERS // 100_000 + 10):
        events = wire.receive(large_request(number) + packet(end[0], number, end[1]))
        assert len(events) == 2
        assert not isinstance(events[-1], ProtocolBroken)


def test_boundary_is_known() -> None:
    wire = server()
    assert wire.at_boundary
    wire.receive(request())
    assert not wire.at_boundary
    wire.receive(packet("EOF", 0))
    assert wire.at_boundary
    wire.receive(b"EO")
    assert not wire.at_boundary


# -- acknowledging ------------------------------------------------------------------------


def test_nothing_is_acknowledged_before_it_is_consumed() -> None:
    wire = server()
    wire.receive(request() + packet("DATA", 0, b"xyz"))
    assert not wire.has_data_to_send
    wire.consumed(0, 2)
    assert wire.data_to_send() == packet("ACK", 0, b"2")
    wire.consumed(0, 1)
    assert wire.data_to_send() == packet("ACK", 0, b"3")


def test_acks_are_coalesced_and_cumulative() -> None:
    wire = server()
    for _ in range(5):
        wire.receive((request() if wire.open_incoming == 0 else b"") + packet("DATA", 0, b"ab"))
        wire.consumed(0, 2)
    assert wire.data_to_send() == packet("ACK", 0, b"10")
    assert wire.data_to_send() == b""


def test_acks_go_before_bodies() -> None:
    wire = server()
    wire.receive(request() + packet("DATA", 0, b"ab"))
    wire.open_message(REPLY)
    wire.consumed(0, 2)
    assert wire.data_to_send() == packet("ACK", 0, b"2") + packet("HEADER", 0, REPLY)


@pytest.mark.parametrize("count", [4, -1])
def test_more_than_has_come_cannot_be_acknowledged(count: int) -> None:
    wire = server()
    wire.receive(request() + packet("DATA", 0, b"xyz"))
    with pytest.raises(LocalProtocolError, match="of 3 unread"):
        wire.consumed(0, count)
    assert not wire.has_data_to_send
    wire.consumed(0, 2)
    with pytest.raises(LocalProtocolError, match="of 1 unread"):
        wire.consumed(0, 2)
    assert wire.data_to_send() == packet("ACK", 0, b"2")


def test_an_ended_message_is_not_acknowledged() -> None:
    wire = server()
    wire.receive(request() + packet("DATA", 0, b"ab") + packet("EOF", 0))
    wire.consumed(0, 2)
    assert wire.data_to_send() == b""


def test_a_message_that_ended_since_is_not_acknowledged() -> None:
    wire = server()
    wire.receive(request() + packet("DATA", 0, b"ab"))
    wire.consumed(0, 2)
    wire.receive(packet("EOF", 0))
    assert not wire.has_data_to_send
    assert wire.data_to_send() == b""


def test_an_ack_opens_the_window() -> None:
    wire = sender(MAX_INFLIGHT)
    assert wire.window(0) == 0
    assert wire.receive(packet("ACK", 0, b"100")) == [WindowOpened(0)]
    assert wire.window(0) == 100
    assert wire.receive(packet("ACK", 0, b"%d" % MAX_INFLIGHT)) == [WindowOpened(0)]
    assert wire.window(0) == MAX_INFLIGHT


@pytest.mark.parametrize("body", [b"", b"0", b"01", b"-1", b"+1", b"1 ", b" 1", b"x", b"1" * 20])
def test_a_malformed_ack_is_an_error(body: bytes) -> None:
    broken(sender(100).receive(packet("ACK", 0, body)))


def test_an_ack_must_advance() -> None:
    wire = sender(100)
    wire.receive(packet("ACK", 0, b"50"))
    assert "no advance" in str(broken(wire.receive(packet("ACK", 0, b"50"))))


def test_an_ack_must_not_go_back() -> None:
    wire = sender(100)
    wire.receive(packet("ACK", 0, b"50"))
    broken(wire.receive(packet("ACK", 0, b"49")))


def test_an_ack_must_not_exceed_what_was_sent() -> None:
    assert "only 100" in str(broken(sender(100).receive(packet("ACK", 0, b"101"))))


@pytest.mark.parametrize("how", ["end", "fail"])
def test_an_ack_after_the_end_is_ignored(how: str) -> None:
    wire = sender(100)
    if how == "end":
        wire.end_message(0)
    else:
        wire.fail_message(0, "gone")
    assert wire.receive(packet("ACK", 0, b"100") * 2) == []


# -- heartbeats ---------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_number() -> None:
    wire = server()
    assert wire.receive(packet("PING", 77)) == []
    assert wire.data_to_send() == packet("PONG", 77)


def test_a_pong_is_told_and_not_answered() -> None:
    wire = server()
    assert wire.receive(packet("PONG", 77)) == [PongReceived(77)]
    assert not wire.has_data_to_send


def test_a_ping_between_the_parts_of_a_message_is_answered() -> None:
    wire = server()
    wire.receive(request() + packet("PING", 1) + packet("DATA", 0, b"x"))
    assert wire.data_to_send() == packet("PONG", 1)


def test_a_ping_of_ours() -> None:
    wire = server()
    wire.ping(3)
    assert wire.data_to_send() == packet("PING", 3)


# -- sending ------------------------------------------------------------------------------


def test_messages_are_numbered_from_0() -> None:
    wire = server()
    assert [wire.open_message(REPLY) for _ in range(3)] == [0, 1, 2]
    assert wire.open_outgoing == 3


def packets_as_rust_reads(raw: bytes) -> int:
    """How many packets the Rust edition takes from `raw`. It reads 4 KiB at a time, behind what it
    has of a packet that is not complete, and gives up when both exceed 131,172 bytes."""
    buffered, count = b"", 0
    for at in range(0, len(raw), 4096):
        buffered += raw[at : at + 4096]
        assert len(buffered) <= 131_072 + 100, "Rust closes the connection"
        while (line := buffered.find(b"\r\n")) >= 0:
            end = line + 2 + int(buffered[:line].split()[2]) + len(b"END\r\n")
            if end > len(buffered):
                break
            count += 1
            buffered = buffered[end:]
    return count


@pytest.mark.parametrize("before", [1, 1000, 3000])
def test_a_body_is_cut_into_packets_that_every_peer_takes(before: int) -> None:
    wire = WireConnection(Role.SERVER, max_inflight=10 * MAX_PACKET_BODY)
    wire.open_message(REPLY)
    wire.send_data(0, bytes(before))
    wire.send_data(0, bytes(4 * MAX_PACKET_BODY))
    raw = wire.data_to_send()
    assert raw.count(b"DATA 0 65536\r\n") == 8
    assert packets_as_rust_reads(raw) == 10


def test_an_empty_body_sends_no_data() -> None:
    wire = server()
    wire.open_message(REPLY)
    wire.send_data(0, b"")
    wire.end_message(0)
    assert wire.data_to_send() == packet("HEADER", 0, REPLY) + packet("EOF", 0)


def test_more_than_the_window_is_refused() -> None:
    wire = sender(MAX_INFLIGHT - 1)
    with pytest.raises(LocalProtocolError, match="window"):
        wire.send_data(0, b"xy")
    wire.send_data(0, b"x")


@pytest.mark.parametrize("text", ["", "0"])
def test_a_txerr_must_say_something(text: str) -> None:
    wire = sender()
    with pytest.raises(LocalProtocolError):
        wire.fail_message(0, text)
    wire.end_message(0)  # it is still open


def test_a_long_txerr_is_cut() -> None:
    wire = sender()
    wire.fail_message(0, "x" * (MAX_PACKET_BODY + 1))
    assert wire.data_to_send().startswith(b"TXERR 0 131072\r\n")


def test_a_long_txerr_is_not_cut_within_a_character() -> None:
    wire = sender()
    wire.fail_message(0, "x" + "\u20ac" * MAX_PACKET_BODY)
    line, text = wire.data_to_send().split(b"\r\n", 1)
    assert MAX_PACKET_BODY - 3 < int(line.split()[2]) <= MAX_PACKET_BODY
    assert text.removesuffix(b"END\r\n").decode() == "x" + "\u20ac" * (MAX_PACKET_BODY // 3)


def test_nothing_is_sent_after_the_end() -> None:
    wire = sender()
    wire.end_message(0)
    for call in (
        lambda: wire.send_data(0, b"x"),
        lambda: wire.end_message(0),
        lambda: wire.fail_message(0, "e"),
        lambda: wire.window(0),
    ):
        with pytest.raises(LocalProtocolError):
            call()


def test_a_header_too_long_is_refused_and_takes_no_number() -> None:
    wire = server()
    with pytest.raises(LocalProtocolError):
        wire.open_message(RequestHeader("x" * MAX_PACKET_BODY, 1))
    assert wire.open_message(REPLY) == 0
