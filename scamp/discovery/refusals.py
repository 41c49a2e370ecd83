"""What was refused lately, of a stream that has no end: counted by reason, and some of it shown."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Final

from scamp import limits

WINDOW: Final = 60.0
"""Seconds; what was refused in the last one to two of them is told."""

Rejection = tuple[str, str, str]


class Refusals:
    """Counts what was refused, and forgets it after a while. Pure: `now` is in seconds.

    Of each service and reason the last is shown, `limits.MAX_REJECTED_SHOWN` of them.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._shown: tuple[dict[tuple[str, str], str], dict[tuple[str, str], str]] = ({}, {})

    def add(self, rejection: Rejection, now: float) -> None:
        """One packet was refused."""
        self._turn(now)
        identity, reason, detail = rejection
        self._counts[1][reason] += 1
        key = (identity, reason)
        if key in self._shown[1] or len(self._shown[1]) < limits.MAX_REJECTED_SHOWN:
            self._shown[1][key] = detail

    def lost(self, count: int, now: float) -> None:
        """So many packets could not even be looked at."""
        self._turn(now)
        if count:
            self._counts[1]["overload"] += count

    def counts(self, now: float) -> MappingProxyType[str, int]:
        """How many, by reason."""
        self._turn(now)
        return MappingProxyType(dict(self._counts[0] + self._counts[1]))

    def shown(self, now: float) -> tuple[Rejection, ...]:
        """Some of them."""
        self._turn(now)
        both = {**self._shown[0], **self._shown[1]}
        found = ((identity, reason, detail) for (identity, reason), detail in both.items())
        return tuple(found)[: limits.MAX_REJECTED_SHOWN]

    def _turn(self, now: float) -> None:
        while now - self._since >= WINDOW:
            passed = now - self._since
            self._since = self._since + WINDOW if passed < 2 * WINDOW else now
            self._counts = (self._counts[1] if passed < 2 * WINDOW else Counter(), Counter())
            self._shown = (self._shown[1] if passed < 2 * WINDOW else {}, {})
