"""How a worker thread works without keeping the event loop's thread waiting."""

from __future__ import annotations

import time
from typing import Final

_SLICE: Final = 0.0005
"""Seconds of work after which the worker steps aside."""

_ASIDE: Final = 0.00005
"""Seconds for which it does; enough for a waiting thread to wake up."""


STRIDE: Final = 256
"""Actions between two pauses: a tenth of a millisecond."""


def no_pause() -> None:
    """For callers that need not let other threads run in between."""


class Pace:
    """Called between small steps; sleeps for a moment when enough work was done.

    The loop's thread has to wait for the interpreter lock after each of its system calls, and would
    otherwise wait 5 ms every time.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        if time.perf_counter() - self._since > _SLICE:
            time.sleep(_ASIDE)
            self._since = time.perf_counter()
