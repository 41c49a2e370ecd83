"""Metrics of event streams, read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.events.hub import ENDED, SENT, Hub
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
        yield gauge("event_streams", "Event streams open.", hub.streams)
        yield gauges(
            "event_subscriptions",
            "Subscriptions to services for event streams; stale: its values may be out of date.",
            "state",
            hub.states,
        )
        yield counters("events_sent", "Events sent on streams.", "event", stats.sent, SENT)
        yield counters(
            "event_streams_ended", "Event streams that have ended.", "reason", stats.ended, ENDED
        )
