"""What becomes of spans, as metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gateway.exposition import counter, counters

if TYPE_CHECKING:
    from gateway.tracing.export import Exported


class TracingCollector(Collector):
    """Read at every scrape."""

    def __init__(self, tracing: Exported) -> None:
        self._tracing = tracing

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Both families."""
        tracing = self._tracing
        yield counter("spans_exported", tracing.exported)
        dropped = {"queue_full": tracing.queue_full, "export_failed": tracing.failed}
        yield counters("spans_dropped", dropped)
