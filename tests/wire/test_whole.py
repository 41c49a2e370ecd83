"""Messages that come at once are taken at once, and mean what they mean packet by packet."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unfolding import unfolded

from scamp.errors import LocalProtocolError
from scamp.limits import MAX_OPEN_MESSAGES, MAX_PACKET_BODY, MAX_REQUEST_ID
from scamp.wire import (
    DataReceived,
    EncodedHeader,
    Event,
    MessageStarted,
    MessageWhole,
    PacketType,
    ProtocolBroken,
    ReplyHeader,
    RequestHeader,
    RequestTemplate,
    Role,
    WireConnection,
    encode_packet,
)

ENDED = 3
"""Messages of our own that are over, so that an ACK for one means nothing."""


def machine(role: Role) -> WireConnection:
    """One that has sent ENDED messages, and has one open."""
    wire = WireConnection(role)
    for _ in range(ENDED):
        wire.send_whole(RequestHeader("a.b", 1), b"{}")
    wire.send_data(wire.open_message(RequestHeader("a.b", 1)), b"abc")
    wire.data_to_send()
    return wire


def header(msgno: int, body: bytes) -> bytes:
    return encode_packet(PacketType.HEADER, msgno, body)


def message(msgno: int, head: bytes, body: bytes) -> bytes:
    return b"".join(
        (
            header(msgno, head),
            encode_packet(PacketType.DATA, msgno, body),
            encode_packet(PacketType.EOF, msgno),
        )
    )


HEADS: Final = (
    b'{"type":"reply","request_id":7}',
    b'{"type":"reply","request_id":0}\n',
    b'{"type":"reply","request_id":123456789012345678}',
    b'{"type":"reply","request_id":18446744073709551616}',
    b'{"type":"reply","request_id":-1}',
    b'{"type":"reply","request_id":"7"}',
    b'{"type":"reply","request_id":7,"error":"no","error_code":"x","more":[1]}\n',
    b'{"request_id":7}',
    b'{"type":"request","action":"a.b","request_id":1,"ticket":"1,2,3"}',
    b'{"type":"event"}',
    b'{\n"type":"reply","request_id":7}',
    b'{"type":"reply","request_id":"END\\r\\n"}',
    b"{}",
    # wrong
    b'{"type":"reply","request_id":007}',
    b'{"type":"reply","request_id":7}\n\n',
    b'{"type":"reply","request_id":7} ',
    b'{"type":"reply","request_id":[]}',
    b'{"type":"reply","request_id":7}}',
    b"[]",
    b"{",
    b"",
)
BODIES = st.binary(max_size=40) | st.sampled_from(
    [b"END\r\n", b"END\r\nEOF 0 0\r\nEND\r\n", b"{}", b"DATA 0 3\r\nabcEND\r\n"]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Mostly whole messages, some in pieces or broken, with ACKs and PINGs between them."""
    parts: list[bytes] = []
    msgno = 0
    for _ in range(draw(st.integers(0, 6))):
        head, body = draw(st.sampled_from(HEADS)), draw(BODIES)
        number = msgno if draw(st.integers(0, 9)) else draw(st.integers(0, 9))
        kind = draw(st.integers(0, 9))
        if kind == 0:
            parts.append(encode_packet(PacketType.ACK, draw(st.integers(0, ENDED + 1)), b"2"))
        elif kind == 1:
            parts.append(encode_packet(PacketType.PING, number))
        elif kind == 2:
            parts.append(b"ACK 1 2\r\n00END\r\n")  # of one that is over: whatever it says
        elif kind == 3:
            parts.append(header(number, head) + encode_packet(PacketType.EOF, number))
            msgno += 1
        elif kind == 4:
            pieces = [encode_packet(PacketType.DATA, number, one) for one in (body, b"x")]
            parts.append(header(number, head) + b"".join(pieces))
            parts.append(encode_packet(PacketType.TXERR, number, b"no"))
            msgno += 1
        else:
            parts.append(message(number, head, body))
            msgno += 1
    raw = b"".join(parts)
    for _ in range(draw(st.integers(0, 4)) // 3):  # seldom
        if raw:
            at = draw(st.integers(0, len(raw) - 1))
            with_ = draw(st.sampled_from([b"", b"0", b"1", b" ", b"\n", b"E", b"00"]))
            raw = raw[:at] + with_ + raw[at + 1 :]
    return raw


def merged(events: list[Event]) -> list[object]:
    """Pieces of one body that follow each other, put together; errors as text."""
    result: list[object] = []
    for event in events:
        if isinstance(event, ProtocolBroken):
            result.append(str(event.error))
        elif not isinstance(event, DataReceived):
            result.append(event)
        elif result and isinstance(last := result[-1], DataReceived) and last[0] == event.msgno:
            result[-1] = DataReceived(event.msgno, last.data + event.data)
        else:
            result.append(event)
    return result


def state(wire: WireConnection) -> object:
    return (
        *(wire.open_incoming, wire.open_outgoing, wire.at_boundary, wire.unread, wire._broken),
        *(wire._next_in, wire._next_out, wire.has_data_to_send),
        {msgno: one.received for msgno, one in wire._in.items()},
        {msgno: one.acked for msgno, one in wire._out.items()},
    )


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("head", HEADS)
def test_every_header_means_the_same_in_either_way(head: bytes, role: Role) -> None:
    raw = message(0, head, b"{}") + message(1, b"{}", b"")
    slow, fast = machine(role), machine(role)
    assert merged(unfolded(fast.receive_whole(raw))) == merged(slow.receive(raw))
    assert state(fast) == state(slow)


@settings(max_examples=400, deadline=None)
@given(
    raw=streams(),
    role=st.sampled_from(Role),
    cuts=st.none() | st.lists(st.integers(0, 400), max_size=6),
    limit=st.sampled_from([1, 2, 3, 4, 5, 512]),
)
def test_the_fast_way_says_what_the_slow_one_says(
    raw: bytes, role: Role, cuts: list[int] | None, limit: int
) -> None:
    """At every step, whole, byte by byte, or cut anywhere, and however much is taken at once."""
    slow, fast = machine(role), machine(role)
    inner = range(1, len(raw)) if cuts is None else sorted(min(cut, len(raw)) for cut in cuts)
    for start, stop in pairwise([0, *inner, len(raw)]):
        piece = raw[start:stop]
        while True:
            expected = slow.receive(piece, limit)
            got = fast.receive_whole(piece, limit)
            assert merged(unfolded(got)) == merged(expected)
            assert state(fast) == state(slow)
            if not slow.unread:
                break
            piece = b""
    assert fast.data_to_send() == slow.data_to_send()


@pytest.mark.parametrize("role", Role)
def test_what_comes_at_once_is_one_event(role: Role) -> None:
    raw = b"".join(
        message(number, b'{"type":"reply","request_id":%d}' % number, b"x") for number in range(4)
    )
    acks = encode_packet(PacketType.ACK, 0, b"2"), encode_packet(PacketType.ACK, 1, b"2")
    events = machine(role).receive_whole(acks[0] + raw + acks[1])
    assert events == [MessageWhole(number, ReplyHeader(number), b"x") for number in range(4)]


def test_what_is_cut_off_is_taken_at_once_when_the_rest_is_here() -> None:
    raw = message(0, b'{"type":"reply","request_id":7}', b"abc")
    for at in range(1, raw.index(b"DATA 0 3\r\n") + 8):
        wire = machine(Role.CLIENT)
        begun = wire.receive_whole(raw[:at])
        rest = wire.receive_whole(raw[at:])
        assert unfolded([*begun, *rest]) == unfolded(machine(Role.CLIENT).receive_whole(raw))
    assert isinstance(begun[0], MessageStarted)


def test_no_more_than_the_limit_of_packets_is_taken_at_once() -> None:
    wire = machine(Role.CLIENT)
    raw = b"".join(message(number, b'{"type":"reply","request_id":7}', b"x") for number in range(9))
    taken = [len(wire.receive_whole(raw, 6))]
    while wire.unread:
        taken.append(len(wire.receive_whole(b"", 6)))
    assert taken == [2, 2, 2, 2, 1]


def test_too_many_open_at_once_break_the_connection_in_either_way() -> None:
    wire = WireConnection(Role.SERVER)
    head = b'{"action":"a.b","request_id":1}'
    for number in range(MAX_OPEN_MESSAGES):
        wire.receive_whole(header(number, head))
    (event,) = wire.receive_whole(message(MAX_OPEN_MESSAGES, head, b"{}"))
    assert isinstance(event, ProtocolBroken)
    assert "open at once" in str(event.error)


# -- the other direction ------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    request_id=st.sampled_from([-1, 0, 1, 7, MAX_REQUEST_ID, MAX_REQUEST_ID + 1, True, "7", 1.0]),
    ticket=st.none() | st.text() | st.sampled_from([7, b"1", "\ud800", "x" * MAX_PACKET_BODY]),
    client_id=st.none() | st.sampled_from([-1, 0, 5, (1 << 63) - 1, 1 << 63, True, "5"]),
    version=st.sampled_from([1, 7]),
)
def test_a_template_gives_what_its_header_would(
    request_id: int, ticket: str | None, client_id: int | None, version: int
) -> None:
    template = RequestTemplate("Shop.buy", version, "jsonstore")
    whole = RequestHeader(
        "Shop.buy", request_id, version, "jsonstore", ticket=ticket, client_id=client_id
    )
    try:
        expected = EncodedHeader(whole)
    except LocalProtocolError:
        with pytest.raises(LocalProtocolError):
            template.encode(request_id, ticket, client_id)
        return
    encoded = template.encode(request_id, ticket, client_id)
    assert isinstance(encoded, EncodedHeader)
    assert json.loads(encoded) == json.loads(expected)


@pytest.mark.parametrize("wrong", [("", 1, "json"), ("a.b", 0, "json"), ("a.b", 1, "")])
def test_a_template_of_what_cannot_be_sent_cannot_be_made(wrong: tuple[str, int, str]) -> None:
    with pytest.raises(LocalProtocolError):
        RequestTemplate(*wrong)


def test_a_template_keeps_no_ticket_and_shows_none() -> None:
    template = RequestTemplate("a.b", 1, "json")
    template.encode(1, "a secret", 3)
    assert "secret" not in repr([getattr(template, name) for name in template.__slots__])
