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
    EventHeader,
    Header,
    NotifyHeader,
    OtherHeader,
    ReplyHeader,
    RequestHeader,
    RequestId,
    SubscribeDoneHeader,
    SubscribeHeader,
    encode_header,
    header_type,
    parse_header,
)
from scamp.wire.packets import Packet, PacketReader, PacketType, encode_packet

__all__ = [
    "TRANSITIONS",
    "DataReceived",
    "Event",
    "EventHeader",
    "Header",
    "MessageEnded",
    "MessageFailed",
    "MessageStarted",
    "MessageState",
    "NotifyHeader",
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
    "SubscribeDoneHeader",
    "SubscribeHeader",
    "WindowOpened",
    "WireConnection",
    "encode_header",
    "encode_packet",
    "header_type",
    "parse_header",
]
