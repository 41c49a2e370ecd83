"""How many retries are allowed: a share of the recent requests, so that they make no storm."""

from __future__ import annotations

from typing import Final

WINDOW: Final = 10
"""Seconds that count as recent."""


class RetryBudget:
    """At most `share` retries per request of the last 10 s, and always `minimum` of them.

    Counts in buckets of one second; `now` is any monotonic time in seconds.
    """

    __slots__ = ("_minimum", "_requests", "_retries", "_second", "_share")

    def __init__(self, share: float, minimum: int) -> None:
        self._share = share
        self._minimum = minimum
        self._requests = [0] * WINDOW
        self._retries = [0] * WINDOW
        self._second = 0

    def _turn(self, now: float) -> int:
        second = int(now)
        passed = second - self._second
        if passed > 0:
            for offset in range(1, min(passed, WINDOW) + 1):
                bucket = (self._second + offset) % WINDOW
                self._requests[bucket] = self._retries[bucket] = 0
            self._second = second
        return self._second % WINDOW

    def request(self, now: float) -> None:
        """A request came."""
        second = self._second
        if now - second >= 1:
            self._turn(now)
            second = self._second
        self._requests[second % WINDOW] += 1

    def take(self, now: float) -> bool:
        """Take one retry; False when there is none left."""
        if self.left(now) < 1:
            return False
        self._retries[self._second % WINDOW] += 1
        return True

    def left(self, now: float) -> int:
        """Retries that are still allowed."""
        self._turn(now)
        allowed = max(self._minimum, int(sum(self._requests) * self._share))
        return max(0, allowed - sum(self._retries))
