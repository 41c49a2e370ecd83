"""Which packets from the network are worth a look: everybody can send us some.

To look at a packet costs a twentieth of a millisecond, or a tenth of a second when it announces
100,000 actions in a kilobyte. So packets wait in two bounded lanes: those that claim to be of a
service that we know, from a host that it speaks from, and all others. No host may fill a lane
alone. Known services take turns, and all other packets by their hosts; whose packets have cost
much waits meanwhile. Each lane has a budget of packets and of CPU.

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

Pair = tuple[str, str]  # identity (or "") and host


@dataclass(frozen=True, slots=True)
class Packet:
    """A datagram, where it came from, and the identity that it claims (or "")."""

    data: bytes
    source: str
    identity: str
    known: bool = False
    """Whether it may be of a service that we know."""

    @property
    def turn(self) -> Pair:
        """Who has a turn by it: a known service, or a host."""
        return (self.identity if self.known else "", self.source)


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
    """Who has cost so much that it must wait, and until when: nobody gets more than `share` of a
    core for longer than a second."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._until: dict[Pair, float] = {}

    def add(self, debtor: Pair, cost: float, now: float) -> None:
        """A packet has cost so many seconds of CPU."""
        since = max(now, self._until.pop(debtor, now))
        self._until[debtor] = since + cost / self._share
        if len(self._until) > limits.MAX_PENDING_PACKETS:
            self._until = {name: until for name, until in self._until.items() if until > now}

    def has(self, debtor: Pair, now: float) -> bool:
        """Whether it must wait."""
        return self._until.get(debtor, now) > now + 1.0


class _Lane:
    """Packets that wait, up to a number and a size, in all and for each host."""

    def __init__(self, packets: float, cpu: float, share: float) -> None:
        self._queues: dict[Pair, deque[Packet]] = {}
        self._counts: Counter[str] = Counter()  # by host
        self._sizes: Counter[str] = Counter()  # by host
        self._count = self._size = 0
        self._packets = _Budget(packets)
        self._cpu = _Budget(cpu)
        self._debts = _Debts(share)

    def __len__(self) -> int:
        return self._count

    def put(self, packet: Packet) -> bool:
        """False when there is no room."""
        count, size = self._counts[packet.source], self._sizes[packet.source] + len(packet.data)
        if (
            self._count >= limits.MAX_PENDING_PACKETS
            or self._size + len(packet.data) > limits.MAX_PENDING_BYTES
            or count >= limits.MAX_PENDING_PACKETS // _HOSTS
            or size > limits.MAX_PENDING_BYTES // _HOSTS
        ):
            return False
        self._queues.setdefault(packet.turn, deque()).append(packet)
        self._add(packet, 1)
        return True

    def take(self, room: int, now: float) -> list[Packet]:
        """At most `room` packets, one at each turn."""
        room = min(room, self._count, int(self._packets.left(now)))
        if room <= 0 or self._cpu.left(now) <= 0:
            return []
        taken: list[Packet] = []
        ready = [turn for turn in self._queues if not self._debts.has(turn, now)]
        while ready and len(taken) < room:
            taken += [self._next_of(turn) for turn in ready[: room - len(taken)]]
            ready = [turn for turn in ready if turn in self._queues]
        self._packets.spend(len(taken))
        return taken

    def give_back(self, packets: Sequence[Packet]) -> None:
        """These were not looked at: they are the first at their turns again."""
        for packet in reversed(packets):
            self._queues.setdefault(packet.turn, deque()).appendleft(packet)
            self._add(packet, 1)
        self._packets.spend(-len(packets))

    def charge(self, packet: Packet, cost: float, now: float) -> None:
        """To look at `packet` has cost so many seconds."""
        self._cpu.spend(cost)
        self._debts.add(packet.turn, cost, now)

    def _next_of(self, turn: Pair) -> Packet:
        queue = self._queues.pop(turn)  # and behind all others, if there is more
        packet = queue.popleft()
        if queue:
            self._queues[turn] = queue
        self._add(packet, -1)
        return packet

    def _add(self, packet: Packet, one: int) -> None:
        size = one * len(packet.data)
        self._count += one
        self._size += size
        self._counts[packet.source] += one
        self._sizes[packet.source] += size
        if not self._counts[packet.source]:
            del self._counts[packet.source], self._sizes[packet.source]


class Intake:
    """Packets that wait to be verified. Pure: `now` is in seconds of any clock.

    `dropped` counts those that found no room; the same packet twice takes one place and is no loss.
    """

    def __init__(self) -> None:
        self._known = _Lane(
            limits.KNOWN_PACKETS_PER_SECOND, limits.KNOWN_CPU_SHARE, limits.SERVICE_CPU_SHARE
        )
        self._others = _Lane(
            limits.OTHER_PACKETS_PER_SECOND, limits.OTHER_CPU_SHARE, limits.OTHER_CPU_SHARE / 2
        )
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

    def recognises(self, service: Key) -> bool:
        """Whether it is known from where this service speaks."""
        return service in self._speaks_from

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
        taken = self._known.take(limits.MAX_ROUND, now)
        taken += self._others.take(limits.MAX_ROUND - len(taken), now)
        for packet in taken:
            self._pending.discard(packet.data)
            if packet.known:
                _take_one(self._waiting, (packet.identity, packet.source))
        return taken

    def looked_at(self, packets: Sequence[Packet], costs: Sequence[float], now: float) -> None:
        """Of `packets`, which were taken, the first were looked at, and cost so many seconds of
        CPU each; the rest waits on."""
        for packet, cost in zip(packets, costs, strict=False):
            (self._known if packet.known else self._others).charge(packet, cost, now)
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
