"""What the gateway counts itself, request by request; `exposition` has what others hold.

Labels are looked up once per action, not once per request. Only announced actions become labels, at
most `max_actions` at a time, and their series go when the action goes: what strangers send makes
none.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tallied
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.registry import Collector

from gateway.actions import METHODS, announced
from gateway.families import CAUSES, CLASSES, NO_ACTION, OTHER, declared
from scamp.discovery import Registry
from scamp.discovery.model import action_key

if TYPE_CHECKING:
    from gateway.actions import Announced
    from gateway.exchange import Exchange

T = TypeVar("T")

MAX_ACTIONS: Final = 1000
"""Actions with series of their own; further ones share ``_other``."""

BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
"""Upper bounds of the histograms, in seconds."""

PIECE: Final = 20
"""Actions whose samples are read at once. All of a thousand would hold every request up for a tenth
of a second; see `state.RunningState.families`."""

_METHODS: Final = frozenset(METHODS)

QUEUED: Final = 0.001
"""Seconds from which on a request counts as one that had to wait for a connection."""

LAG_INTERVAL: Final = 0.25
"""Seconds between two measurements of the event loop's lag."""


# One more series for each counter and histogram, for what a counter's reset tells as well. The
# library knows this for the whole process only, and has no types for it.
disable_created_metrics()  # type: ignore[no-untyped-call]


def _counter(name: str) -> Counter:
    family = declared(name)
    return Counter(family.name, family.text, [*family.labels], registry=None)


def _gauge(name: str) -> Gauge:
    family = declared(name)
    return Gauge(family.name, family.text, [*family.labels], registry=None)


def _histogram(name: str) -> Histogram:
    family = declared(name)
    return Histogram(family.name, family.text, [*family.labels], buckets=BUCKETS, registry=None)


class PerAction:
    """The families that have an action as a label."""

    def __init__(self) -> None:
        self.requests = _counter("requests")
        self.duration = _histogram("request_duration_seconds")
        self.upstream = _histogram("upstream_duration_seconds")
        self.bytes_in = _counter("request_body_bytes")
        self.bytes_out = _counter("response_body_bytes")
        self.by_action_alone = (self.duration, self.upstream, self.bytes_in, self.bytes_out)


def count_of(counter: Counter) -> float:
    """The value of one series, without making samples of it. From any thread."""
    return float(counter._value.get())


