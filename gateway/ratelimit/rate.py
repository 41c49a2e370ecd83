"""A rate, its text, and the arithmetic of a bucket that is filled at that rate.

A bucket is known by its level: what was taken out and has not come back yet; 0 is a full bucket.
Levels are whole numbers of ticks, so that nothing is rounded: a request takes `token` ticks, and
`per_second` ticks come back each second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MAX_COUNT: Final = 1_000_000
"""Requests in a period, and in a burst: more is no limit for a gateway. With the longest period a
level still has 64 bits."""

MAX_PERIOD: Final = 31 * 86_400
"""Seconds. A bucket that takes longer to fill is a quota, which has to outlast restarts."""

_MICRO: Final = 1_000_000

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHOWN: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_RATE: Final = re.compile(
    r"(?P<count>[0-9]{1,9})\s*/\s*(?P<number>[0-9]{1,9})?\s*"
    r"(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)"
    r"(?:\s*;\s*burst\s*=\s*(?P<burst>[0-9]{1,9}))?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in each `period` seconds; up to `burst` of them at once."""

    count: int
    period: int
    burst: int
    token: int = field(init=False, repr=False, compare=False)
    """Ticks of one request."""
    per_second: int = field(init=False, repr=False, compare=False)
    """Ticks that come back in a second."""
    room: int = field(init=False, repr=False, compare=False)
    """The highest level there is: an empty bucket."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that are out of range."""
        for name, value, most in (
            ("count", self.count, MAX_COUNT),
            ("period", self.period, MAX_PERIOD),
            ("burst", self.burst, MAX_COUNT),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"a rate's {name} is between 1 and {most}, not {value}")
        object.__setattr__(self, "token", self.period * _MICRO)
        object.__setattr__(self, "per_second", self.count * _MICRO)
        object.__setattr__(self, "room", self.burst * self.token)

    @classmethod
    def parse(cls, text: object) -> Rate:
        """Read ``600/min``, ``10/s``, ``100/15min``, ``600/min;burst=50``.

        Units are s, m (min), h and d, or their names; burst is the count unless it is given.
        Raises ValueError for all else.
        """
        if isinstance(text, cls):
            return text
        match = _RATE.fullmatch(str(text).strip())
        if match is None:
            raise ValueError("not COUNT/UNIT, such as 600/min, 10/s, 100/15min or 10/s;burst=50")
        count = int(match["count"])
        period = int(match["number"] or 1) * _UNITS[match["unit"][0].lower()]
        return cls(count, period, int(match["burst"] or count))

    def __str__(self) -> str:
        burst = "" if self.burst == self.count else f";burst={self.burst}"
        unit, seconds = next(item for item in _SHOWN if self.period % item[1] == 0)
        number = self.period // seconds
        return f"{self.count}/{number if number > 1 else ''}{unit}{burst}"

    def remaining(self, level: int) -> int:
        """Requests that would be let through at once."""
        return (self.room - level) // self.token

    def next_token(self, level: int) -> int:
        """Seconds until there is one more token, rounded up; 0 when the bucket is full."""
        return -(-((level - 1) % self.token + 1) // self.per_second) if level else 0

    def wait(self, level: int) -> int:
        """Seconds until a request would be let through, rounded up; 0 when it would be now."""
        return max(0, -(-(level + self.token - self.room) // self.per_second))
