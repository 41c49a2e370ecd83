"""One point in time, handed down, instead of many timeouts."""

from __future__ import annotations

import time
from typing import NamedTuple


class Deadline(NamedTuple):
    """When to give up, on the monotonic clock, which is also asyncio's.

    `seconds` is the whole allowance, for messages.
    """

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """`seconds` from now."""
        return cls(time.monotonic() + seconds, seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        """True when nothing is left."""
        return time.monotonic() >= self.at
