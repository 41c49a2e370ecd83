"""What one side of a connection learns from the bytes that it receives."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from scamp.errors import RemoteProtocolError
from scamp.wire.header import Header


class MessageStarted(NamedTuple):
    """The peer opened message `msgno`."""

    msgno: int
    header: Header


class MessageWhole(NamedTuple):
    """The peer's message `msgno`, from its HEADER to its EOF: instead of `MessageStarted`, at most
    one `DataReceived` and `MessageEnded`."""

    msgno: int
    header: Header
    body: bytes


class DataReceived(NamedTuple):
    """A piece of the body of an open message, never empty.

    Tell `WireConnection.consumed` when it has been used, or the peer stops after its window.
    """

    msgno: int
    data: bytes


class MessageEnded(NamedTuple):
    """The message is complete."""

    msgno: int


class MessageFailed(NamedTuple):
    """TXERR: the peer gives the message up; what arrived of it is void. `text` is never empty."""

    msgno: int
    text: str


class WindowOpened(NamedTuple):
    """An ACK: more of our message `msgno` may be sent."""

    msgno: int


class PongReceived(NamedTuple):
    """The peer answered our PING `number`."""

    number: int


class ProtocolBroken(NamedTuple):
    """The peer did what it must not do. Always the last event: close the connection."""

    error: RemoteProtocolError


Event: TypeAlias = (
    MessageStarted
    | MessageWhole
    | DataReceived
    | MessageEnded
    | MessageFailed
    | WindowOpened
    | PongReceived
    | ProtocolBroken
)
