"""What the gateway counts, in the cheapest form that a scrape can be made from.

Everything belongs to the event loop's thread: no locks, no lookup of labels in the way of a
request. `exposition` turns it into Prometheus' text. Only announced actions become labels, at most
`max_actions` at a time, and their series go when the action goes: what strangers send makes none.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

from gateway.translate import METHODS, announced
from scamp.discovery import Registry

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.translate import Announced

MAX_ACTIONS: Final = 1000
"""Actions with series of their own; further ones share ``_other``."""

NO_ACTION: Final = "_none"
OTHER: Final = "_other"

BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""Upper bounds of the histograms, in seconds."""

_METHODS: Final = frozenset(METHODS)
_CLASSES: Final = ("0xx", "1xx", "2xx", "3xx", "4xx", "5xx")

LAG_INTERVAL: Final = 0.25
"""Seconds between two measurements of the event loop's lag."""


class Histogram:
    """Counts observations by bucket; not cumulative until it is read."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and cumulative count, as prometheus_client takes them."""
        total, out = 0, []
        for bound, count in zip((*BUCKETS, float("inf")), self.counts, strict=True):
            total += count
            out.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
        return out


class ActionSeries:
    """The series of one action."""

    __slots__ = ("bytes_in", "bytes_out", "duration", "label", "requests", "upstream", "where")

    def __init__(self, label: str, where: tuple[str, str, int] | None = None) -> None:
        self.label = label
        self.where = where
        """Sector, spelling and version; None for `NO_ACTION` and `OTHER`."""
        self.requests: dict[tuple[str, str, str], int] = {}
        """By method, status class and source."""
        self.duration = Histogram()
        self.upstream = Histogram()
        self.bytes_in = 0
        self.bytes_out = 0


class Metrics:
    """Counters of the public listener."""

    def __init__(self, registry: Registry, *, max_actions: int = MAX_ACTIONS) -> None:
        self.none = ActionSeries(NO_ACTION)
        """For requests that matched no action."""
        self.own = Histogram()
        """The gateway's share of the time, of requests that were not streamed."""
        self.cut = 0
        """Answers that were cut after their first byte had gone out."""
        self.lag = Histogram()
        self.reloads: Counter[tuple[str, str]] = Counter()
        """By what was loaded and ``ok`` or ``failed``."""
        self._registry = registry
        self._generation = registry.generation
        self._max_actions = max_actions
        self._actions: dict[str, ActionSeries] = {}
        self._other: ActionSeries | None = None

    def series(self, action: Announced) -> ActionSeries:
        """The series for an announced action. Keep it until the index changes."""
        found = self._actions.get(action.label)
        if found is not None:
            return found
        if len(self._actions) >= self._max_actions:
            self.prune()
        if len(self._actions) < self._max_actions:
            where = (action.sector, action.spelling, action.version)
            found = self._actions[action.label] = ActionSeries(action.label, where)
            return found
        if self._other is None:
            self._other = ActionSeries(OTHER)
        return self._other

    def observe(self, exchange: Exchange, total: float) -> None:
        """Count one request that is over, after `total` seconds."""
        series = exchange.series
        method = exchange.method
        key = (
            method if method in _METHODS else OTHER,
            _CLASSES[exchange.status // 100],
            exchange.source,
        )
        requests = series.requests
        requests[key] = requests.get(key, 0) + 1
        series.duration.observe(total)
        series.bytes_in += exchange.bytes_in
        series.bytes_out += exchange.bytes_out
        upstream = exchange.upstream
        if upstream:
            series.upstream.observe(upstream)
        if exchange.was_cut:
            self.cut += 1
        if not exchange.streamed:
            self.own.observe(max(0.0, total - upstream - exchange.queued - exchange.waited))

    def count_reload(self, what: str, *, ok: bool) -> None:
        """A followed file was loaded or refused. `what` is one of a few fixed words."""
        self.reloads[what, "ok" if ok else "failed"] += 1

    def prune(self) -> None:
        """Drop the series of actions that are no longer announced."""
        if self._generation == self._registry.generation:
            return
        self._generation = self._registry.generation
        gone = [label for label, series in self._actions.items() if not self._announced(series)]
        for label in gone:
            del self._actions[label]

    def _announced(self, series: ActionSeries) -> bool:
        if series.where is None:
            return True
        offers = self._registry.find(*series.where)
        return bool(offers) and announced(offers, 1.0).label == series.label

    def all_series(self) -> list[ActionSeries]:
        """Every series there is now."""
        self.prune()
        other = [self._other] if self._other is not None else []
        return [self.none, *self._actions.values(), *other]


class LoopLag:
    """Measures how late the event loop runs its timers. `start` and `stop` it within the loop."""

    def __init__(self, histogram: Histogram, interval: float = LAG_INTERVAL) -> None:
        self._histogram = histogram
        self._interval = interval
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; the next measurement is one interval away."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """End. May be called twice."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._interval
        self._handle = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._histogram.observe(max(0.0, loop.time() - due))
        self._schedule(loop)
