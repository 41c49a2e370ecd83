"""The deadlines of many requests, watched by one timer instead of one for each."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

TICK: Final = 0.05
"""Seconds by which a deadline may be noticed too late; never too early."""

_ROOM: Final = 64
"""Ticks that are kept before those are looked for at which nobody waits any more."""

_BIT: Final = 1e-6  # seconds, more than a float is wrong by


class Waiting(Protocol):
    """Who has a deadline."""

    def expire(self) -> None:
        """It is over. To be called from the event loop."""


class Expiry:
    """Calls back at deadlines, unless told that it need not. Belongs to one event loop.

    Who waits is in the set of the tick that follows its deadline. There is at most one timer: for
    the first tick at which somebody waits, or did when it was set.
    """

    __slots__ = ("_at", "_room", "_ticks", "_timer")

    def __init__(self) -> None:
        self._ticks: dict[int, set[Waiting]] = {}
        self._room = _ROOM
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0  # the tick that it is set for

    def watch(self, at: float, waiting: Waiting) -> set[Waiting]:
        """Call `waiting.expire` at loop time `at`, or up to TICK later. Discard it from the set
        that this returns when it does not wait any more."""
        tick = int(at / TICK) + 1
        those = self._ticks.get(tick)
        if those is None:
            those = self._add(tick)
        those.add(waiting)
        return those

    def _add(self, tick: int) -> set[Waiting]:
        if len(self._ticks) >= self._room:
            self._drop_empty()
            self._room = max(_ROOM, 2 * len(self._ticks))
        those = self._ticks[tick] = set()
        if self._timer is None or tick < self._at:
            self._arm(tick)
        return those

    def _drop_empty(self) -> None:
        self._ticks = {tick: those for tick, those in self._ticks.items() if those}

    def _arm(self, tick: int) -> None:
        self.close()
        self._at = tick
        self._timer = asyncio.get_running_loop().call_at(tick * TICK, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + _BIT
        over = [self._ticks.pop(tick) for tick in sorted(self._ticks) if tick * TICK <= now]
        self._drop_empty()
        if self._ticks:
            self._arm(min(self._ticks))
        for those in over:
            for waiting in list(those):
                waiting.expire()

    def close(self) -> None:
        """Watch nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
