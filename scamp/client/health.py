"""Whether an instance is to be used, from what became of its connections and requests. Pure.

`now` is any monotonic time in seconds, always the same clock.
"""

from __future__ import annotations

import math
import random
from copy import copy
from typing import Final

from scamp.client.balance import share
from scamp.errors import ConnectFailed, FingerprintMismatch, ScampError
from scamp.limits import SILENT_AFTER

BACKOFF_FIRST: Final = 1.0
BACKOFF_MAX: Final = 60.0
PANIC_INTERVAL: Final = 0.1
"""Seconds between attempts on an instance that is out, when every instance is."""

_MANY: Final = 10
"""Doublings of BACKOFF_FIRST, which come to more than BACKOFF_MAX."""


class Health:
    """A failure to connect or to verify, or the loss of a connection in use, takes an instance out
    for a while (1 s, doubling to 60 s, with jitter), until a connection succeeds; the next time it
    is for twice as long, unless something was answered meanwhile. So does a PING without an answer,
    and SILENT_AFTER requests in a row without any reply: a process that hangs may still accept
    connections. Errors that the service answers with never do. What comes back begins with a part
    of its weight.
    """

    def __init__(self, slow_start: float) -> None:
        """`slow_start`: seconds in which its share of the weight grows."""
        self._slow_start = slow_start
        self._failures = 0
        self._retry_at = 0.0
        self._refused_at = -math.inf
        self.out: bool = False
        self.shunned: bool = False
        """True while it is out, or does not get beyond accepting a first connection."""
        self.warming_until: float = 0.0
        """When it has all of its weight again."""
        self.silence: int = 0
        """Requests in a row that ran out of time without a reply; who gets a reply sets it to 0."""
        self.last_error: ScampError | None = None
        self.turned_at: float | None = None
        """When it last went out or came back; None when it never did."""

    # -- what happened ------------------------------------------------------------------

    def failed(self, error: ScampError, now: float) -> bool:
        """It is out from `now` on. False when it was, and this belongs to the same outage, however
        many connections that took down."""
        self.note(error, now)
        if self.resting(now):
            return False
        if not self.out:
            self.turned_at = now
        self.out = self.shunned = True
        pause = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(self._failures, _MANY))
        self._retry_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
        self._failures += 1
        return True

    def note(self, error: ScampError, now: float) -> None:
        """Only remember what went wrong last: a copy, or the frames that `error` went through would
        stay with all that they hold, bodies and tickets too."""
        self.last_error = copy(error)
        if isinstance(error, ConnectFailed):
            self._refused_at = now

    def unanswered(self) -> bool:
        """A request ran out of time, and nothing that shared its connection had a reply either.
        True when that were so many in a row that it has to be out."""
        self.silence += 1
        return self.silence >= SILENT_AFTER

    def answered(self) -> None:
        """It has replied: its next pause is a short one."""
        self._failures = 0

    def connected(self, now: float) -> bool:
        """There is a connection. True when it was out, and is back."""
        was_out = self.out
        if was_out:
            self.turned_at = now
            self.warm_up(now)
        self.out = self.shunned = False
        return was_out

    def warm_up(self, now: float) -> None:
        """Begin with a part of its weight: what has just started is slow, and everybody comes."""
        self.warming_until = now + self._slow_start

    # -- what follows -------------------------------------------------------------------

    @property
    def retry_at(self) -> float:
        """When the background tries again, while it is out."""
        return self._retry_at

    @property
    def failures(self) -> int:
        """How often it has been out for a pause since it last answered."""
        return self._failures

    @property
    def refused_at(self) -> float:
        """When it last let nobody in; minus infinity when it never did."""
        return self._refused_at

    @property
    def refusing(self) -> bool:
        """True when it is out for not having let us in; one that lost connections may do so now."""
        return self.out and isinstance(self.last_error, ConnectFailed)

    def resting(self, now: float) -> bool:
        """True while it is out and its pause is not over."""
        return self.out and now < self._retry_at

    def may_panic(self, now: float) -> bool:
        """True when it may be tried though it is out, because every other one is out too.

        Never when somebody else answers at its address: that does not pass by itself, so only the
        background looks at it, in its own time.
        """
        if isinstance(self.last_error, FingerprintMismatch):
            return False
        return now - self._refused_at >= PANIC_INTERVAL

    def share(self, now: float) -> float:
        """The part of its weight that counts when it is compared with others."""
        return share(self.warming_until, now, self._slow_start)
