"""Numbers of our own: shown as prometheus_client shows its own, and whole while they change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from offers import registry_of, service
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway import counting, exposition
from gateway.actions import METHODS, announced
from gateway.counting import BUCKETS, buckets_of, count_of
from gateway.exchange import Exchange
from gateway.exposition import rendered
from gateway.families import CAUSES, CLASSES, NO_ACTION, OTHER, declared
from gateway.metrics import ActionSeries, Metrics
from gateway.workers.merge import packed

ACTIONS = ("Shop.buy", "Shop.sell")
FORMATS = (
    "",
    "text/plain;version=1.0.0",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "application/openmetrics-text",
    "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=1.0.0;escaping=dots",
)


@dataclass
class Ended:
    """What of an exchange is counted."""

    series: ActionSeries | None = None
    method: str = "POST"
    status: int = 200
    source: str = "service"
    parked: bool = False
    streamed: bool = False
    was_cut: bool = False
    cause: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    upstream: float = 0.0
    queued: float = 0.0
    waited: float = 0.0


class Library:
    """The same families, counted by prometheus_client."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self.counter("requests")
        self.duration = self.histogram("request_duration_seconds")
        self.upstream = self.histogram("upstream_duration_seconds")
        self.bytes_in = self.counter("request_body_bytes")
        self.bytes_out = self.counter("response_body_bytes")
        self.queued = self.histogram("queue_duration_seconds")
        self.own = self.histogram("own_duration_seconds")
        self.cut = self.counter("answers_cut")
        self.failures = self.counter("request_failures")
        self.lag = self.histogram("event_loop_lag_seconds")
        for cause in (*CAUSES, OTHER):
            self.failures.labels(cause)

    def counter(self, name: str) -> Counter:
        family = declared(name)
        return Counter(family.name, family.text, [*family.labels], registry=self.registry)

    def histogram(self, name: str) -> Histogram:
        family = declared(name)
        return Histogram(
            family.name, family.text, [*family.labels], buckets=BUCKETS, registry=self.registry
        )

    def appear(self, label: str) -> None:
        for family in (self.duration, self.upstream, self.bytes_in, self.bytes_out):
            family.labels(label)

    def observe(self, label: str, one: Ended, total: float) -> None:
        method = one.method if one.method in METHODS else OTHER
        self.requests.labels(label, method, CLASSES[one.status // 100], one.source).inc()
        if not one.parked:
            self.duration.labels(label).observe(total)
        self.bytes_in.labels(label).inc(one.bytes_in)
        self.bytes_out.labels(label).inc(one.bytes_out)
        if one.upstream:
            self.upstream.labels(label).observe(one.upstream)
        if one.queued >= 0.001:
            self.queued.observe(one.queued)
        if one.was_cut:
            self.cut.inc()
        if one.cause and not one.parked:
            self.failures.labels(one.cause if one.cause in CAUSES else OTHER).inc()
        if not one.streamed:
            self.own.observe(max(0.0, total - one.upstream - one.queued - one.waited))


seconds = st.sampled_from((0.0, *BUCKETS)) | st.floats(0, 500)
sizes = st.integers(0, 1 << 40)
endings = st.builds(
    Ended,
    method=st.sampled_from((*METHODS, OTHER, "PURGE", "get")),
    status=st.integers(0, 599),
    source=st.sampled_from(("gateway", "service")),
    parked=st.booleans(),
    streamed=st.booleans(),
    was_cut=st.booleans(),
    cause=st.none() | st.sampled_from((*CAUSES, "never heard of")),
    bytes_in=sizes,
    bytes_out=sizes,
    upstream=seconds,
    queued=seconds,
    waited=seconds,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from((NO_ACTION, *ACTIONS)), endings, seconds), max_size=20),
    st.lists(seconds, max_size=5),
    st.sampled_from(FORMATS),
)
@example([(name, Ended(upstream=1e-9), 1e16) for name in ACTIONS], [float("inf")], "")
def test_the_exposition_is_what_the_library_would_make_of_it(
    requests: list[tuple[str, Ended, float]], lags: list[float], accept: str
) -> None:
    index = registry_of(service("shop", *ACTIONS))
    ours, library = Metrics(index), Library()
    every = {NO_ACTION: ours.none}
    every |= {name: ours.series(announced(index.find("main", name), 1.0)) for name in ACTIONS}
    for series in ours.all_series():
        library.appear(series.label)
    for name, one, total in requests:
        one.series = every[name]
        ours.observe(cast(Exchange, one), total)
        library.observe(one.series.label, one, total)
    for lag in lags:
        ours.lag.observe(lag)
        library.lag.observe(lag)
    counted = [one for one in ours.collect() if "reload" not in one.name]
    order = [series.label for series in ours.all_series()]
    reference = list(library.registry.collect())
    reference[0].samples.sort(key=lambda one: order.index(one.labels["action"]))
    encode, content_type = choose_encoder(accept)
    wanted = encode(cast(Collector, SimpleNamespace(collect=lambda: reference)))
    assert rendered(counted, accept) == (wanted, content_type)


