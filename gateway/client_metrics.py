"""Metrics of the clients' connections, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.clients import REFUSALS, Clients
from gateway.exposition import counter, counters, gauge, gauges


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
        yield gauges(
            "client_connections", {name: one.open for name, one in self._listeners.items()}
        )
        yield gauge("client_connections_limit", public.limits.connections)
        yield gauge("client_addresses", public.addresses)
        yield counter("client_connections_accepted", public.accepted)
        yield counters(
            "client_connections_refused",
            {
                (name, reason): one.refused[reason]
                for name, one in self._listeners.items()
                for reason in REFUSALS
            },
        )
        yield counter("client_connections_given_way", public.given_way)
        yield counters("client_timeouts", public.timeouts)
