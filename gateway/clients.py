"""Who is connected to a listener, and whether one more may come. Pure: no sockets, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from gateway.context import Network
from gateway.ratelimit.callers import address_key
from scamp import limits

Refusal = Literal["total", "address", "descriptors"]

REFUSALS: Final = ("total", "address", "descriptors")
"""Why a connection was not taken; for want of descriptors it is taken a moment later."""

TIMEOUTS: Final = ("handshake", "header", "idle", "body", "body_rate", "reader")
"""What a client was too slow with."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What the clients of one listener may do. Times in seconds."""

    connections: int = 10_000
    """At once, TLS handshakes under way included."""
    per_address: int | None = 1_000
    """Of these, from one address; of IPv6 one /64."""
    exempt: tuple[Network, ...] = ()
    """Addresses that may have any number of them: proxies, behind which there are many clients."""
    handshake_timeout: float = limits.HANDSHAKE_TIMEOUT
    header_timeout: float = 20.0
    """From the first byte of a request's head to its last, for the first from the beginning."""
    keepalive: float = 75.0
    """Between two requests."""
    min_body_rate: float = 240.0
    """Bytes a second that bodies have to move at, once a pause's time is spent; 0: at any."""


class Clients:
    """Counts the connections of one listener. What it holds for an address goes with the last."""

    __slots__ = (
        "_most",
        "_of",
        "accepted",
        "given_way",
        "heads",
        "limits",
        "open",
        "refused",
        "timeouts",
    )

    def __init__(self, given: ClientLimits | None = None) -> None:
        self.limits = given or ClientLimits()
        self.open = 0
        self.accepted = 0
        self.given_way = 0
        """Idle ones that were closed for the sake of new ones."""
        self.heads = 0
        """Bytes of requests' heads that are not whole."""
        self.refused: Counter[str] = Counter()
        self.timeouts: Counter[str] = Counter()
        self._of: dict[bytes, int] = {}
        self._most = 0

    def load(self) -> tuple[int, int]:
        """How many there are, and the most that there were since this was asked."""
        most, self._most = self._most, self.open
        return self.open, most

    @property
    def addresses(self) -> int:
        """Addresses that are counted."""
        return len(self._of)

    def key(self, host: str) -> bytes | None:
        """What connections from `host` are counted by; None: they are not."""
        if self.limits.per_address is None:
            return None
        if self.limits.exempt:
            address = ip_address(host.partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address
            if any(address in network for network in self.limits.exempt):
                return None
        return address_key(host)

    def refusal(self, key: bytes | None) -> Refusal | None:
        """Why another one may not come; None when it may."""
        most = self.limits.per_address
        if key is not None and most is not None and self._of.get(key, 0) >= most:
            return "address"
        return "total" if self.open >= self.limits.connections else None

    def enter(self, key: bytes | None) -> None:
        """One has come."""
        self.open += 1
        self.accepted += 1
        self._most = max(self._most, self.open)
        if key is not None:
            self._of[key] = self._of.get(key, 0) + 1

    def leave(self, key: bytes | None) -> None:
        """One that had come has gone. To be called once for each."""
        self.open -= 1
        if key is None:
            return
        left = self._of[key] - 1
        if left:
            self._of[key] = left
        else:
            del self._of[key]
