"""Packets that we send, as types: their bytes, and what cannot be built."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scamp.errors import LocalProtocolError
from scamp.limits import MAX_DATA_SENT, MAX_DATA_SIZE, MAX_INFLIGHT, MAX_PACKET_BODY
from scamp.wire import (
    MAX_NUMBER,
    AckPacket,
    DataPacket,
    EofPacket,
    HeaderPacket,
    OutgoingPacket,
    Packet,
    PacketReader,
    PacketType,
    PingPacket,
    PongPacket,
    ReplyHeader,
    RequestHeader,
    Role,
    TxErrPacket,
    WireConnection,
    encode_header,
)

REPLY = ReplyHeader(7)
PACKETS: list[tuple[OutgoingPacket, bytes]] = [
    (HeaderPacket(3, REPLY), b'HEADER 3 31\r\n{"type":"reply","request_id":7}END\r\n'),
    (
        HeaderPacket(3, encode_header(REPLY)),
        b'HEADER 3 31\r\n{"type":"reply","request_id":7}END\r\n',
    ),
    (DataPacket(3, b"xy"), b"DATA 3 2\r\nxyEND\r\n"),
    (EofPacket(3), b"EOF 3 0\r\nEND\r\n"),
    (TxErrPacket(3, "l\u20ac"), b"TXERR 3 4\r\nl\xe2\x82\xacEND\r\n"),
    (AckPacket(3, 10), b"ACK 3 2\r\n10END\r\n"),
    (PingPacket(0), b"PING 0 0\r\nEND\r\n"),
    (PongPacket(MAX_NUMBER), b"PONG 9999999999999999999 0\r\nEND\r\n"),
]


@pytest.mark.parametrize(("packet", "raw"), PACKETS)
def test_a_packet_is_encoded_as_in_the_table(packet: OutgoingPacket, raw: bytes) -> None:
    assert packet.encode() == raw
    got: list[Packet] = []
    PacketReader().feed(raw, got)
    assert got == [Packet(packet.kind, packet.msgno, packet.body)]


def test_every_packet_type_has_a_type() -> None:
    assert {packet.kind for packet, _ in PACKETS} == set(PacketType)


WRONG: list[Callable[[], object]] = [
    lambda: HeaderPacket(0, RequestHeader("", 1)),
    lambda: HeaderPacket(0, b"{}"),  # type: ignore[arg-type]
    lambda: DataPacket(0, b""),
    lambda: DataPacket(0, bytes(MAX_DATA_SENT + 1)),
    lambda: DataPacket(0, "text"),  # type: ignore[arg-type]
    lambda: DataPacket(0, bytearray(b"x")),  # type: ignore[arg-type]
    lambda: TxErrPacket(0, ""),
    lambda: TxErrPacket(0, "0"),
    lambda: TxErrPacket(0, b"text"),  # type: ignore[arg-type]
    lambda: TxErrPacket(0, "x" * (MAX_PACKET_BODY + 1)),
    lambda: AckPacket(0, 0),
    lambda: AckPacket(0, -1),
    lambda: AckPacket(0, MAX_DATA_SIZE + 1),
    lambda: AckPacket(0, True),
    lambda: AckPacket(0, 1.0),  # type: ignore[arg-type]
]
NUMBERS: list[object] = [-1, MAX_NUMBER + 1, True, 1.0, "1", None]
WITH_NUMBER: list[Callable[[int], object]] = [
    lambda number: HeaderPacket(number, REPLY),
    lambda number: DataPacket(number, b"x"),
    EofPacket,
    lambda number: TxErrPacket(number, "text"),
    lambda number: AckPacket(number, 1),
    PingPacket,
    PongPacket,
]


@pytest.mark.parametrize("make", WRONG)
def test_what_no_peer_may_be_sent_cannot_be_built(make: Callable[[], object]) -> None:
    with pytest.raises(LocalProtocolError):
        make()


@pytest.mark.parametrize("make", WITH_NUMBER)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_no_packet_has_room_for_is_refused(
    make: Callable[[int], object], number: int
) -> None:
    with pytest.raises(LocalProtocolError):
        make(number)


def test_a_packet_cannot_be_changed() -> None:
    for packet, _ in PACKETS:
        with pytest.raises(AttributeError):
            packet.msgno = 1  # type: ignore[misc]


def test_bytes_written_directly_are_those_of_the_types() -> None:
    wire = WireConnection(Role.CLIENT, max_inflight=MAX_DATA_SENT + 10)
    header = RequestHeader("a.b", 1, ticket="T", extra={"traceparent": "00"})
    body = bytes(range(256)) * (MAX_DATA_SENT // 256) + b"rest"
    for msgno in range(12):
        assert wire.open_message(header) == msgno
        wire.send_data(msgno, body)
        wire.end_message(msgno)
        assert wire.data_to_send() == b"".join(
            packet.encode()
            for packet in (
                HeaderPacket(msgno, header),
                DataPacket(msgno, body[:MAX_DATA_SENT]),
                DataPacket(msgno, b"rest"),
                EofPacket(msgno),
            )
        )


def test_the_rest_of_what_a_connection_sends_is_typed_too() -> None:
    wire = WireConnection(Role.SERVER)
    wire.open_message(REPLY)
    wire.ping(4)
    wire.fail_message(0, "no")
    wire.receive(b'HEADER 0 16\r\n{"action":"a.b"}END\r\nDATA 0 3\r\nabcEND\r\nPING 9 0\r\nEND\r\n')
    wire.consumed(0, 3)
    assert wire.data_to_send() == b"".join(
        packet.encode()
        for packet in (
            AckPacket(0, 3),
            HeaderPacket(0, REPLY),
            PingPacket(4),
            TxErrPacket(0, "no"),
            PongPacket(9),
        )
    )


def test_the_largest_number_of_a_ping_goes_back() -> None:
    wire = WireConnection(Role.SERVER)
    assert wire.receive(PingPacket(MAX_NUMBER).encode()) == []
    assert wire.data_to_send() == PongPacket(MAX_NUMBER).encode()


def test_a_window_never_lets_a_packet_grow_too_large() -> None:
    assert MAX_INFLIGHT <= MAX_DATA_SENT


@given(st.lists(st.integers(0, 5_000), max_size=12), st.integers(1, 12_000))
def test_what_is_taken_in_parts_is_what_is_taken_at_once(sizes: list[int], enough: int) -> None:
    """Each part has `enough`, and not a packet more; only the last one may have less."""

    def filled() -> WireConnection:
        wire = WireConnection(Role.CLIENT)
        wire.receive(b"HEADER 0 2\r\n{}END\r\nDATA 0 3\r\nabcEND\r\n")
        for number, size in enumerate(sizes, 1):
            wire.send_whole(RequestHeader("a.b", number), bytes(size))
        wire.consumed(0, 3)
        return wire

    wire, parts = filled(), []
    while part := wire.data_to_send(enough):
        parts.append(part)
    assert not wire.has_data_to_send
    assert b"".join(parts) == filled().data_to_send()
    assert all(len(part) >= enough for part in parts[:-1])
    assert all(len(part) < enough + 5_200 for part in parts)
