"""How a scripted peer treats packets, whatever its scripts do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scamp.limits import MAX_INFLIGHT

if TYPE_CHECKING:
    from scamp.testing.peer_connection import PeerRequest


def all_received(request: PeerRequest) -> int | None:
    """Acknowledge every DATA packet at once, as good peers do."""
    return request.received


def nothing(request: PeerRequest) -> int | None:
    """Never acknowledge: an upload stops when the window is full."""
    return None


def beyond_sent(request: PeerRequest) -> int | None:
    """Acknowledge more than can have been sent: a protocol error."""
    return request.received + MAX_INFLIGHT + 1


def no_advance(request: PeerRequest) -> int | None:
    """Acknowledge the first byte again and again: a protocol error at the second DATA packet."""
    return 1


@dataclass(frozen=True, slots=True)
class Manners:
    """How a peer treats packets, whatever its scripts do."""

    echoes_ids: bool = True
    """Replies carry the request's id. False: 1, 2, 3, … in the order of replying."""
    heeds_acks: bool = True
    """Replies go in packets of 64 KiB within the window. False: in one packet, however large."""
    serial: bool = False
    """The next request of a connection is looked at when the script for the last has ended."""
    acts_on_txerr: bool = False
    """A request that its caller gave up is acted on: what came of its body, and the error text."""
    closes_on: frozenset[str] = frozenset()
    """Of ``ping``, ``null client_id``, ``envelope`` (any but json and jsonstore), ``request_id``
    (a string) and ``type`` (any but request and reply): what makes the peer cut the connection."""
    answers_pings: bool = True
    """False: a PING is counted and left unanswered."""
    acks: Callable[[PeerRequest], int | None] = all_received
    """What to acknowledge when DATA has come; None for no ACK."""
    late_ack: bool = False
    """One more ACK for a request after its reply has ended: unusual, and not an error."""
    shakes_hands: bool = True
    """False: connections are accepted, and then nothing is said, not even TLS. A process that was
    stopped looks like that. As it is when the peer begins to listen."""
    closes_at_once: bool = False
    """TLS is done, then the connection is closed: what a service with too many of them does."""
    idle_close: float | None = None
    """A connection with nothing in flight is closed after a random time up to this, in seconds."""


ECHOING: Final = Manners()
"""Like JavaScript: echoes ids, keeps to the window."""

GO: Final = Manners(
    echoes_ids=False,
    heeds_acks=False,
    serial=True,
    acts_on_txerr=True,
    closes_on=frozenset(("ping", "null client_id", "envelope", "request_id", "type")),
)
"""Like Go: numbers its replies, sends each as one packet, is easily upset."""
