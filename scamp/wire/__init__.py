"""SCAMP on the wire, without I/O: packets, headers, and the state of one side of a connection."""

from scamp.wire.connection import TRANSITIONS, MessageState, Role, WireConnection
from scamp.wire.events import (
    DataReceived,
    Event,
    MessageEnded,
    MessageFailed,
    MessageStarted,
    PongReceived,
    ProtocolBroken,
    WindowOpened,
)
from scamp.wire.header import (
    Header,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    RequestId,
    encode_header,
    parse_header,
)
from scamp.wire.packets import Packet, PacketReader, PacketType, encode_packet

__all__ = [
    "TRANSITIONS",
    "DataReceived",
    "Event",
    "Header",
    "MessageEnded",
    "MessageFailed",
    "MessageStarted",
    "MessageState",
    "OtherHeader",
    "Packet",
    "PacketReader",
    "PacketType",
    "PongReceived",
    "ProtocolBroken",
    "ReplyHeader",
    "RequestHeader",
    "RequestId",
    "Role",
    "WindowOpened",
    "WireConnection",
    "encode_header",
    "encode_packet",
    "parse_header",
]
