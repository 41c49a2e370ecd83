"""How many requests are refused while the event loop is late. Pure."""

from __future__ import annotations

from typing import Final

SHED_HERE: Final = ("in_flight", "action", "loop_lag", "held_bodies")
"""Limits because of which the front refuses requests; the requester has more."""

LATE_IN_A_ROW: Final = 8
"""Measurements, a quarter of a second apart at least, that are all late before anything is refused:
a machine that is busy with something else for a moment is no overload."""

STEP: Final = 0.1
"""What one more measurement adds to the share that is refused, or takes from it."""

MOST: Final = 0.9
"""Largest share that is refused: whoever tries again gets through."""


class Lateness:
    """Refuses a growing share of new requests while the loop stays late, a falling one after that.

    A loop that is late makes everybody slow. With fewer requests it is late no more, and the share
    settles where the loop is just not late.
    """

    __slots__ = ("_debt", "_limit", "_row", "share")

    def __init__(self, limit: float) -> None:
        """`limit` in seconds is what counts as late; 0 refuses nobody, ever."""
        self._limit = limit
        self._row = 0
        self._debt = 0.0
        self.share = 0.0
        """Of new requests, what is refused now."""

    def measured(self, lag: float) -> None:
        """The loop ran a timer `lag` seconds late."""
        if not self._limit:
            return
        if lag <= self._limit:
            self._row = 0
            self.share = 0.0 if self.share < 1.5 * STEP else self.share - STEP
            return
        self._row += 1
        if self._row >= LATE_IN_A_ROW:
            self.share = min(MOST, self.share + STEP)

    def refuses(self) -> bool:
        """Whether the next request is one of those; asking counts it."""
        self._debt += self.share
        if self._debt < 1.0:
            return False
        self._debt -= 1.0
        return True
