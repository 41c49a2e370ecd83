"""The life of one connection as the pool sees it, as a table. `ClientConnection` moves by it.

How many requests may be in flight hangs on what the peer is. Some peers number their replies
themselves; with two requests in flight there, a reply could reach the wrong caller. The table has
no way to a second one: before the first reply has shown what the peer is, and with peers that
renumber, `STARTED` takes the only place. `docs/states.md` is drawn from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Final


class SlotState(Enum):
    """Where a connection stands, seen from the pool. Values say what it means."""

    DIALING = "TCP and TLS are under way"
    PROVING = "nothing is known of the peer; free for one request"
    TRIAL = "nothing is known of the peer; its one request is out"
    TRIAL_ALONE = "as TRIAL, and the request needs the connection for itself"
    SHARED = "the peer echoes ids; free for many requests"
    EXCLUSIVE = "the peer echoes ids; one request has the connection for itself"
    SERIAL = "the peer renumbers; free for one request"
    SERIAL_BUSY = "the peer renumbers; its one request is out"
    RETIRED = "finishes what it carries, takes nothing new, then closes"
    CLOSED = "over"

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


class SlotEvent(Enum):
    """What happens to a connection."""

    CONNECTED = "TLS is up and the certificate is right"
    STARTED = "a request begins"
    STARTED_ALONE = "a request begins that needs the connection for itself"
    ECHOES = "a reply has shown, here or on another connection, that the peer echoes ids"
    RENUMBERS = "a reply has shown, here or on another connection, that the peer renumbers"
    FINISHED = "request and reply have both ended: a place is free again"
    RETIRE = "nothing new should begin here"
    CLOSE = "we close: retired and empty, a request abandoned that cannot be told apart, told to"
    GONE = "the channel is over"

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


def _table() -> dict[tuple[SlotState, SlotEvent], SlotState]:
    state, event = SlotState, SlotEvent
    table = {
        (state.DIALING, event.CONNECTED): state.PROVING,
        (state.PROVING, event.STARTED): state.TRIAL,
        (state.PROVING, event.STARTED_ALONE): state.TRIAL_ALONE,
        (state.PROVING, event.ECHOES): state.SHARED,
        (state.PROVING, event.RENUMBERS): state.SERIAL,
        (state.TRIAL, event.ECHOES): state.SHARED,
        (state.TRIAL, event.RENUMBERS): state.SERIAL_BUSY,
        (state.TRIAL_ALONE, event.ECHOES): state.EXCLUSIVE,
        (state.TRIAL_ALONE, event.RENUMBERS): state.SERIAL_BUSY,
        (state.SHARED, event.STARTED): state.SHARED,
        (state.SHARED, event.STARTED_ALONE): state.EXCLUSIVE,
        (state.SHARED, event.FINISHED): state.SHARED,
        (state.EXCLUSIVE, event.FINISHED): state.SHARED,
        (state.SERIAL, event.STARTED): state.SERIAL_BUSY,
        (state.SERIAL, event.STARTED_ALONE): state.SERIAL_BUSY,
        (state.SERIAL_BUSY, event.FINISHED): state.SERIAL,
        (state.RETIRED, event.ECHOES): state.RETIRED,
        (state.RETIRED, event.RENUMBERS): state.RETIRED,
        (state.RETIRED, event.FINISHED): state.RETIRED,
        (state.RETIRED, event.RETIRE): state.RETIRED,
        (state.CLOSED, event.FINISHED): state.CLOSED,
        (state.CLOSED, event.RETIRE): state.CLOSED,
        (state.CLOSED, event.GONE): state.CLOSED,
        # Given up while it was dialled: it closes as soon as it is open.
        (state.DIALING, event.RETIRE): state.CLOSED,
        (state.CLOSED, event.CONNECTED): state.CLOSED,
    }
    connected = set(state) - {state.DIALING, state.CLOSED}
    for one in connected:
        table[one, event.GONE] = state.CLOSED
        table.setdefault((one, event.RETIRE), state.RETIRED)
    for one in state:
        table[one, event.CLOSE] = state.CLOSED
    return table


SLOT_TRANSITIONS: Final[Mapping[tuple[SlotState, SlotEvent], SlotState]] = _table()
"""The life of a connection in the pool. A pair that is missing here must not happen: a request that
cannot start is refused with ConnectionLost (not written), anything else is LocalProtocolError."""

ONE_PLACE: Final = frozenset({SlotState.PROVING, SlotState.SERIAL})
"""States in which exactly one request may begin."""

TAKES_NOTHING: Final = frozenset({SlotState.DIALING, SlotState.RETIRED, SlotState.CLOSED})
"""States in which the pool has no business with the connection; it is not in the pool then."""
