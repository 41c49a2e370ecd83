"""Which announcements are too old to be what a service says now.

A record that is older than the newest of its service is a replay. `TOLERANCE` is granted for Go,
which prints microseconds unpadded and so steps back within a second.

A service whose clock was ahead, and was set right while it ran, is older than what it said before:
it would be refused for as long as its clock was wrong, years perhaps. So a newest time that lies
in the future gives way to one of now. This costs little: only what was signed in the last
`CLOCK_TOLERANCE` seconds, or with the wrong time, can be repeated against such a service. That our
own clock is right is assumed for this, and for nothing else.
"""

from __future__ import annotations

from typing import Final

TOLERANCE: Final = 1.0
"""Seconds by which a service may step back."""

CLOCK_TOLERANCE: Final = 300.0
"""Seconds by which two clocks that are right may differ."""


def is_set_right(newest: float, timestamp: float, wall: float | None) -> bool:
    """Whether a service whose newest time was in the future now announces the right one. All are
    seconds since 1970; `wall` is the time now, None when nobody knows."""
    if wall is None:
        return False
    return newest > wall + CLOCK_TOLERANCE and abs(timestamp - wall) <= CLOCK_TOLERANCE
