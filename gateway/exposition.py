"""Prometheus' view of what others hold: read when it is scraped, never copied. What the gateway
counts itself is in `metrics`, what each of them is called in `families`.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.access_log import AccessLog
from gateway.auth import Authenticator
from gateway.families import PREFIX, declared
from gateway.ratelimit.limiter import RateLimiter
from scamp.client import InstanceView, Requester
from scamp.discovery import DiscoveryStatus, Registry

K = TypeVar("K", bound=str | tuple[str, ...])


def counter(name: str, value: float) -> Metric:
    """A counter without labels. `name` is that of a family in `families`, as in the following:
    without prefix and ``_total``."""
    return CounterMetricFamily(PREFIX + name, declared(name).text, value=value)


def gauge(name: str, value: float | None) -> Metric:
    """A gauge without labels; no sample when `value` is None."""
    family = GaugeMetricFamily(PREFIX + name, declared(name).text)
    if value is not None:
        family.add_metric([], value)
    return family


def counters(name: str, values: Mapping[K, float]) -> Metric:
    """A counter with labels: `values` by label, or by all of them in the declared order. Those that
    a single label can have are shown from the start, at 0."""
    known = declared(name)
    family = CounterMetricFamily(PREFIX + name, known.text, labels=[*known.labels])
    unseen = [(value, 0.0) for value in known.known() if value not in values]
    return _filled(family, [*unseen, *values.items()])


def gauges(name: str, values: Mapping[K, float]) -> Metric:
    """A gauge with labels, as `counters`."""
    known = declared(name)
    family = GaugeMetricFamily(PREFIX + name, known.text, labels=[*known.labels])
    return _filled(family, values.items())


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily,
    values: Iterable[tuple[str | tuple[str, ...], float]],
) -> Metric:
    for key, value in values:
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


AT_A_STRETCH: Final = 100
"""Samples that are read and made into text before others have a turn: half a millisecond."""

PAUSE: Final = 50e-6
"""Seconds for others to take their turn. Whoever wants one of a thread that goes on and on waits
five milliseconds for it, and an event loop wants one for every packet."""


def unhurried(families: Iterable[Metric]) -> Iterator[Metric]:
    """`families`, to be gone through once by a thread beside the event loop's: a pause after every
    `AT_A_STRETCH` samples."""
    for family in families:
        shown = copy(family)
        shown.samples = _with_pauses(family.samples)  # type: ignore[assignment]
        yield shown


def _with_pauses(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples, 1):
        yield sample
        if number % AT_A_STRETCH == 0:
            time.sleep(PAUSE)


class Gathered(Collector):
    """What other collectors have said, to be made into text elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """As it was gathered."""
        return self._families


def rendered(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """`families` as Prometheus' text or OpenMetrics, whichever `accept` asks for, with its full
    content type. For a thread beside the event loop's."""
    encode, content_type = choose_encoder(accept)
    if isinstance(encode, partial) and encode.keywords.get("escaping") == UNDERSCORES:
        # Our names need neither. To see that letter by letter takes the library half its time.
        encode = partial(encode, escaping=ALLOWUTF8)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gathered(unhurried(families)))
    return encode(registry), content_type


