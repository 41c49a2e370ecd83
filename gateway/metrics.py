"""What the gateway counts itself, request by request; `exposition` has what others hold.

Labels are looked up once per action, not once per request. Only announced actions become labels, at
most `max_actions` at a time, and their series go when the action goes: what strangers send makes
none.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tallied
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from prometheus_client import Counter as LibraryCounter
from prometheus_client import Gauge, Metric, disable_created_metrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.actions import METHODS, announced
from gateway.counting import Counter, Histogram, Samples, buckets_of, count_of
from gateway.families import CAUSES, CLASSES, NO_ACTION, OTHER, declared
from scamp.discovery import Registry
from scamp.discovery.model import action_key

if TYPE_CHECKING:
    from gateway.actions import Announced
    from gateway.exchange import Exchange

T = TypeVar("T")
L = TypeVar("L", bound=LibraryCounter | Gauge)

MAX_ACTIONS: Final = 1000
"""Actions with series of their own; further ones share ``_other``."""

PIECE: Final = 20
"""Actions that are looked at in one turn of the loop. All of a thousand would hold every request
up; see `state.RunningState.families`."""

_METHODS: Final = frozenset(METHODS)

QUEUED: Final = 0.001
"""Seconds from which on a request counts as one that had to wait for a connection."""

LAG_INTERVAL: Final = 0.25
"""Seconds between two measurements of the event loop's lag."""


# One more series for each counter, for what a counter's reset tells as well. The library knows this
# for the whole process only, and has no types for it.
disable_created_metrics()  # type: ignore[no-untyped-call]

Labelled: TypeAlias = tuple[dict[str, str], Counter | Histogram]

BY_ACTION: Final[Mapping[str, str]] = {
    "requests": "",
    "request_duration_seconds": "duration",
    "upstream_duration_seconds": "upstream",
    "request_body_bytes": "bytes_in",
    "response_body_bytes": "bytes_out",
}
"""The families that have an action as a label, by what `ActionSeries` calls them; `requests` has
further labels."""

ALONE: Final[Mapping[str, str]] = {
    "queue_duration_seconds": "queued",
    "own_duration_seconds": "own",
    "answers_cut": "cut",
    "request_failures": "failures",
    "event_loop_lag_seconds": "lag",
}
"""Those that have not, by what `Metrics` calls them."""


def _family(name: str, read: Callable[[], Iterable[Labelled]]) -> Metric:
    family = declared(name)
    metric = Metric(family.name, family.text, family.kind)

    def samples() -> Iterator[Sample]:
        for labels, one in read():
            yield from one.samples(family.name, labels)

    metric.samples = Samples(samples)  # type: ignore[assignment]
    return metric


def _of_library(kind: Callable[..., L], name: str) -> L:
    """What goes up too seldom to need a counter of our own."""
    family = declared(name)
    return kind(family.name, family.text, [*family.labels], registry=None)


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

    __slots__ = ("answered_by", "bytes_in", "bytes_out", "duration", "label", "upstream", "where")

    def __init__(self, label: str, where: tuple[str, str, int] | None = None) -> None:
        self.label = label
        self.where = where
        """Sector, spelling and version; None for `NO_ACTION` and `OTHER`."""
        self.answered_by: dict[tuple[str, str, str], Counter] = {}
        """Requests by method, status class and source, of those that there have been."""
        self.duration = Histogram()
        self.upstream = Histogram()
        self.bytes_in = Counter()
        self.bytes_out = Counter()

    def requests(self, key: tuple[str, str, str]) -> Counter:
        """The counter for a method, any, status class and source."""
        method, status_class, source = key
        if method not in _METHODS:
            key = (OTHER, status_class, source)
        return self.answered_by.setdefault(key, Counter())

    def family(self, name: str) -> Iterator[Labelled]:
        """What it has of one family of `BY_ACTION`, with its labels. From any thread."""
        held = BY_ACTION[name]
        if held:
            yield {"action": self.label}, getattr(self, held)
            return
        names = (*declared(name).labels,)
        for key, counter in self.answered_by.copy().items():
            yield dict(zip(names, (self.label, *key), strict=True)), counter

    def tally(self) -> Tally:
        """What has been counted until now. From any thread."""
        return Tally(
            {key: count_of(one) for key, one in self.answered_by.copy().items()},
            buckets_of(self.duration),
            buckets_of(self.upstream),
            count_of(self.bytes_in),
            count_of(self.bytes_out),
        )

    @property
    def answered(self) -> float:
        """Requests answered. From any thread."""
        return float(sum(one.value for one in self.answered_by.copy().values()))


def _of_actions(name: str, some: list[ActionSeries]) -> Iterator[Labelled]:
    for series in some:
        yield from series.family(name)


class Metrics(Collector):
    """Counters of the public listener; to be registered where they are to be scraped."""

    def __init__(self, registry: Registry, *, max_actions: int = MAX_ACTIONS) -> None:
        self.none = ActionSeries(NO_ACTION)
        """For requests that matched no action."""
        self.queued = Histogram()
        self.own = Histogram()
        self.cut = Counter()
        # From the start: of a series that begins with its first failure `increase()` misses that.
        self.failures = {cause: Counter() for cause in (*CAUSES, OTHER)}
        self.lag = Histogram()
        self.reloads = _of_library(LibraryCounter, "reloads")
        self.reloaded = _of_library(Gauge, "last_reload_successful")
        self._registry = registry
        self._generation = registry.generation
        self._max_actions = max_actions
        self._actions: dict[str, ActionSeries] = {}
        self._other: ActionSeries | None = None

    def describe(self) -> Iterator[Metric]:
        """Names and texts."""
        for name in (*BY_ACTION, *ALONE):
            yield _family(name, tuple)
        yield from self.reloads.describe()
        yield from self.reloaded.describe()

    def collect(self) -> Iterator[Metric]:
        """Everything, without the series of actions that are gone. Of more actions than `PIECE` a
        family comes in several pieces, one after the other. Samples are as of when they are gone
        through, which any thread may do."""
        self.prune()
        for name in BY_ACTION:
            for some in in_pieces(self.all_series()):
                yield _family(name, partial(_of_actions, name, some))
        for name in ALONE:
            yield _family(name, partial(self._alone, name))
        yield from self.reloads.collect()
        yield from self.reloaded.collect()

    def _alone(self, name: str) -> Iterator[Labelled]:
        held = getattr(self, ALONE[name])
        if isinstance(held, dict):
            (label,) = declared(name).labels
            yield from (({label: value}, counter) for value, counter in held.items())
        else:
            yield {}, held

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
        key = (exchange.method, CLASSES[exchange.status // 100], exchange.source)
        answered = series.answered_by.get(key) or series.requests(key)
        answered.value += 1
        parked, upstream, queued = exchange.parked, exchange.upstream, exchange.queued
        if not parked:
            series.duration.observe(total)
        if exchange.bytes_in:
            series.bytes_in.value += exchange.bytes_in
        if exchange.bytes_out:
            series.bytes_out.value += exchange.bytes_out
        if upstream:
            series.upstream.observe(upstream)
        if queued >= QUEUED:
            self.queued.observe(queued)
        if exchange.was_cut:
            self.cut.value += 1
        if exchange.cause and not parked:
            self.failures.get(exchange.cause, self.failures[OTHER]).value += 1
        if not exchange.streamed:
            self.own.observe(max(0.0, total - upstream - queued - exchange.waited))

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
            del self._actions[label]

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
