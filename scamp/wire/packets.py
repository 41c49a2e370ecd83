"""Packets: ``TYPE SP MSGNO SP SIZE CR LF body END CR LF``.

`PacketReader` cuts a byte stream into packets, in any chunking. The body of a DATA packet comes out
piece by piece as it arrives, because some peers send a whole reply as one packet, however large;
every other body is small and comes out whole. Nothing is held but an unfinished line, trailer or
control body.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from scamp.errors import RemoteProtocolError
from scamp.limits import MAX_DATA_SIZE, MAX_HEADER_LINE, MAX_PACKET_BODY


class PacketType(Enum):
    """The seven packet types, with their spelling on the wire."""

    HEADER = b"HEADER"
    DATA = b"DATA"
    EOF = b"EOF"
    TXERR = b"TXERR"
    ACK = b"ACK"
    PING = b"PING"
    PONG = b"PONG"

    # Members are singletons; hashing by identity keeps table look-ups cheap.
    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


class Packet(NamedTuple):
    """One packet, or for DATA one piece of one: empty only when the packet is."""

    kind: PacketType
    msgno: int
    body: bytes


TRAILER: Final = b"END\r\n"

UNLIMITED: Final = 1 << 62

_LINE: Final = re.compile(rb"(HEADER|DATA|EOF|TXERR|ACK|PING|PONG) ([0-9]{1,19}) ([0-9]{1,19})\r\n")
_DATA: Final = PacketType.DATA  # members are slow to get at in Python 3.11
_KINDS: Final = {kind.value: kind for kind in PacketType}


def encode_packet(kind: PacketType, msgno: int, body: bytes = b"") -> bytes:
    """One packet as bytes, right or wrong. What may be sent is in `scamp.wire.sending`."""
    return b"%b %d %d\r\n%bEND\r\n" % (kind.value, msgno, len(body), body)


class PacketReader:
    """Bytes in, packets out. The first error is terminal: feed nothing after it."""

    __slots__ = ("_data_left", "_data_msgno", "_held", "_need", "unread")

    def __init__(self) -> None:
        # Bytes that do not yet make a step; not a list, where two bytes take the room of fifty.
        self._held = bytearray()
        self._need = 1  # how many are needed for the next step
        self._data_msgno = -1  # the message of a DATA packet under way, else -1
        self._data_left = 0
        self.unread: bool = False
        """True when the last `feed` stopped at its limit; feeding nothing goes on from there."""

    @property
    def idle(self) -> bool:
        """True between packets: the stream may end here without cutting one off."""
        return self._data_msgno < 0 and not self._held

    def feed(self, data: bytes, packets: list[Packet], limit: int = UNLIMITED) -> None:
        """Take what was read from the socket, append the packets that it completes to `packets`,
        until there are `limit`; the rest is held.

        Raises RemoteProtocolError when the bytes break the framing; the good packets before that
        point have been appended.
        """
        self.cut(self.join(data), 0, packets, limit)

    @property
    def between(self) -> bool:
        """True when the next byte begins a packet, counted from what `join` gives."""
        return self._data_msgno < 0

    def join(self, data: bytes) -> bytes:
        """What is held and `data`, for `cut`; empty when that is still too little for a step."""
        held = self._held
        if held:
            if len(held) + len(data) < self._need:
                held += data
                return b""
            data = b"".join((held, data))
            held.clear()
        return data

    def cut(self, data: bytes, pos: int, packets: list[Packet], limit: int) -> None:
        """As `feed`, with what `join` gave, from `pos` on."""
        rest = self._cut(data, pos, packets, limit)
        self.unread = len(packets) >= limit and rest < len(data)
        if self.unread:
            self._need = 1
        if rest < len(data):
            self._held += memoryview(data)[rest:]

    def _cut(self, data: bytes, pos: int, packets: list[Packet], limit: int) -> int:
        """Append every packet in `data` to `packets`; return where the unused rest begins."""
        end = len(data)
        while pos < end and len(packets) < limit:
            if self._data_msgno >= 0:
                pos = self._take_data(data, pos, end, packets)
                if self._data_msgno >= 0:
                    self._need = len(TRAILER)
                    return pos
                continue
            line = _LINE.match(data, pos, pos + MAX_HEADER_LINE)
            if line is None:
                self._need = self._check_unfinished_line(data, pos, end) + 1
                return pos
            kind = _KINDS[line[1]]
            size = int(line[3])
            if kind is _DATA:
                if size > MAX_DATA_SIZE:
                    raise RemoteProtocolError(f"DATA packet of {size} bytes")
                self._data_msgno = int(line[2])
                self._data_left = size
                if not size:
                    packets.append(Packet(kind, self._data_msgno, b""))
                pos = line.end()
                if pos == end:
                    self._need = 1
                continue
            if size > MAX_PACKET_BODY:
                raise RemoteProtocolError(
                    f"{kind.name} packet of {size} bytes, the limit is {MAX_PACKET_BODY}"
                )
            start = line.end()
            stop = start + size
            if stop + len(TRAILER) > end:
                self._need = stop + len(TRAILER) - pos
                return pos
            if data[stop : stop + 5] != TRAILER:
                raise RemoteProtocolError(f"{kind.name} packet without its END")
            packets.append(Packet(kind, int(line[2]), data[start:stop]))
            pos = stop + 5
        return pos

    def _take_data(self, data: bytes, pos: int, end: int, packets: list[Packet]) -> int:
        left = self._data_left
        if left:
            take = min(left, end - pos)
            piece = data[pos : pos + take] if take != len(data) else data
            packets.append(Packet(_DATA, self._data_msgno, piece))
            self._data_left = left - take
            pos += take
        if self._data_left == 0 and end - pos >= len(TRAILER):
            if data[pos : pos + 5] != TRAILER:
                raise RemoteProtocolError("DATA packet without its END")
            self._data_msgno = -1
            pos += 5
        return pos

    @staticmethod
    def _check_unfinished_line(data: bytes, pos: int, end: int) -> int:
        """How many bytes of the line there are, if it can still become one; else the error."""
        newline = data.find(b"\n", pos, pos + MAX_HEADER_LINE)
        if newline >= 0:
            shown = data[pos : newline + 1]
            raise RemoteProtocolError(f"malformed packet header line {shown!r}")
        if end - pos >= MAX_HEADER_LINE:
            raise RemoteProtocolError(
                f"packet header line longer than {MAX_HEADER_LINE} bytes: {data[pos : pos + 40]!r}…"
            )
        return end - pos