class GatewayCollector(Collector):
    """Reads everything once per scrape. Scrape from the event loop's thread."""

    def __init__(
        self,
        *,
        registry: Registry,
        requester: Requester,
        discovery_status: Callable[[], DiscoveryStatus],
        authenticator: Authenticator,
        access_log: AccessLog,
        in_flight: Callable[[], int],
        shed: Callable[[], Mapping[str, int]] = dict,
        limiter: RateLimiter | None = None,
        in_flight_limit: int | None = None,
        discovery_max_age: float | None = None,
        ready: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._requester = requester
        self._discovery_status = discovery_status
        self._authenticator = authenticator
        self._access_log = access_log
        self._in_flight = in_flight
        self._shed = shed
        self._limiter = limiter
        self._in_flight_limit = in_flight_limit
        self._discovery_max_age = discovery_max_age
        self._ready = ready
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read what may not be there yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        if self._ready is not None:
            yield gauge("ready", float(self._ready()))
        yield gauge("requests_in_flight", self._in_flight())
        yield gauge("requests_in_flight_limit", self._in_flight_limit)
        yield counters("requests_shed", {**self._shed(), **self._requester.stats.shed})
        yield from self._client()
        yield from self._instances(self._requester.instances())
        yield from self._discovery()
        yield from self._tickets()
        if self._limiter is not None:
            yield from self._rates(self._limiter)
        yield from self._process()

    def _client(self) -> Iterator[Metric]:
        stats = self._requester.stats
        lost = {"in_use": stats.lost_in_use, "idle": stats.lost_idle}
        yield counter("upstream_attempts", stats.attempts)
        yield counters("retries", stats.retries)
        yield counter("retries_denied", stats.retries_denied)
        yield gauge("retry_budget", self._requester.retries_left)
        yield counter("connects", stats.connects)
        yield counter("reconnects", stats.reconnects)
        yield counters("connect_failures", stats.connect_failures)
        yield counters("connections_lost", lost)
        yield counter("stray_replies", stats.stray_replies)
        yield counter("upstream_protocol_errors", stats.protocol_errors)
        yield counters("requests_abandoned", stats.abandoned)

    def _instances(self, views: list[InstanceView]) -> Iterator[Metric]:
        instances = {"up": 0, "out": 0}
        connections = {"up": 0, "out": 0}
        waiting = warming = 0
        for view in views:
            warming += view.state == "up" and view.share < 1.0
            instances[view.state] = instances.get(view.state, 0) + 1
            connections[view.state] = connections.get(view.state, 0) + view.connections
            waiting += view.waiting
        yield gauges("instances", instances)
        yield gauge("instances_warming", warming)
        yield gauges("connections", connections)
        yield gauge("requests_waiting", waiting)

    def _discovery(self) -> Iterator[Metric]:
        status = self._discovery_status()
        yield gauge("discovery_age_seconds", status.age(self._clock()))
        yield gauge("discovery_max_age_seconds", self._discovery_max_age)
        yield gauge("discovery_stale", float(status.stale))
        yield gauge("discovery_loaded", float(status.loaded))
        yield gauge("discovery_records_accepted", status.accepted)
        yield gauge("discovery_records_kept", status.kept)
        yield gauges("discovery_records_rejected", status.rejected)
        yield gauge("discovery_actions_unauthorized", status.unauthorized)
        yield counter("discovery_loads", status.loads)
        yield counter("discovery_failed_loads", status.failed_loads)
        yield gauge("discovery_services", len(self._registry.services()))

    def _tickets(self) -> Iterator[Metric]:
        auth = self._authenticator
        yield counters("tickets", auth.results)
        yield counters("refusals", auth.refusals)
        if auth.verifier is not None:
            yield gauge("ticket_cache_entries", len(auth.verifier))
        if auth.authz is not None:
            yield gauge("authz_table_age_seconds", auth.authz.age())
            yield gauge("authz_table_ttl_seconds", auth.authz.ttl)
            yield gauge("authz_table_max_age_seconds", auth.authz.max_age)

    def _rates(self, limiter: RateLimiter) -> Iterator[Metric]:
        yield counters("rate_limited", limiter.limited)
        yield gauges("rate_limit_entries", limiter.entries)
        yield counter("rate_limit_entries_dropped", limiter.dropped)
        shared = limiter.shared
        if shared is not None:
            yield gauge("rate_limit_redis_up", float(shared.available))
            yield counters("rate_limit_redis_failures", shared.failures)

    def _process(self) -> Iterator[Metric]:
        yield counter("access_log_dropped_lines", self._access_log.dropped)
        yield counter("access_log_unsampled_lines", self._access_log.unsampled)
        yield gauge("allocated_blocks", sys.getallocatedblocks())
        yield gauges("build_info", {(build_version(), platform.python_version()): 1.0})


@cache
def build_version() -> str:
    """Version of the installed package; to find it takes a millisecond and leaves much garbage."""
    try:
        return version("scamp-gateway")
    except PackageNotFoundError:
        return "unknown"


def make_registry(*collectors: Collector) -> CollectorRegistry:
    """A registry of our own, with the usual ``process_`` and ``python_gc_`` metrics beside ours."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
