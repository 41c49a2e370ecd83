"""Power of two choices: which of several instances gets a request. Pure.

Two are drawn by weight, and the one with less in flight for its weight is taken: nearly as good as
to look at all of them, at a cost that does not grow with their number, and no herd follows the
least loaded one. Drawing by weight matters when little is in flight: comparing alone would leave
nothing to any but the heaviest.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Container, Sequence
from itertools import accumulate
from typing import Final, Generic, Protocol, TypeVar

FIRST_SHARE: Final = 0.1
"""Of its weight, what an instance has at the beginning of its slow start."""

DRAWS: Final = 8
"""Draws before all are looked at, since most seem to be out, full or tried."""


class Backend(Protocol):
    """What is looked at in an instance."""

    in_flight: int
    tight: int
    """Requests in flight below which it is not full for certain."""
    warming_until: float
    """When its slow start ends."""

    @property
    def shunned(self) -> bool:
        """True while it is only to be used when there is nothing better."""

    @property
    def full(self) -> bool:
        """True when it takes nothing more."""


def share(until: float, now: float, seconds: float) -> float:
    """The part of its weight that an instance has whose slow start of `seconds` ends at `until`.

    Grows evenly from FIRST_SHARE to 1.
    """
    if until <= now:
        return 1.0
    return max(FIRST_SHARE, 1.0 - (1.0 - FIRST_SHARE) * (until - now) / seconds)


B = TypeVar("B", bound=Backend)
T = TypeVar("T")


class Balance(Generic[B, T]):
    """The instances that offer one thing; each comes with what its choice stands for."""

    __slots__ = ("_cumulative", "_seconds", "_total", "choices", "weights")

    def __init__(
        self, choices: Sequence[tuple[B, T]], weights: Sequence[float], slow_start: float
    ) -> None:
        """`weights` are above 0, one for each; `slow_start` in seconds is that of all."""
        self.choices: Sequence[tuple[B, T]] = choices
        self.weights: Sequence[float] = weights
        self._seconds = slow_start
        self._cumulative = None if len(set(weights)) < 2 else list(accumulate(weights))
        self._total = sum(weights)

    def pick(self, now: float, avoid: Container[B] = ()) -> tuple[B, T] | None:
        """The one to be used, none of `avoid`; None when all others are shunned or full."""
        choices = self.choices
        if len(choices) == 1:
            only = choices[0]
            return only if _takes(only[0], avoid) else None
        first = self._draw(now, avoid, -1)
        second = -1 if first < 0 else self._draw(now, avoid, first)
        if second < 0:
            weights = self._weights(now, avoid)
            if first < 0:
                first = _take(weights)
                if first < 0:
                    return None
            weights[first] = 0.0
            second = _take(weights)
            if second < 0:
                return choices[first]
        return choices[second if self._load(second, now) < self._load(first, now) else first]

    def _draw(self, now: float, avoid: Container[B], other: int) -> int:
        """The place of one that takes requests, drawn by weight, but not `other`; -1 after DRAWS
        tries. One in its slow start is passed over as often as its share says."""
        choices, cumulative = self.choices, self._cumulative
        count = len(choices)
        for _ in range(DRAWS):
            if cumulative is None:
                at = int(random.random() * count)  # noqa: S311 - not a secret
            else:
                drawn = random.random() * self._total  # noqa: S311
                at = min(bisect(cumulative, drawn), count - 1)
            if at == other:
                continue
            backend = choices[at][0]
            if backend.warming_until > now:
                part = share(backend.warming_until, now, self._seconds)
                if random.random() >= part:  # noqa: S311
                    continue
            if _takes(backend, avoid):
                return at
        return -1

    def _weights(self, now: float, avoid: Container[B]) -> list[float]:
        """Of each; 0 where nothing can go."""
        return [
            weight * share(backend.warming_until, now, self._seconds)
            if _takes(backend, avoid)
            else 0.0
            for (backend, _), weight in zip(self.choices, self.weights, strict=True)
        ]

    def _load(self, at: int, now: float) -> float:
        backend = self.choices[at][0]
        weight = self.weights[at]
        if backend.warming_until > now:
            weight *= share(backend.warming_until, now, self._seconds)
        return backend.in_flight / weight


def _takes(backend: B, avoid: Container[B]) -> bool:
    if backend.shunned or (backend.in_flight >= backend.tight and backend.full):
        return False
    return backend not in avoid


def _take(weights: Sequence[float]) -> int:
    """The place of one, drawn by weight; -1 when all are 0."""
    if not any(weights):
        return -1
    (at,) = random.choices(range(len(weights)), weights)  # noqa: S311
    return at
