"""Prometheus' view of what others hold: read when it is scraped, never copied. What the gateway
counts itself is in `metrics`.

Names are ``scamp_gateway_…`` in base units, as ``promtool check metrics`` wants them.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.access_log import AccessLog
from gateway.auth import REFUSALS, TICKET_RESULTS, Authenticator
from gateway.front import SHED_HERE
from gateway.metrics import PREFIX
from gateway.ratelimit.limiter import LIMITS, RateLimiter
from gateway.ratelimit.shared import FAILED
from scamp.client import InstanceView, Requester
from scamp.discovery import DiscoveryStatus, Registry

SHED: Final = (*SHED_HERE, "instance", "queue_full", "queue_delay")
"""Limits because of which requests are refused: those of the front, and of the requester."""


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels; `name` without prefix and ``_total``."""
    return CounterMetricFamily(PREFIX + name, text, value=value)


def gauge(name: str, text: str, value: float | None) -> Metric:
    """A gauge without labels; no sample when `value` is None."""
    family = GaugeMetricFamily(PREFIX + name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def counters(
    name: str, text: str, label: str, values: Mapping[str, float], known: Sequence[str] = ()
) -> Metric:
    """A counter with one label; `known` values are shown from the start, at 0."""
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for key in dict.fromkeys((*known, *values)):
        family.add_metric([key], values.get(key, 0))
    return family


def gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A gauge with one label."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


class Gathered(Collector):
    """What other collectors have said, to be made into text elsewhere."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """As it was gathered."""
        return self._families


def rendered(families: Iterable[Metric], accept: str) -> tuple[bytes, str]:
    """`families` as Prometheus' text or OpenMetrics, whichever `accept` asks for, with its full
    content type."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Gathered(families))
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
            yield gauge("ready", "1 while /readyz says so.", float(self._ready()))
        yield gauge("requests_in_flight", "Requests not answered yet.", self._in_flight())
        yield gauge(
            "requests_in_flight_limit", "How many there may be; further ones are refused.",
            self._in_flight_limit,
        )  # fmt: skip
        yield counters(
            "requests_shed", "Requests refused because of a limit, by limit.", "limit",
            {**self._shed(), **self._requester.stats.shed}, SHED,
        )  # fmt: skip
        yield from self._client()
        yield from self._instances(self._requester.instances())
        yield from self._discovery()
        yield from self._tickets()
        if self._limiter is not None:
            yield from self._rates(self._limiter)
        yield from self._process()

    def _client(self) -> Iterator[Metric]:
        stats = self._requester.stats
        yield counter("upstream_attempts", "Requests started on a connection.", stats.attempts)
        yield counters(
            "retries", "Retries, by what went wrong before.", "reason", stats.retries,
            ("connect", "lost", "dispatch_failure", "txerr"),
        )  # fmt: skip
        yield counter(
            "retries_denied", "Retries that the budget did not allow.", stats.retries_denied
        )
        yield gauge(
            "retry_budget", "Retries that the budget allows now.", self._requester.retries_left
        )
        yield counter("connects", "Connections to services opened.", stats.connects)
        yield counter(
            "reconnects", "Those opened in the background after a failure.", stats.reconnects
        )
        yield counters(
            "connect_failures", "Failures to connect to a service.", "reason",
            stats.connect_failures, ("refused", "timeout", "fingerprint", "tls", "other"),
        )  # fmt: skip
        yield counters(
            "connections_lost", "Connections to services that ended.", "state",
            {"in_use": stats.lost_in_use, "idle": stats.lost_idle},
        )  # fmt: skip
        yield counter(
            "stray_replies", "Replies that nobody waits for; dropped.", stats.stray_replies
        )
        yield counter(
            "upstream_protocol_errors", "Connections closed because the peer broke the protocol.",
            stats.protocol_errors,
        )  # fmt: skip
        yield counters(
            "requests_abandoned", "Requests given up by their caller, by what it took.", "way",
            stats.abandoned, ("discard", "close", "unsent"),
        )  # fmt: skip

    def _instances(self, views: list[InstanceView]) -> Iterator[Metric]:
        instances = {"up": 0, "out": 0}
        connections = {"up": 0, "out": 0}
        waiting = warming = 0
        for view in views:
            warming += view.state == "up" and view.share < 1.0
            instances[view.state] = instances.get(view.state, 0) + 1
            connections[view.state] = connections.get(view.state, 0) + view.connections
            waiting += view.waiting
        yield gauges("instances", "Instances of services in use.", "state", instances)
        yield gauge(
            "instances_warming", "Those of them that are up and in their slow start.", warming
        )
        yield gauges(
            "connections", "Open connections, by the state of their instance.", "state", connections
        )
        yield gauge(
            "requests_waiting", "Requests that wait for a connection to an instance.", waiting
        )

    def _discovery(self) -> Iterator[Metric]:
        status = self._discovery_status()
        yield gauge(
            "discovery_age_seconds",
            "Age of the discovery cache file, or of the last announcement heard.",
            status.age(self._clock()),
        )
        yield gauge(
            "discovery_max_age_seconds",
            "Age from which on the index is stale.",
            self._discovery_max_age,
        )
        yield gauge(
            "discovery_stale",
            "1 when its writer has died, or nothing is heard.",
            float(status.stale),
        )
        yield gauge("discovery_loaded", "1 once an index was loaded.", float(status.loaded))
        yield gauge("discovery_records_accepted", "Records in force.", status.accepted)
        yield gauge("discovery_records_kept", "Services whose record is refused now.", status.kept)
        yield gauges(
            "discovery_records_rejected",
            "Records refused now, or heard and refused lately.",
            "reason",
            status.rejected,
        )
        yield gauge(
            "discovery_actions_unauthorized",
            "Actions announced now that authorized_services does not permit.",
            status.unauthorized,
        )
        yield counter(
            "discovery_loads", "Versions of the file taken, or changes heard.", status.loads
        )
        yield counter("discovery_failed_loads", "Versions found damaged.", status.failed_loads)
        yield gauge("discovery_services", "Services in the index.", len(self._registry.services()))

    def _tickets(self) -> Iterator[Metric]:
        auth = self._authenticator
        yield counters("tickets", "Tickets looked at.", "result", auth.results, TICKET_RESULTS)
        yield counters(
            "refusals", "Good tickets that did not suffice.", "reason", auth.refusals, REFUSALS
        )
        if auth.verifier is not None:
            yield gauge("ticket_cache_entries", "Verified tickets kept.", len(auth.verifier))
        if auth.authz is not None:
            yield gauge("authz_table_age_seconds", "Age of the privilege table.", auth.authz.age())
            yield gauge(
                "authz_table_max_age_seconds",
                "Age from which on it is not used, and protected actions answer 503.",
                auth.authz.max_age,
            )

    def _rates(self, limiter: RateLimiter) -> Iterator[Metric]:
        yield counters(
            "rate_limited", "Requests refused for their rate, by limit.", "limit",
            limiter.limited, LIMITS,
        )  # fmt: skip
        yield gauges(
            "rate_limit_entries", "Callers kept in mind, by limit.", "limit", limiter.entries
        )
        yield counter(
            "rate_limit_entries_dropped", "Callers forgotten too soon, for want of room.",
            limiter.dropped,
        )  # fmt: skip
        shared = limiter.shared
        if shared is not None:
            yield gauge(
                "rate_limit_redis_up", "1 while Redis counts requests.", float(shared.available)
            )
            yield counters(
                "rate_limit_redis_failures", "Requests that Redis did not decide.", "reason",
                shared.failures, FAILED,
            )  # fmt: skip

    def _process(self) -> Iterator[Metric]:
        yield counter("access_log_dropped_lines", "Log lines dropped.", self._access_log.dropped)
        yield gauge(
            "allocated_blocks",
            "Pieces of memory that Python has given to objects. Grows with the mesh and with what "
            "is under way; otherwise it is a leak.",
            sys.getallocatedblocks(),
        )
        build = GaugeMetricFamily(
            f"{PREFIX}build_info",
            "Constant 1; what is running is in the labels.",
            labels=["version", "python"],
        )
        build.add_metric([build_version(), platform.python_version()], 1)
        yield build


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