def test_a_scrape_between_two_numbers_of_a_request_is_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if another thread had its turn at every sample."""
    histogram = counting.Histogram()
    histogram.observe(0.002)

    def interrupted(*args: Any) -> Sample:
        for value in (0.0, 0.3, 1e3):
            histogram.observe(value)
        return Sample(*args)

    monkeypatch.setattr(counting, "Sample", interrupted)
    samples = histogram.samples("took_seconds", {})
    buckets = [one.value for one in samples if one.name == "took_seconds_bucket"]
    (count,) = (one.value for one in samples if one.name == "took_seconds_count")
    assert len(buckets) == len(BUCKETS) + 1
    assert all(one <= other for one, other in pairwise(buckets))
    assert buckets[-1] == count == 1


def test_a_kind_of_request_that_is_new_during_a_scrape_waits_for_the_next() -> None:
    series = Metrics(registry_of()).none
    for source in ("gateway", "service"):
        series.requests(("GET", "2xx", source)).inc()
    read = series.family("requests")
    seen = [next(read)]
    series.requests(("PUT", "2xx", "service")).inc()
    assert len([*seen, *read]) == 2
    assert len([*series.family("requests")]) == 3


def test_samples_are_as_of_when_somebody_goes_through_them() -> None:
    metrics = Metrics(registry_of())
    (family,) = (one for one in metrics.collect() if one.name == declared("answers_cut").name)
    for value in (0, 1, 2):
        assert [one.value for one in family.samples] == [value]
        metrics.cut.inc()


def test_who_makes_text_of_many_samples_lets_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics = Metrics(registry_of())
    pauses: list[float] = []
    monkeypatch.setattr(exposition, "time", SimpleNamespace(sleep=pauses.append))
    families = [*metrics.collect()]
    samples = [sum(1 for _ in one.samples) for one in families]
    body, _ = rendered(families * 5, "")
    assert len([line for line in body.splitlines() if b"#" not in line]) == 5 * sum(samples)
    assert len(pauses) == 5 * sum(one // exposition.AT_A_STRETCH for one in samples) == 0
    monkeypatch.setattr(exposition, "AT_A_STRETCH", 5)
    assert rendered(families * 5, "")[0] == body
    assert pauses == [exposition.PAUSE] * 5 * sum(one // 5 for one in samples)
    assert packed(exposition.unhurried(families)) == packed(families)


async def test_other_threads_read_while_the_loop_counts() -> None:
    index = registry_of(service("shop", *ACTIONS))
    metrics = Metrics(index)
    one = Ended(metrics.none, upstream=0.002, bytes_in=1, bytes_out=1)
    done = threading.Event()

    def read() -> Iterator[tuple[float, float]]:
        before = 0.0
        while not done.is_set():
            tally = metrics.none.tally()
            answered = metrics.none.answered
            assert before <= sum(tally.duration) <= answered, "a request is counted there first"
            before = sum(tally.duration)
            for family in metrics.collect():
                if family.type == "histogram":
                    yield whole(family)

    reading = asyncio.create_task(asyncio.to_thread(lambda: [*read()]))
    for number in range(200_000):
        one.method = METHODS[number % len(METHODS)]
        one.status = 100 + number % 500
        metrics.observe(cast(Exchange, one), number / 1e5)
        if number % 1000 == 0:
            await asyncio.sleep(0)
    done.set()
    assert all(last == count for last, count in await reading)
    assert metrics.none.answered == sum(buckets_of(metrics.own)) == 200_000
    assert count_of(metrics.none.bytes_in) == 200_000


def whole(family: Metric) -> tuple[float, float]:
    """What is below the last bound of the first series, and its count."""
    samples = [*family.samples]
    (last, *_) = (one.value for one in samples if one.labels.get("le") == "+Inf")
    (count, *_) = (one.value for one in samples if one.name.endswith("_count"))
    return last, count
