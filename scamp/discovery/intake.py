"""Which packets from the network are worth a look: everybody can send us some.

To check a signature costs a tenth of a millisecond and to inflate a packet up to some, so packets
wait in two bounded lanes: those that claim to be of a service that we know, from the host that it
spoke from last, and all others. Each lane has a budget of packets per second. A flood of forged
packets fills the second lane and costs the first nothing; one that forges the sender's address as
well can delay the renewal of the services that it names, and no others.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.discovery.announcement import identity_hint
from scamp.discovery.multicast import PREFIXES, is_zlib

_HEAD: Final = 600
"""Bytes of a record in which its identity (255 characters at most) stands, if it is first."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram, where it came from, and the identity that it claims (or "")."""

    data: bytes
    source: str
    identity: str


class _Budget:
    """Tokens that come back at `rate` per second, at most `rate` of them at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left = float(rate)
        self._last: float | None = None

    def take(self, wanted: int, now: float) -> int:
        """As many of `wanted` as there are now."""
        if self._last is not None:
            passed = max(0.0, now - self._last)
            self._left = min(self._rate, self._left + passed * self._rate)
        self._last = now
        granted = min(wanted, int(self._left))
        self._left -= granted
        return granted


class _Lane:
    """Packets in the order in which they came, up to a number and a size."""

    def __init__(self, rate: int) -> None:
        self.packets: deque[Packet] = deque()
        self.size = 0
        self._budget = _Budget(rate)

    def put(self, packet: Packet) -> bool:
        """False when there is no room."""
        size = self.size + len(packet.data)
        if len(self.packets) >= limits.MAX_PENDING_PACKETS or size > limits.MAX_PENDING_BYTES:
            return False
        self.packets.append(packet)
        self.size = size
        return True

    def take(self, room: int, now: float) -> list[Packet]:
        granted = self._budget.take(min(room, len(self.packets)), now)
        taken = [self.packets.popleft() for _ in range(granted)]
        self.size -= sum(len(packet.data) for packet in taken)
        return taken


class Intake:
    """Packets that wait to be verified. Pure: `now` is in seconds of any clock.

    `dropped` counts those that found no room; the same packet twice takes one place and is no loss.
    """

    def __init__(self) -> None:
        self._known = _Lane(limits.KNOWN_PACKETS_PER_SECOND)
        self._others = _Lane(limits.OTHER_PACKETS_PER_SECOND)
        self._pending: set[bytes] = set()
        self._waiting: Counter[str] = Counter()
        self._sources: dict[str, str] = {}
        self.dropped: int = 0

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._known.packets) + len(self._others.packets)

    def recognise(self, identity: str, source: str) -> None:
        """A packet of this service, from this host, was good."""
        self._sources[identity] = source

    def forget(self, identity: str) -> None:
        """The service is gone."""
        self._sources.pop(identity, None)

    def put(self, data: bytes, source: str) -> None:
        """A datagram came in. Costs some microseconds whatever is in it."""
        if data in self._pending:
            return
        packet = Packet(data, source, claimed_identity(data))
        known = self._sources.get(packet.identity) == source
        if known and self._waiting[packet.identity] >= limits.MAX_PENDING_OF_ONE:
            self.dropped += 1
        elif (self._known if known else self._others).put(packet):
            self._pending.add(data)
            if known:
                self._waiting[packet.identity] += 1
        else:
            self.dropped += 1

    def take(self, now: float) -> list[Packet]:
        """What to look at now, known services first: as much as the budgets allow."""
        taken = self._known.take(limits.MAX_ROUND, now)
        for packet in taken:
            self._waiting[packet.identity] -= 1
            if not self._waiting[packet.identity]:
                del self._waiting[packet.identity]
        taken += self._others.take(limits.MAX_ROUND - len(taken), now)
        self._pending.difference_update(packet.data for packet in taken)
        return taken


def claimed_identity(data: bytes) -> str:
    """The identity that a datagram seems to be about, from its first bytes; "" when none shows."""
    if data.startswith(PREFIXES):
        data = data[1:]
    if is_zlib(data):
        try:
            data = zlib.decompressobj().decompress(data[: 2 * _HEAD], _HEAD)
        except zlib.error:
            return ""
    return identity_hint(data[:_HEAD]) or ""
