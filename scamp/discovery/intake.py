"""Which packets from the network are worth a look: everybody can send us some.

To look at a packet costs a twentieth of a millisecond, or a tenth of a second when it announces
100,000 actions in a kilobyte. So packets wait in two bounded lanes: those that claim to be of a
service that we know, from a host that it speaks from, and all others. In each lane the hosts take
turns, none may fill it alone, and one whose packets have cost much waits until others had as much.
The lane of others has a budget of packets and of CPU.

So a flood of forged packets, or of rightly signed ones by keys that anybody can make, costs known
services nothing, and others from other hosts little. One that forges the sender's address as well
can keep the renewals of the services that it names from being heard, until they expire; and of
no others.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scamp import limits
from scamp.discovery.announcement import identity_hint
from scamp.discovery.multicast import PREFIXES, is_zlib
from scamp.discovery.registry import Key

_HEAD: Final = 600
"""Bytes of a record in which its identity (255 characters at most) stands, if it is first."""

_HOSTS: Final = 4
"""So many hosts it takes to fill a lane."""

Pair = tuple[str, str]  # identity and host


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram, where it came from, and the identity that it claims (or "")."""

    data: bytes
    source: str
    identity: str
    known: bool = False
    """Whether it may be of a service that we know."""


class _Budget:
    """What comes back at `rate` per second, and is `rate` at most. It may be overdrawn."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = float(rate)
        self._last: float | None = None

    def left(self, now: float) -> float:
        """What there is now."""
        if self._last is not None:
            passed = max(0.0, now - self._last)
            self._left = min(self._rate, self._left + passed * self._rate)
        self._last = now
        return self._left

    def spend(self, amount: float) -> None:
        """Take something out."""
        self._left -= amount


class _Debts:
    """Which hosts have cost so much that they must wait, and until when."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, source: str, cost: float, now: float) -> None:
        """A packet of this host has cost so many seconds of CPU."""
        since = max(now, self._until.pop(source, now))
        self._until[source] = since + cost / limits.HOST_CPU_SHARE
        if len(self._until) > limits.MAX_PENDING_PACKETS:
            self._until = {name: until for name, until in self._until.items() if until > now}

    def has(self, source: str, now: float) -> bool:
        """Whether it must wait. A second's worth is granted to everybody."""
        return self._until.get(source, now) > now + 1.0


class _Lane:
    """Packets that wait, by host, up to a number and a size in all and for each host."""

    def __init__(self, packets: float, cpu: float) -> None:
        self._queues: dict[str, deque[Packet]] = {}
        self._sizes: Counter[str] = Counter()
        self._count = self._size = 0
        self._packets = _Budget(packets)
        self._cpu = _Budget(cpu)

    def __len__(self) -> int:
        return self._count

    def put(self, packet: Packet) -> bool:
        """False when there is no room."""
        size, queue = len(packet.data), self._queues.get(packet.source)
        if (
            self._count >= limits.MAX_PENDING_PACKETS
            or self._size + size > limits.MAX_PENDING_BYTES
        ):
            return False
        if queue is None:
            queue = self._queues[packet.source] = deque()
        elif (
            len(queue) >= limits.MAX_PENDING_PACKETS // _HOSTS
            or self._sizes[packet.source] + size > limits.MAX_PENDING_BYTES // _HOSTS
        ):
            return False
        queue.append(packet)
        self._sizes[packet.source] += size
        self._count += 1
        self._size += size
        return True

    def take(self, room: int, now: float, debts: _Debts) -> list[Packet]:
        """At most `room` packets, one of each host after another."""
        room = min(room, self._count, int(self._packets.left(now)))
        if room <= 0 or self._cpu.left(now) <= 0:
            return []
        taken: list[Packet] = []
        ready = [source for source in self._queues if not debts.has(source, now)]
        while ready and len(taken) < room:
            taken += [self._next_of(source) for source in ready[: room - len(taken)]]
            ready = [source for source in ready if source in self._queues]
        self._packets.spend(len(taken))
        return taken

    def give_back(self, packets: Sequence[Packet]) -> None:
        """These were not looked at: they are the first of their hosts again."""
        for packet in reversed(packets):
            self._queues.setdefault(packet.source, deque()).appendleft(packet)
            self._sizes[packet.source] += len(packet.data)
            self._count += 1
            self._size += len(packet.data)
        self._packets.spend(-len(packets))

    def charge(self, cost: float) -> None:
        """Looking at packets has cost so many seconds."""
        self._cpu.spend(cost)

    def _next_of(self, source: str) -> Packet:
        queue = self._queues.pop(source)  # and behind all others, if there is more
        packet = queue.popleft()
        if queue:
            self._queues[source] = queue
            self._sizes[source] -= len(packet.data)
        else:
            del self._sizes[source]
        self._count -= 1
        self._size -= len(packet.data)
        return packet


