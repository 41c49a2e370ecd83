"""Metrics of the clients' connections, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.clients import REFUSALS, TIMEOUTS, Clients
from gateway.exposition import counter, counters, gauge
from gateway.metrics import PREFIX


class ClientsCollector(Collector):
    """Scrape from the event loop's thread."""

    def __init__(self, listeners: Mapping[str, Clients]) -> None:
        """`listeners` by name; one of them is ``public``."""
        self._listeners = listeners

    def describe(self) -> Iterable[Metric]:
        """Nothing, as `GatewayCollector`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        public = self._listeners["public"]
        yield self._open()
        yield gauge(
            "client_connections_limit",
            "Connections of clients that the public listener takes.",
            public.limits.connections,
        )
        yield gauge("client_addresses", "Addresses with a connection.", public.addresses)
        yield counter(
            "client_connections_accepted", "Connections of clients taken.", public.accepted
        )
        yield self._refused()
        yield counter(
            "client_connections_given_way",
            "Idle connections closed for the sake of new ones.",
            public.given_way,
        )
        yield counters(
            "client_timeouts", "Clients that were too slow, by what with.", "kind",
            public.timeouts, TIMEOUTS,
        )  # fmt: skip

    def _open(self) -> Metric:
        family = GaugeMetricFamily(
            f"{PREFIX}client_connections",
            "Connections of clients open, TLS handshakes under way included.",
            labels=["listener"],
        )
        for name, clients in self._listeners.items():
            family.add_metric([name], clients.open)
        return family

    def _refused(self) -> Metric:
        family = CounterMetricFamily(
            f"{PREFIX}client_connections_refused",
            "Connections of clients not taken; for want of descriptors: put off.",
            labels=["listener", "reason"],
        )
        for name, clients in self._listeners.items():
            for reason in REFUSALS:
                family.add_metric([name, reason], clients.refused[reason])
        return family
