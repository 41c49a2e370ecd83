"""Which request goes on which connection, what to dial and what to close: decisions, no I/O.

`PoolCore` knows connections only by what `Slot` says of them. It is told what happens and answers
with what to do; `scamp.client.instance` does it.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from scamp.client.queueing import StandingQueue
from scamp.client.traits import PeerKind

MAX_DIALS: Final = 8
"""Connections to one instance that may be on their way at once."""

PROBE_DELAY: Final = 0.05
"""Seconds without a reply after which twice as many connections may be open to a peer of which
nothing is known: a first request that is slow, or never answered, holds others up no longer."""

_MANY_PROBES: Final = 10
"""Doublings, which are more connections than there may be."""

KEPT_PART: Final = 4
"""One connection in so many, and one at least, is never given to a request alone; nor is as large
a part of the places to wait in."""


class Slot(Protocol):
    """What the pool looks at in a connection."""

    @property
    def room(self) -> int:
        """How many more requests may be started now."""

    @property
    def empty(self) -> bool:
        """True when a request may have it for itself."""

    @property
    def alone(self) -> bool:
        """True while a request has it for itself."""

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""

    @property
    def doubtful(self) -> bool:
        """True when the peer may have been idle on it, and so may just be closing it."""


class Need(Enum):
    """What a request asks of its connection."""

    SHARED = "shared"
    """A place."""
    ALONE = "alone"
    """Nobody else on it, because it may have to be closed half-way."""
    FRESH = "fresh"
    """One that the peer cannot just be closing for having been idle: the last try of a request
    that was lost on such connections before."""

    if not TYPE_CHECKING:  # a type checker knows that of every object
        __hash__ = object.__hash__


_SHARED: Final = Need.SHARED  # members are slow to get at in Python 3.11
_ALONE: Final = Need.ALONE
_FRESH: Final = Need.FRESH

_ECHOES: Final = PeerKind.ECHOES

S = TypeVar("S", bound=Slot)
W = TypeVar("W")


class PoolCore(Generic[S, W]):
    """The connections to one instance and the requests that wait for one.

    `W` is whatever stands for a waiting request; the pool hands it back with its connection.
    """

    def __init__(
        self,
        kind: PeerKind,
        *,
        max_connections: int,
        max_waiters: int,
        standing: StandingQueue | None = None,
    ) -> None:
        """`standing` says when those who wait are refused; None: never."""
        self.kind: PeerKind = kind
        self.max_connections = max_connections
        # The rest is left to those that share: uploads that stand still would starve them.
        self._max_alone = max(1, max_connections - max(1, max_connections // KEPT_PART))
        self.max_waiters: int = max(1, max_waiters)  # one has to wait for the first connection
        self._max_alone_waiters = max(1, self.max_waiters - self.max_waiters // KEPT_PART)
        self.dialing = 0
        self.slots: list[S] = []
        self._standing = standing or StandingQueue(0, 0)
        self._probing_since: float | None = None
        self._arrivals = 0
        # Each with the number and the time of its arrival.
        self._queues: dict[Need, deque[tuple[int, W, float]]] = {need: deque() for need in Need}
        self.waiting: int = 0
        """Requests that wait; kept, since it is asked for with every request."""

    # -- requests -----------------------------------------------------------------------

    def pick(self, need: Need) -> S | None:
        """A connection for a request now; None when it has to wait.

        Requests that are waiting come first. Newest connections are preferred (LIFO), so that
        surplus ones become idle and close.
        """
        if self._queues[need]:
            return None
        if need is _SHARED and len(self.slots) == 1:  # as below, in a third of the time
            slot = self.slots[0]
            return slot if slot.room > 0 else None
        if need is _SHARED and self.kind is not _ECHOES:
            # One place each, and there may be many: who has something in flight has no room.
            for slot in reversed(self.slots):
                if slot.in_flight == 0 and slot.room > 0:
                    return slot
            return None
        return self._find(need)

    def _find(self, need: Need) -> S | None:
        best: S | None = None
        if need is _ALONE and not self._alone_left:
            return None
        choosy = need is _FRESH and len(self.slots) < self.max_connections
        for slot in reversed(self.slots):
            if need is _ALONE:
                if slot.empty:
                    return slot
            elif slot.room > 0 and not (choosy and slot.doubtful):
                if slot.in_flight == 0:
                    return slot
                if best is None or slot.in_flight < best.in_flight:
                    best = slot
        return best

    @property
    def _alone_left(self) -> int:
        """How many more connections may be had alone."""
        return max(0, self._max_alone - sum(slot.alone for slot in self.slots))

    def full(self, need: Need) -> bool:
        """True when no more requests may wait for that. Those that want a connection alone leave
        places to the others: uploads that stand still would turn small calls away, for which there
        are connections."""
        if need is Need.ALONE and len(self._queues[need]) >= self._max_alone_waiters:
            return True
        return self.waiting >= self.max_waiters

    def wait(self, waiter: W, need: Need, now: float) -> None:
        """Queue a request; requests are served in the order in which they came."""
        self._arrivals += 1
        self._queues[need].append((self._arrivals, waiter, now))
        self.waiting += 1

    def forget(self, waiter: W) -> None:
        """A waiting request has gone."""
        for queue in self._queues.values():
            for entry in queue:
                if entry[1] is waiter:
                    queue.remove(entry)
                    self._gone(1)
                    return

    def grant(self) -> tuple[W, S] | None:
        """The next waiting request that can be served, with its connection. Call until None.

        The caller starts the request before it calls again. One with a special need lets others
        pass only as long as there is nothing for it, or it would wait for ever under load.
        """
        waiting = [(queue[0][0], need) for need, queue in self._queues.items() if queue]
        for _, need in sorted(waiting, key=itemgetter(0)):
            slot = self._find(need)
            if slot is not None:
                waiter = self._queues[need].popleft()[1]
                self._gone(1)
                return waiter, slot
        return None

    def overdue(self, now: float) -> list[W]:
        """Waiting requests that have to be refused, because the queue has stood for too long;
        removed. To be called every now and then while requests wait.

        Those that wait for a first connection, or for a first reply to show what the peer is, do
        not wait for others to be done: their deadline is limit enough.
        """
        if not self.waiting or not self.slots or self.kind is PeerKind.UNKNOWN:
            self._standing.emptied()
            return []
        too_old = self._standing.too_old(now)
        refused = []
        for queue in self._queues.values():
            while queue and queue[0][2] < too_old:
                refused.append(queue.popleft()[1])
        self._gone(len(refused))
        return refused

    def _gone(self, count: int) -> None:
        """So many of those that waited do not any more."""
        self.waiting -= count
        if not self.waiting:
            self._standing.emptied()

    def take_waiters(self) -> list[W]:
        """Every waiting request, removed, in the order in which they came."""
        entries = sorted(chain.from_iterable(self._queues.values()), key=itemgetter(0))
        for queue in self._queues.values():
            queue.clear()
        self._gone(len(entries))
        return [waiter for _, waiter, _ in entries]

    # -- connections --------------------------------------------------------------------

    def dials(self, now: float) -> int:
        """How many connections to begin now for those who wait.

        For peers that share connections one dial serves everybody; a peer that renumbers needs one
        for each. While the kind is unknown everybody waits for the first reply, but not for long:
        see `PROBE_DELAY`.
        """
        sharing = len(self._queues[Need.SHARED]) + len(self._queues[Need.FRESH])
        if self.kind is PeerKind.ECHOES:
            sharing = min(sharing, 1)
        if self.kind is PeerKind.UNKNOWN:
            sharing = min(sharing, self._probes(now))
        else:
            self._probing_since = None
        wanted = min(len(self._queues[Need.ALONE]), self._alone_left) + sharing
        wanted = min(wanted, MAX_DIALS, self.max_connections - len(self.slots))
        return max(0, wanted - self.dialing)

    def _probes(self, now: float) -> int:
        """How many more connections there may be before the first reply."""
        if not self.slots:
            self._probing_since = None
            return 1
        if self._probing_since is None:
            self._probing_since = now
        steps = int((now - self._probing_since) / PROBE_DELAY)
        return max(0, (1 << min(steps, _MANY_PROBES)) - len(self.slots))

    @property
    def probing(self) -> bool:
        """True while requests wait for a first reply, and `dials` will soon say more."""
        return self.kind is PeerKind.UNKNOWN and self.waiting > 0

    def learned(self, kind: PeerKind) -> None:
        """What the peer is, or that it is not known any more."""
        self.kind = kind
        self._probing_since = None

    def add(self, slot: S) -> None:
        """A connection is ready."""
        self.slots.append(slot)

    def remove(self, slot: S) -> None:
        """A connection takes nothing any more."""
        if slot in self.slots:
            self.slots.remove(slot)