class Intake:
    """Packets that wait to be verified. Pure: `now` is in seconds of any clock.

    `dropped` counts those that found no room; the same packet twice takes one place and is no loss.
    """

    def __init__(self) -> None:
        self._known = _Lane(limits.KNOWN_PACKETS_PER_SECOND, limits.KNOWN_CPU_SHARE)
        self._others = _Lane(limits.OTHER_PACKETS_PER_SECOND, limits.OTHER_CPU_SHARE)
        self._debts = _Debts()
        self._pending: set[bytes] = set()
        self._waiting: Counter[Pair] = Counter()
        self._speaks_from: dict[Key, Pair] = {}
        self._pairs: Counter[Pair] = Counter()
        self.dropped: int = 0

    def __len__(self) -> int:
        """Packets that wait."""
        return len(self._known) + len(self._others)

    def recognise(self, service: Key, source: str) -> None:
        """A packet of this service, from this host, was good. Whoever announces the same identity
        with another certificate has a place beside it, and not its place."""
        self.forget(service)
        pair = (service[1], source)
        self._speaks_from[service] = pair
        self._pairs[pair] += 1

    def forget(self, service: Key) -> None:
        """The service is gone."""
        pair = self._speaks_from.pop(service, None)
        if pair is not None:
            _take_one(self._pairs, pair)

    def put(self, data: bytes, source: str) -> None:
        """A datagram came in. Costs some microseconds whatever is in it."""
        if data in self._pending:
            return
        identity = claimed_identity(data)
        pair = (identity, source)
        known = pair in self._pairs
        packet = Packet(data, source, identity, known)
        if known and self._waiting[pair] >= limits.MAX_PENDING_OF_ONE:
            self.dropped += 1
        elif (self._known if known else self._others).put(packet):
            self._pending.add(data)
            if known:
                self._waiting[pair] += 1
        else:
            self.dropped += 1

    def take(self, now: float) -> list[Packet]:
        """What to look at now, known services first: as much as the budgets allow."""
        taken = self._known.take(limits.MAX_ROUND, now, self._debts)
        taken += self._others.take(limits.MAX_ROUND - len(taken), now, self._debts)
        for packet in taken:
            self._pending.discard(packet.data)
            if packet.known:
                _take_one(self._waiting, (packet.identity, packet.source))
        return taken

    def looked_at(self, packets: Sequence[Packet], costs: Sequence[float], now: float) -> None:
        """Of `packets`, which were taken, the first were looked at, and cost so many seconds of
        CPU each; the rest waits on."""
        for packet, cost in zip(packets, costs, strict=False):
            self._debts.add(packet.source, cost, now)
            (self._known if packet.known else self._others).charge(cost)
        left = packets[len(costs) :]
        for packet in left:
            self._pending.add(packet.data)
            if packet.known:
                self._waiting[packet.identity, packet.source] += 1
        self._known.give_back([packet for packet in left if packet.known])
        self._others.give_back([packet for packet in left if not packet.known])


def _take_one(counts: Counter[Pair], pair: Pair) -> None:
    counts[pair] -= 1
    if counts[pair] <= 0:
        del counts[pair]


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
