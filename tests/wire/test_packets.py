"""Packets: one table drives encoder and reader, whole, byte by byte and with bytes after it."""

from __future__ import annotations

import tracemalloc

import pytest

from scamp.errors import RemoteProtocolError
from scamp.limits import MAX_HEADER_LINE, MAX_PACKET_BODY
from scamp.wire import Packet, PacketReader, PacketType, encode_packet

H, D, E, T, A, PI, PO = PacketType

PACKETS = [
    (Packet(H, 0, b"{}"), b"HEADER 0 2\r\n{}END\r\n"),
    (Packet(H, 7, b'{"type":"request"}\n'), b'HEADER 7 19\r\n{"type":"request"}\nEND\r\n'),
    (Packet(D, 0, b"x"), b"DATA 0 1\r\nxEND\r\n"),
    (Packet(D, 1, b"END\r\n"), b"DATA 1 5\r\nEND\r\nEND\r\n"),
    (Packet(D, 2, b"EOF 2 0\r\nEND\r\n"), b"DATA 2 14\r\nEOF 2 0\r\nEND\r\nEND\r\n"),
    (Packet(E, 0, b""), b"EOF 0 0\r\nEND\r\n"),
    (Packet(E, 2**63 - 1, b""), b"EOF 9223372036854775807 0\r\nEND\r\n"),
    (Packet(T, 3, b"no"), b"TXERR 3 2\r\nnoEND\r\n"),
    (Packet(A, 3, b"65536"), b"ACK 3 5\r\n65536END\r\n"),
    (Packet(PI, 5, b""), b"PING 5 0\r\nEND\r\n"),
    (Packet(PO, 5, b""), b"PONG 5 0\r\nEND\r\n"),
]
IDS = [f"{packet.kind.name}-{packet.msgno}" for packet, _ in PACKETS]


def read(*chunks: bytes) -> tuple[list[Packet], PacketReader]:
    reader = PacketReader()
    packets: list[Packet] = []
    for chunk in chunks:
        reader.feed(chunk, packets)
    return merge(packets), reader


def merge(packets: list[Packet]) -> list[Packet]:
    """Pieces of DATA put together again."""
    merged: list[Packet] = []
    for packet in packets:
        last = merged[-1] if merged else None
        if last is not None and packet.kind is D and last.kind is D and last.msgno == packet.msgno:
            merged[-1] = Packet(D, last.msgno, last.body + packet.body)
        else:
            merged.append(packet)
    return merged


@pytest.mark.parametrize(("packet", "raw"), PACKETS, ids=IDS)
def test_packet_is_encoded_as_in_the_table(packet: Packet, raw: bytes) -> None:
    assert encode_packet(*packet) == raw


@pytest.mark.parametrize(("packet", "raw"), PACKETS, ids=IDS)
def test_packet_is_read_whole(packet: Packet, raw: bytes) -> None:
    packets, reader = read(raw)
    assert packets == [packet]
    assert reader.idle


@pytest.mark.parametrize(("packet", "raw"), PACKETS, ids=IDS)
def test_packet_is_read_byte_by_byte(packet: Packet, raw: bytes) -> None:
    packets, reader = read(*(bytes((byte,)) for byte in raw))
    assert packets == [packet]
    assert reader.idle


@pytest.mark.parametrize(("packet", "raw"), PACKETS, ids=IDS)
def test_packet_is_read_in_any_two_parts(packet: Packet, raw: bytes) -> None:
    for cut in range(1, len(raw)):
        packets, reader = read(raw[:cut], raw[cut:])
        assert packets == [packet]
        assert reader.idle


@pytest.mark.parametrize("trailing", [b"P", b"PING 1 0\r\nEN", b"DATA 9 4\r\nab"])
@pytest.mark.parametrize(("packet", "raw"), PACKETS, ids=IDS)
def test_what_follows_a_packet_does_not_disturb_it(
    packet: Packet, raw: bytes, trailing: bytes
) -> None:
    packets, reader = read(raw + trailing)
    assert packets[0] == packet
    assert not reader.idle


def test_all_packets_in_one_read_come_out_in_order() -> None:
    packets, _ = read(b"".join(raw for _, raw in PACKETS))
    assert packets == [packet for packet, _ in PACKETS]


