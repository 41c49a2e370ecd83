"""The rest of replies that have begun, waited for by one timer instead of one for each."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scamp.client.exchange import Exchange

HOLD: Final = 0.005
"""Seconds that the rest of a reply is waited for. Some services, Go's among them, send HEADER, DATA
and EOF in three writes; and a stream may well be heard of so much later."""

LITTLE: Final = 32 * 1024
"""Bytes of a body that is still waited for; of a larger one the beginning may be passed on."""

_BIT: Final = 1e-6  # seconds, more than a float is wrong by


class Patience:
    """Tells exchanges when the rest of their replies does not come at once. For one event loop."""

    __slots__ = ("_timer", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Exchange]] = deque()  # each for as long: in their order
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many replies are waited for, or were a moment ago."""
        return len(self._waiting)

    def hold(self, exchange: Exchange) -> None:
        """Call its `go_on` in HOLD seconds, whether it is still of use then or not."""
        loop = asyncio.get_running_loop()
        due = loop.time() + HOLD
        self._waiting.append((due, exchange))
        if self._timer is None:
            self._timer = loop.call_at(due, self._turn)

    def _turn(self) -> None:
        self._timer = None
        loop, waiting = asyncio.get_running_loop(), self._waiting
        now = loop.time() + _BIT
        while waiting and waiting[0][0] <= now:
            waiting.popleft()[1].go_on()
        if waiting:
            self._timer = loop.call_at(waiting[0][0], self._turn)

    def close(self) -> None:
        """Tell nobody any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
