"""When a queue has stood for so long that waiting in it is of no use. Pure.

A queue that empties again and again takes up bursts, however long it gets. One that never empties
makes everybody wait, and serves no more for it: then what has waited longer than a target is
refused, so that those who are served have waited about that and not until their deadline (after
CoDel, RFC 8289).
"""

from __future__ import annotations

import math


class StandingQueue:
    """Tells from when on waiting requests are refused. Any monotonic `now`, in seconds.

    `target` is how long a request may wait once the queue has not been empty for `interval`; a
    `target` of 0 refuses nobody.
    """

    __slots__ = ("_interval", "_since", "_target")

    def __init__(self, target: float, interval: float) -> None:
        self._target = target
        self._interval = interval
        self._since: float | None = None

    def emptied(self) -> None:
        """Nobody waits, or not for others to be done."""
        self._since = None

    def too_old(self, now: float) -> float:
        """Who came before this has waited for too long; minus infinity when nobody has.

        To be called while somebody waits: the first call after `emptied` begins the interval.
        """
        if self._since is None:
            self._since = now
        if not self._target or now - self._since < self._interval:
            return -math.inf
        return now - self._target