def buckets_of(histogram: Histogram) -> list[float]:
    """How much fell into each of `BUCKETS`, and beyond the last. From any thread."""
    return [float(bucket.get()) for bucket in histogram._buckets]


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers of one `ActionSeries`."""

    requests: dict[tuple[str, str, str], float]
    """By method, status class and source."""
    duration: list[float]
    """As `buckets_of`."""
    upstream: list[float]
    bytes_in: float
    bytes_out: float


class ActionSeries:
    """The series of one action, at hand."""

    __slots__ = (
        "_families", "_requests", "bytes_in", "bytes_out", "duration", "label", "upstream", "where"
    )  # fmt: skip

    def __init__(
        self, families: PerAction, label: str, where: tuple[str, str, int] | None = None
    ) -> None:
        self.label = label
        self.where = where
        """Sector, spelling and version; None for `NO_ACTION` and `OTHER`."""
        self._families = families
        self._requests: dict[tuple[str, str, str], Counter] = {}
        self.duration = families.duration.labels(label)
        self.upstream = families.upstream.labels(label)
        self.bytes_in = families.bytes_in.labels(label)
        self.bytes_out = families.bytes_out.labels(label)

    def requests(self, key: tuple[str, str, str]) -> Counter:
        """The counter for a method, status class and source."""
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = self._families.requests.labels(self.label, *key)
        return found

    def children(self, family: Counter | Histogram) -> Iterator[tuple[dict[str, str], Collector]]:
        """What it has of one family, with its labels."""
        held = self._families
        if family is held.requests:
            names = (*declared("requests").labels,)
            for key, child in self._requests.items():
                yield dict(zip(names, (self.label, *key), strict=True)), child
            return
        own = (self.duration, self.upstream, self.bytes_in, self.bytes_out)
        yield {"action": self.label}, own[held.by_action_alone.index(family)]

    def tally(self) -> Tally:
        """What has been counted until now. From any thread."""
        return Tally(
            {key: count_of(one) for key, one in list(self._requests.items())},
            buckets_of(self.duration),
            buckets_of(self.upstream),
            count_of(self.bytes_in),
            count_of(self.bytes_out),
        )

    @property
    def answered(self) -> float:
        """Requests answered. From any thread."""
        return sum(count_of(one) for one in list(self._requests.values()))

    def remove(self) -> None:
        """Take them out of the exposition; what a request under way adds later is lost."""
        for key in self._requests:
            self._families.requests.remove(self.label, *key)
        for family in self._families.by_action_alone:
            family.remove(self.label)
        self._families = PerAction()  # it must not bring a series back that nobody removes


class Metrics(Collector):
    """Counters of the public listener; to be registered where they are to be scraped."""

    def __init__(self, registry: Registry, *, max_actions: int = MAX_ACTIONS) -> None:
        self._per_action = PerAction()
        self.none = ActionSeries(self._per_action, NO_ACTION)
        """For requests that matched no action."""
        self.queued = _histogram("queue_duration_seconds")
        self.own = _histogram("own_duration_seconds")
        self.cut = _counter("answers_cut")
        self.failures = _counter("request_failures")
        # From the start: of a series that begins with its first failure `increase()` misses that.
        self._failures = {cause: self.failures.labels(cause) for cause in (*CAUSES, OTHER)}
        self.lag = _histogram("event_loop_lag_seconds")
        self.reloads = _counter("reloads")
        self.reloaded = _gauge("last_reload_successful")
        self._registry = registry
        self._generation = registry.generation
        self._max_actions = max_actions
        self._actions: dict[str, ActionSeries] = {}
        self._other: ActionSeries | None = None

    @property
    def _families(self) -> tuple[Counter | Gauge | Histogram, ...]:
        return (
            *self._by_action,
            *(self.queued, self.own, self.cut, self.failures, self.lag, self.reloads),
            self.reloaded,
        )

    @property
    def _by_action(self) -> tuple[Counter | Histogram, ...]:
        return (self._per_action.requests, *self._per_action.by_action_alone)

    def describe(self) -> Iterable[Metric]:
        """Names and texts."""
        for family in self._families:
            yield from family.describe()

    def collect(self) -> Iterator[Metric]:
        """Everything, without the series of actions that are gone. Of more actions than `PIECE` a
        family comes in several pieces, one after the other."""
        self.prune()
        by_action = self._by_action
        for family in self._families:
            yield from self._pieces(family) if family in by_action else family.collect()

    def _pieces(self, family: Counter | Histogram) -> Iterator[Metric]:
        (empty,) = family.describe()
        for some in in_pieces(self.all_series()):
            piece = Metric(empty.name, empty.documentation, empty.type)
            for series in some:
                for labels, child in series.children(family):
                    for one in next(iter(child.collect())).samples:
                        piece.add_sample(one.name, {**labels, **one.labels}, one.value)
            yield piece

    def series(self, action: Announced) -> ActionSeries:
        """The series for an announced action. Keep it until the index changes."""
        found = self._actions.get(action.label)
        if found is not None:
            return found
        if len(self._actions) >= self._max_actions:
            self.prune()
        if len(self._actions) < self._max_actions:
            where = (action.sector, action.spelling, action.version)
            found = self._actions[action.label] = ActionSeries(
                self._per_action, action.label, where
            )
            return found
        if self._other is None:
            self._other = ActionSeries(self._per_action, OTHER)
        return self._other

    def all_series(self) -> list[ActionSeries]:
        """Those of every action, and those that stand for others."""
        other = () if self._other is None else (self._other,)
        return [self.none, *other, *self._actions.values()]

    def used(self) -> list[tuple[str, tuple[str, str, int]]]:
        """Actions in use, those with series of their own: label, and sector, spelling, version."""
        self.prune()
        return [
            (label, series.where)
            for label, series in self._actions.items()
            if series.where is not None
        ]

    def observe(self, exchange: Exchange, total: float) -> None:
        """Count one request that is over, after `total` seconds."""
        series = exchange.series
        method = exchange.method
        key = (
            method if method in _METHODS else OTHER,
            CLASSES[exchange.status // 100],
            exchange.source,
        )
        series.requests(key).inc()
        if not exchange.parked:
            series.duration.observe(total)
        if exchange.bytes_in:
            series.bytes_in.inc(exchange.bytes_in)
        if exchange.bytes_out:
            series.bytes_out.inc(exchange.bytes_out)
        upstream = exchange.upstream
        if upstream:
            series.upstream.observe(upstream)
        if exchange.queued >= QUEUED:
            self.queued.observe(exchange.queued)
        if exchange.was_cut:
            self.cut.inc()
        if exchange.cause and not exchange.parked:
            self._failures.get(exchange.cause, self._failures[OTHER]).inc()
        if not exchange.streamed:
            self.own.observe(max(0.0, total - upstream - exchange.queued - exchange.waited))

    def count_reload(self, what: str, *, ok: bool) -> None:
        """A followed file was loaded or refused. `what` is one of a few fixed words."""
        self.reloads.labels(what, "ok" if ok else "failed").inc()
        self.reloaded.labels(what).set(ok)

    def prune(self) -> None:
        """Drop the series of actions that are no longer announced."""
        if self._generation == self._registry.generation:
            return
        self._generation = self._registry.generation
        keys = {label: action_key(*one.where) for label, one in self._actions.items() if one.where}
        labels = Tallied(keys.values())
        gone = [
            label
            for label, series in self._actions.items()
            if label in keys and not self._announced(series, alone=labels[keys[label]] == 1)
        ]
        for label in gone:
            self._actions.pop(label).remove()

    def _announced(self, series: ActionSeries, *, alone: bool) -> bool:
        """Whether there is such an action; of several spellings of one, which it has now."""
        if series.where is None:
            return True
        if alone:  # without a look at all offers
            return any(True for _ in self._registry.offering(*series.where))
        offers = self._registry.find(*series.where)
        return bool(offers) and announced(offers, 1.0).label == series.label


def in_pieces(every: list[T]) -> Iterator[list[T]]:
    """`every`, `PIECE` at a time; nothing is one piece, too."""
    for start in range(0, max(1, len(every)), PIECE):
        yield every[start : start + PIECE]


class LoopLag:
    """Measures how late the event loop runs its timers. `start` and `stop` it within the loop."""

    def __init__(
        self,
        histogram: Histogram,
        interval: float = LAG_INTERVAL,
        *,
        tell: Callable[[float], None] | None = None,
    ) -> None:
        """`tell` is called with every measurement, in seconds."""
        self._histogram = histogram
        self._tell = tell
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
        lag = max(0.0, loop.time() - due)
        self._histogram.observe(lag)
        if self._tell is not None:
            self._tell(lag)
        self._schedule(loop)
