"""Whether there is anybody to send a request to, for each action in use; read when it is
scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.exposition import gauges
from gateway.metrics import Metrics, in_pieces
from gateway.strangers import Trust, is_meta_name
from scamp.client import Requester
from scamp.discovery import Registry


class UsableCollector(Collector):
    """One gauge, in pieces as those of `Metrics`. Scrape from the event loop's thread: a walk over
    the actions that have series, which ends at the first usable instance of each."""

    def __init__(self, registry: Registry, metrics: Metrics, requester: Requester) -> None:
        self._registry = registry
        self._metrics = metrics
        self._requester = requester

    def describe(self) -> Iterable[Metric]:
        """Nothing, as `GatewayCollector`."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The family."""
        out = {
            (one.fingerprint, one.identity)
            for one in self._requester.instances()
            if one.state == "out"
        }
        trusted = Trust().trusts
        for some in in_pieces(self._metrics.used()):
            usable = {}
            for label, where in some:
                sector, name, version = where
                services = self._registry.offering(sector, name, version)
                if is_meta_name(name):
                    services = filter(trusted, services)
                usable[label] = float(
                    any(one.weight > 0 and one.key not in out for one in services)
                )
            yield gauges("action_usable", usable)
