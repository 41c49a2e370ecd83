"""The packets that we send, each a type of its own: what no peer may be sent cannot be built.

Every one of them raises LocalProtocolError when it is made wrong. `WireConnection` writes HEADER,
DATA, EOF and ACK, those of every message, as bytes directly, after the same checks; these types say
what the bytes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from scamp.errors import LocalProtocolError
from scamp.limits import MAX_DATA_SENT, MAX_DATA_SIZE, MAX_PACKET_BODY
from scamp.wire.encoding import EncodedHeader
from scamp.wire.header import Header
from scamp.wire.packets import PacketType, encode_packet

MAX_NUMBER: Final = 10**19 - 1
"""Largest message or PING number that a packet's header line has room for."""

_NO_TEXT: Final = (b"", b"0")


@dataclass(frozen=True, slots=True)
class _Packet:
    """What all packets have: a type and a number from 0 to MAX_NUMBER."""

    kind: ClassVar[PacketType]

    msgno: int

    def __post_init__(self) -> None:
        if type(self.msgno) is not int or not 0 <= self.msgno <= MAX_NUMBER:
            raise LocalProtocolError(f"{self.kind.name} with number {self.msgno!r}")

    @property
    def body(self) -> bytes:
        """What stands between header line and trailer."""
        return b""

    def encode(self) -> bytes:
        """The packet as it goes over the wire."""
        return encode_packet(self.kind, self.msgno, self.body)


@dataclass(frozen=True, slots=True, init=False)
class HeaderPacket(_Packet):
    """Opens a message; the body is its header as JSON."""

    kind = PacketType.HEADER

    header: EncodedHeader

    def __init__(self, msgno: int, header: Header | EncodedHeader) -> None:
        if not isinstance(header, EncodedHeader):
            header = EncodedHeader(header)
        object.__setattr__(self, "msgno", msgno)
        object.__setattr__(self, "header", header)
        _Packet.__post_init__(self)

    @property
    def body(self) -> bytes:
        return self.header


@dataclass(frozen=True, slots=True)
class DataPacket(_Packet):
    """A piece of a message's body: 1 to MAX_DATA_SENT bytes."""

    kind = PacketType.DATA

    data: bytes

    def __post_init__(self) -> None:
        _Packet.__post_init__(self)
        if not isinstance(self.data, bytes) or not 0 < len(self.data) <= MAX_DATA_SENT:
            raise LocalProtocolError(f"DATA must carry 1 to {MAX_DATA_SENT} bytes")

    @property
    def body(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class EofPacket(_Packet):
    """The message is complete. Has no body."""

    kind = PacketType.EOF


@dataclass(frozen=True, slots=True)
class TxErrPacket(_Packet):
    """The message is given up; `text` says why, neither empty nor ``0``, at most MAX_PACKET_BODY
    bytes as UTF-8."""

    kind = PacketType.TXERR

    text: str

    def __post_init__(self) -> None:
        _Packet.__post_init__(self)
        if not isinstance(self.text, str) or self.body in _NO_TEXT:
            raise LocalProtocolError("TXERR needs an error text")
        if len(self.body) > MAX_PACKET_BODY:
            raise LocalProtocolError(f"TXERR longer than {MAX_PACKET_BODY} bytes")

    @property
    def body(self) -> bytes:
        return self.text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class AckPacket(_Packet):
    """`count` bytes of the peer's message have been used so far, at least 1."""

    kind = PacketType.ACK

    count: int

    def __post_init__(self) -> None:
        _Packet.__post_init__(self)
        if type(self.count) is not int or not 0 < self.count <= MAX_DATA_SIZE:
            raise LocalProtocolError(f"ACK of {self.count!r} bytes")

    @property
    def body(self) -> bytes:
        return b"%d" % self.count


@dataclass(frozen=True, slots=True)
class PingPacket(_Packet):
    """Asks for a PONG of the same number. Has no body."""

    kind = PacketType.PING


@dataclass(frozen=True, slots=True)
class PongPacket(_Packet):
    """Answers the PING of the same number. Has no body."""

    kind = PacketType.PONG


OutgoingPacket: TypeAlias = (
    HeaderPacket | DataPacket | EofPacket | TxErrPacket | AckPacket | PingPacket | PongPacket
)
