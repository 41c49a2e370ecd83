"""Whether there is anybody to send a request to, for each action in use; read when it is
scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.metrics import PREFIX, Metrics
from gateway.strangers import Trust
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
        family = GaugeMetricFamily(
            f"{PREFIX}action_usable",
            "For an action in use: 1 while at least one instance is not out and takes requests.",
            labels=["action"],
        )
        out = {
            (one.fingerprint, one.identity)
            for one in self._requester.instances()
            if one.state == "out"
        }
        trust = Trust()
        for label, where in self._metrics.used():
            offers = trust.reachable(self._registry.find(*where))
            usable = any(
                offer.service.weight > 0 and offer.service.key not in out for offer in offers
            )
            family.add_metric([label], float(usable))
        yield family
