"""The life of one message, as a table. Both directions run from it.

`WireConnection` looks every packet up here before it does anything else: what the peer sends and is
missing breaks the connection (RemoteProtocolError), what we are asked to send and is missing is
refused (LocalProtocolError). `docs/states.md` is drawn from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final

from scamp.wire.packets import PacketType


class MessageState(Enum):
    """Where one message stands, in either direction."""

    UNSEEN = "its number has not been used"
    OPEN = "it has begun: its body may come"
    ENDED = "it is complete"
    FAILED = "its sender gave it up: what came of it is void"

    # Members are singletons; hashing by identity keeps table look-ups cheap.
    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


TRANSITIONS: Final[Mapping[tuple[MessageState, PacketType], MessageState]] = {
    (MessageState.UNSEEN, PacketType.HEADER): MessageState.OPEN,
    (MessageState.OPEN, PacketType.DATA): MessageState.OPEN,
    (MessageState.OPEN, PacketType.EOF): MessageState.ENDED,
    (MessageState.OPEN, PacketType.TXERR): MessageState.FAILED,
    (MessageState.OPEN, PacketType.ACK): MessageState.OPEN,
    (MessageState.ENDED, PacketType.ACK): MessageState.ENDED,
    (MessageState.FAILED, PacketType.ACK): MessageState.FAILED,
}
"""The life of a message. A pair that is missing here is the protocol error.

HEADER, DATA, EOF and TXERR come from the message's sender, ACK from its receiver: one that was
under way when the message ended says nothing any more. PING and PONG belong to no message.
"""


def refusal(state: MessageState, packet: PacketType, msgno: int) -> str:
    """Why `packet` of message `msgno` is an error, for people."""
    if state is MessageState.UNSEEN:
        what = "has not begun"
    elif state is MessageState.OPEN:
        what = "is open already"
    else:
        what = "is over"
    return f"{packet.name} for message {msgno}, which {what}"
