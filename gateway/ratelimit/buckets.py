"""The buckets of many callers, all of one rate, in bounded memory."""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace
from typing import Final, TypeAlias

from gateway.ratelimit.rate import Rate

Key: TypeAlias = int | bytes
"""A caller. Within one `Buckets` all keys are of one type."""

MAX_ENTRIES: Final = 131_072
"""Callers whose buckets are not full, of one limit: some 40 MB. More than the 65,536 networks (/64)
of an IPv6 site (/48), so that one site alone cannot fill it."""

_SWEEP: Final = 2
"""Entries that are looked at for each one that is added: the table shrinks faster than it grows."""

_LOOKS: Final = 16
"""Entries among which the one to go is chosen when the table is full."""


class Buckets:
    """When each caller's bucket will be full again; a bucket that is full has no entry.

    When there are too many entries, that of the fullest bucket goes: of the least use to whoever
    owns it. A bucket that is empty goes only when `_LOOKS` others are so too.
    `docs/decisions/0005-rate-limits.md` says what that is good for.
    """

    __slots__ = ("_full", "_queue", "dropped", "max_entries", "rate")

    def __init__(self, rate: Rate, max_entries: int = MAX_ENTRIES) -> None:
        self.rate = rate
        self.max_entries = max_entries
        self.dropped = 0
        """Buckets that had to go before they were full."""
        self._full: dict[Key, int] = {}
        # One (moment, key) for each entry, its moment one at which the bucket was to be full once:
        # never later than it is to be now.
        self._queue: list[tuple[int, Key]] = []

    def __len__(self) -> int:
        return len(self._full)

    def level(self, key: Key, now: int) -> int:
        """What is missing in the bucket, in the rate's ticks. `now` is in microseconds."""
        return max(0, self._full.get(key, 0) - now * self.rate.count)

    def put(self, key: Key, now: int, level: int) -> None:
        """Make `level` that of the bucket. `now` is in microseconds and never goes back."""
        ticks = now * self.rate.count
        full = ticks + level
        if key not in self._full:
            self._make_room(ticks)
            heappush(self._queue, (full, key))
        self._full[key] = max(full, self._full.get(key, 0))

    def _make_room(self, ticks: int) -> None:
        queue = self._queue
        for _ in range(_SWEEP):
            if queue and queue[0][0] <= ticks:
                self._settle(ticks)
        if len(self._full) >= self.max_entries:
            self._drop(ticks)

    def _settle(self, ticks: int) -> None:
        """Take the first in the queue out if it is full, else put it where it belongs."""
        key = self._queue[0][1]
        full = self._full[key]
        if full <= ticks:
            heappop(self._queue)
            del self._full[key]
        else:
            heapreplace(self._queue, (full, key))

    def _drop(self, ticks: int) -> None:
        """Take out the fullest bucket, or the fullest of those that were so long ago."""
        queue, full = self._queue, self._full
        seen: list[tuple[int, Key]] = []
        while queue and len(seen) < _LOOKS:
            moment, key = heappop(queue)
            seen.append((full[key], key))
            if moment == full[key]:  # nothing in the queue can be fuller
                break
        seen.sort()
        moment, key = seen[0]
        del full[key]
        self.dropped += moment > ticks
        for one in seen[1:]:
            heappush(queue, one)
