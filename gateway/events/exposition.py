"""Metrics of event streams, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.events.hub import Hub
from gateway.exposition import counters, gauge, gauges


class EventsCollector(Collector):
    """Scrape from the event loop's thread."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> Iterable[Metric]:
        """Nothing, as `GatewayCollector`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        hub, stats = self._hub, self._hub.stats
        yield gauge("event_streams", hub.streams)
        yield gauges("event_subscriptions", hub.states)
        yield counters("events_sent", stats.sent)
        yield counters("event_streams_ended", stats.ended)
