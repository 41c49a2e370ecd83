"""Whether there is anybody to send a request to, for each action in use; read when it is
scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.exposition import gauges
from gateway.metrics import Metrics
from gateway.strangers import Trust, is_meta
from scamp.client import Requester
from scamp.discovery import Registry


class UsableCollector(Collector):
    """One gauge. Scrape from the event loop's thread: a walk over the actions that have series,
    which ends at the first usable instance of each."""

    def __init__(self, registry: Registry, metrics: Metrics, requester: Requester) -> None:
        self._registry = registry
        self._metrics = metrics
        self._requester = requester

    def describe(self) -> Iterable[Metric]:
        """Nothing, as `GatewayCollector`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The family."""
        usable = {}
        out = {
            (one.fingerprint, one.identity)
            for one in self._requester.instances()
            if one.state == "out"
        }
        trust = Trust()
        for label, where in self._metrics.used():
            offers = self._registry.find(*where)
            if offers and is_meta(offers[0].action):  # all have this name, so all are or none is
                offers = trust.reachable(offers)
            usable[label] = float(
                any(offer.service.weight > 0 and offer.service.key not in out for offer in offers)
            )
        yield gauges("action_usable", usable)
