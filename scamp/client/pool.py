"""Which request goes on which connection, what to dial and what to close: decisions, no I/O.

`PoolCore` knows connections only by what `Slot` says of them. It is told what happens and answers
with what to do; `scamp.client.instance` does it.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, Protocol, TypeVar

from scamp.client.traits import PeerKind

MAX_DIALS: Final = 8
"""Connections to one instance that may be on their way at once."""


class Slot(Protocol):
    """What the pool looks at in a connection."""

    @property
    def room(self) -> int:
        """How many more requests may be started now."""

    @property
    def empty(self) -> bool:
        """True when a request may have it for itself."""

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""


S = TypeVar("S", bound=Slot)
W = TypeVar("W")


class PoolCore(Generic[S, W]):
    """The connections to one instance and the requests that wait for one.

    `W` is whatever stands for a waiting request; the pool hands it back with its connection.
    """

    def __init__(self, kind: PeerKind, *, max_connections: int, max_waiters: int) -> None:
        self.kind = kind
        self.max_connections = max_connections
        self.max_waiters = max_waiters
        self.dialing = 0
        self.slots: list[S] = []
        self._arrivals = 0
        self._shared: deque[tuple[int, W]] = deque()  # with the number of the arrival
        self._alone: deque[tuple[int, W]] = deque()

    # -- requests -----------------------------------------------------------------------

    def pick(self, *, alone: bool) -> S | None:
        """A connection for a request now; None when it has to wait.

        Requests that are waiting come first. Newest connections are preferred (LIFO), so that
        surplus ones become idle and close.
        """
        if self._alone if alone else self._shared:
            return None
        return self._find(alone=alone)

    def _find(self, *, alone: bool) -> S | None:
        best: S | None = None
        for slot in reversed(self.slots):
            if alone:
                if slot.empty:
                    return slot
            elif slot.room > 0:
                if slot.in_flight == 0:
                    return slot
                if best is None or slot.in_flight < best.in_flight:
                    best = slot
        return best

    @property
    def full(self) -> bool:
        """True when no more requests may wait."""
        return self.waiting >= self.max_waiters

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._shared) + len(self._alone)

    def wait(self, waiter: W, *, alone: bool) -> None:
        """Queue a request; requests are served in the order in which they came."""
        self._arrivals += 1
        (self._alone if alone else self._shared).append((self._arrivals, waiter))

    def forget(self, waiter: W) -> None:
        """A waiting request has gone."""
        for queue in (self._shared, self._alone):
            for entry in queue:
                if entry[1] is waiter:
                    queue.remove(entry)
                    return

    def grant(self) -> tuple[W, S] | None:
        """The next waiting request that can be served, with its connection. Call until None.

        The caller starts the request before it calls again. One that needs a connection alone lets
        others pass only as long as there is none for it, or it would wait for ever under load.
        """
        queues = [(queue, queue is self._alone) for queue in (self._shared, self._alone) if queue]
        queues.sort(key=lambda entry: entry[0][0][0])
        for queue, alone in queues:
            slot = self._find(alone=alone)
            if slot is not None:
                return queue.popleft()[1], slot
        return None

    def take_waiters(self) -> list[W]:
        """Every waiting request, removed."""
        waiters = [waiter for queue in (self._shared, self._alone) for _, waiter in queue]
        self._shared.clear()
        self._alone.clear()
        return waiters

    # -- connections --------------------------------------------------------------------

    def dials(self) -> int:
        """How many connections to begin now for those who wait.

        While the kind of the peer is unknown, and for peers that share connections, one dial serves
        everybody; a peer that renumbers needs one for each.
        """
        alone = len(self._alone)
        shared = len(self._shared)
        if self.kind is not PeerKind.RENUMBERS:
            shared = min(shared, 1)
        wanted = min(alone + shared, MAX_DIALS, self.max_connections - len(self.slots))
        return max(0, wanted - self.dialing)

    def add(self, slot: S) -> None:
        """A connection is ready."""
        self.slots.append(slot)

    def remove(self, slot: S) -> None:
        """A connection takes nothing any more."""
        if slot in self.slots:
            self.slots.remove(slot)
