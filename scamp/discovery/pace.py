"""How a worker thread works without keeping the event loop's thread waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SLICE: Final = 0.0005
"""Seconds of work after which the worker steps aside."""

_ASIDE: Final = 0.00005
"""Seconds for which it does; enough for a waiting thread to wake up."""


STRIDE: Final = 256
"""Actions between two pauses: a tenth of a millisecond."""


_RUN: Final = 2048
"""Items that are sorted at once: a millisecond."""


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


def paced(items: Iterable[T], pause: Callable[[], None], stride: int = 64) -> Iterator[T]:
    """The items, with a `pause` now and then: for loops with steps of a microsecond."""
    for number, item in enumerate(items):
        if not number % stride:
            pause()
        yield item


def paced_sort(items: Sequence[T], key: Callable[[T], Any], pause: Callable[[], None]) -> list[T]:
    """As `sorted`, with a `pause` now and then: of 100,000 items at once that is a call of 70 ms
    in which no other thread runs."""
    runs = []
    for start in range(0, len(items), _RUN):
        pause()
        runs.append(sorted(items[start : start + _RUN], key=key))
    found: list[T] = []
    for number, item in enumerate(merge(*runs, key=key)):
        if not number % STRIDE:
            pause()
        found.append(item)
    return found


def let_go(parts: list[Any], pause: Callable[[], None], stride: int = STRIDE) -> None:
    """Empty a list that may have the last references to its items, with a `pause` after `stride` of
    them: to free 100,000 at once is a call of some 20 ms, too."""
    while parts:
        pause()
        del parts[-stride:]