def test_an_empty_data_packet_comes_out_once() -> None:
    packets, reader = read(b"DATA 0 0\r\nEND\r\nEOF 0 0\r\nEND\r\n")
    assert packets == [Packet(PacketType.DATA, 0, b""), Packet(E, 0, b"")]
    assert reader.idle


def test_data_comes_out_as_it_arrives_and_before_its_end() -> None:
    packets, reader = read(b"DATA 0 100\r\nabc")
    assert packets == [Packet(D, 0, b"abc")]
    assert not reader.idle


def test_a_data_packet_of_64_mib_is_never_held() -> None:
    size = 64 * 1024 * 1024
    piece = bytes(256 * 1024)
    reader = PacketReader()
    seen = 0
    packets: list[Packet] = []
    reader.feed(b"DATA 0 %d\r\n" % size, packets)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(size // len(piece)):
            reader.feed(piece, packets)
            seen += sum(len(packet.body) for packet in packets)
            packets.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == size
    assert peak - before < 2 * len(piece)
    reader.feed(b"END\r\n", packets)
    assert reader.idle


def test_a_body_that_comes_two_bytes_at_a_time_is_held_once() -> None:
    raw = encode_packet(H, 0, bytes(range(256)) * (MAX_PACKET_BODY // 256))
    reader = PacketReader()
    packets: list[Packet] = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(0, len(raw) - 2, 2):
            reader.feed(raw[at : at + 2], packets)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held - before < 1.5 * len(raw)
    assert packets == []
    reader.feed(raw[at + 2 :], packets)
    assert encode_packet(*packets[0]) == raw


def test_the_longest_header_line_is_80_bytes() -> None:
    line = b"EOF %s 0\r\n"
    assert len(line % (b"1" * 19)) < MAX_HEADER_LINE
    with pytest.raises(RemoteProtocolError, match="longer than 80"):
        read(b"E" * MAX_HEADER_LINE)
    read(b"E" * (MAX_HEADER_LINE - 1))  # may still become something


def test_the_longest_control_body_is_taken_and_one_byte_more_is_not() -> None:
    body = b"x" * MAX_PACKET_BODY
    packets, _ = read(encode_packet(H, 0, body))
    assert packets == [Packet(H, 0, body)]
    with pytest.raises(RemoteProtocolError, match="131073 bytes"):
        read(b"HEADER 0 %d\r\n" % (MAX_PACKET_BODY + 1))


BROKEN = [
    b"HELLO 0 0\r\n",
    b"header 0 0\r\nEND\r\n",
    b"EOF 0 0\nEND\n",
    b"EOF 0\r\n",
    b"EOF 0 0 \r\n",
    b"EOF  0 0\r\n",
    b" EOF 0 0\r\n",
    b"EOF -1 0\r\n",
    b"EOF +1 0\r\n",
    b"EOF 0x1 0\r\n",
    b"EOF 0 \r\n",
    b"EOF \xd9\xa1 0\r\n",
    b"EOF 00000000000000000000 0\r\n",
    b"DATA 0 99999999999999999999\r\n",
    b"DATA 0 9999999999999999999\r\n",
    b"\r\n",
    b"\n",
    b"EOF 0 0\r\nEND\n\n",
    b"EOF 0 0\r\nENDEOF 0 0",
    b"HEADER 0 2\r\n{}\r\nEND\r\n",
    b"DATA 0 1\r\nxyEND\r\n",
    b"DATA 0 0\r\nxEND\r\n",
    *(b"%b 0 131073\r\n" % kind.value for kind in PacketType if kind is not D),
]


@pytest.mark.parametrize("raw", BROKEN)
def test_broken_framing_is_an_error_however_it_arrives(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(raw)
    with pytest.raises(RemoteProtocolError):
        read(*(bytes((byte,)) for byte in raw))


def test_packets_before_the_error_stand() -> None:
    reader = PacketReader()
    packets: list[Packet] = []
    with pytest.raises(RemoteProtocolError):
        reader.feed(b"PING 1 0\r\nEND\r\nnonsense\n", packets)
    assert packets == [Packet(PI, 1, b"")]
