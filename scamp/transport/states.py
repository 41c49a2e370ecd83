"""The life of one channel, as a table. `Channel` moves by it and by nothing else.

`docs/states.md` is drawn from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final


class ChannelState(Enum):
    """Where one connection stands, seen from this side. Values say what it means."""

    CONNECTING = "TCP and TLS are under way; nothing can be sent"
    OPEN = "TLS is up and the peer is who it should be; messages go both ways"
    PEER_CLOSED = "the peer closes, or the socket has failed: what is written now goes nowhere"
    CLOSING = "we close: what was queued is being sent, nothing new begins"
    ABORTED = "we have cut it: nothing is read or written any more"
    CLOSED = "over, ended by us"
    LOST = "over, ended by the peer or by the network"
    REFUSED = "never opened: another certificate than expected, or given up before TLS was up"

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


class ChannelEvent(Enum):
    """What happens to a channel."""

    CONNECTED = "TLS is up, with the certificate that was expected, if one was"
    MISMATCH = "TLS is up, with another certificate than expected"
    PEER_EOF = "the peer says that it closes"
    FAILED = "the transport is found closing, before it has said why"
    CLOSE = "we close: told to, or idle"
    ABORT = "we cut: told to, the peer broke the protocol, does not read, or has no heartbeat"
    GONE = "the socket is closed"

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


def _table() -> dict[tuple[ChannelState, ChannelEvent], ChannelState]:
    state, event = ChannelState, ChannelEvent
    table = {
        (state.CONNECTING, event.CONNECTED): state.OPEN,
        (state.CONNECTING, event.MISMATCH): state.REFUSED,
        (state.CONNECTING, event.CLOSE): state.REFUSED,
        (state.CONNECTING, event.ABORT): state.REFUSED,
        (state.OPEN, event.PEER_EOF): state.PEER_CLOSED,
        (state.OPEN, event.FAILED): state.PEER_CLOSED,
        (state.OPEN, event.CLOSE): state.CLOSING,
        (state.OPEN, event.ABORT): state.ABORTED,
        (state.OPEN, event.GONE): state.LOST,
        (state.PEER_CLOSED, event.CLOSE): state.CLOSING,
        (state.PEER_CLOSED, event.ABORT): state.ABORTED,
        (state.PEER_CLOSED, event.GONE): state.LOST,
        (state.CLOSING, event.ABORT): state.ABORTED,
        (state.CLOSING, event.GONE): state.CLOSED,
        (state.ABORTED, event.GONE): state.CLOSED,
        # Given up before TLS was up: what TLS comes to makes no difference.
        (state.REFUSED, event.CONNECTED): state.REFUSED,
        (state.REFUSED, event.MISMATCH): state.REFUSED,
        (state.REFUSED, event.GONE): state.REFUSED,
    }
    # Whoever ends what has ended, or is about to, changes nothing. A peer's last words may still
    # be in the buffer when we end it.
    for one in (state.CLOSED, state.LOST, state.REFUSED, state.ABORTED):
        table[one, event.CLOSE] = table[one, event.ABORT] = one
    table[state.CLOSING, event.CLOSE] = state.CLOSING
    for one in (state.PEER_CLOSED, state.CLOSING, state.ABORTED, state.REFUSED):
        table[one, event.PEER_EOF] = one
    return table


CHANNEL_TRANSITIONS: Final[Mapping[tuple[ChannelState, ChannelEvent], ChannelState]] = _table()
"""The life of a channel. A pair that is missing here cannot be: LocalProtocolError."""

BY_US: Final = frozenset({ChannelState.CLOSING, ChannelState.ABORTED, ChannelState.CLOSED})
"""States in which we ended the channel, or are about to."""

DEAF: Final = frozenset(
    {ChannelState.ABORTED, ChannelState.CLOSED, ChannelState.LOST, ChannelState.REFUSED}
)
"""States in which nothing that comes is looked at; `Channel.failure` says why."""
