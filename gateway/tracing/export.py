"""From the event loop to a collector, by way of a bounded queue and a thread (OTLP over HTTP).

The loop only puts spans down. A collector that is away, slow or full costs spans, which are
counted, and a line in the log now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway.exposition import build_version
from gateway.tracing.options import (
    DEFAULT_NAME,
    HEADERS,
    parse_headers,
    queue_size,
    traces_url,
)
from gateway.tracing.spans import Spans
from scamp.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.exchange import Exchange
    from gateway.settings import Settings
    from gateway.tracing.model import RequestTrace

log = logging.getLogger("gateway.tracing")

FLUSH_LIMIT: Final = 2.0
"""Seconds that what waits may take to be sent when the gateway stops."""

COMPLAINT_INTERVAL: Final = 60.0
"""Seconds between two lines about a collector that goes on failing."""

_EXPORTERS_LOG: Final = logging.getLogger(OTLPSpanExporter.__module__)
_HEADERS_LOG: Final = logging.getLogger("opentelemetry.util.re")


class Exported:
    """A `Tracing` whose spans are sent to a collector. `start` it in the process that serves, for
    its thread does not outlive a fork; `close` it after the last request."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigError`. Nothing is connected to."""
        self.url = traces_url(settings.tracing_endpoint, os.environ)
        self.queue_full = 0
        """Spans dropped because too many waited."""
        self.abandoned = 0
        """Spans that still waited when the gateway stopped."""
        self._tell_full = 0.0
        self._put_down = 0  # all four set by the loop's thread only
        self._max_waiting = queue_size(os.environ)
        self._settings = settings
        self._sender = _Sender()
        self._processor: BatchSpanProcessor | None = None
        self._spans: Spans | None = None

    @property
    def exported(self) -> int:
        """Spans that the collector took."""
        return self._sender.exported

    @property
    def failed(self) -> int:
        """Spans dropped because the collector did not take them."""
        return self._sender.failed

    @property
    def waiting(self) -> int:
        """Spans that wait to be sent."""
        return self._put_down - self._sender.taken

    def start(self) -> None:
        """Begin. Raises `ConfigError` for what the environment says of samplers and the like."""
        provider = self._begun()
        scope = InstrumentationScope("gateway.tracing", build_version())
        ratio = self._settings.tracing_sample
        if ratio is None and not os.environ.get("OTEL_TRACES_SAMPLER"):
            ratio = 1.0
        self._spans = Spans(
            provider,
            scope,
            self.put,
            ratio=ratio,
            restart=self._settings.tracing_parent == "restart",
        )
        log.info("traces go to %s", self.url)

    def try_out(self) -> None:
        """Raise `ConfigError` if `start` would. Nothing is connected to."""
        self._begun()
        if self._processor is not None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]

    def _begun(self) -> TracerProvider:
        try:
            provider = TracerProvider(resource=resource_of(self._settings), shutdown_on_exit=False)
            self._sender.start(_exporter(self.url, self._settings.tracing_headers))
            # What it dropped itself could not be told apart: `put` sees to it that it need not.
            self._processor = BatchSpanProcessor(self._sender, max_queue_size=self._max_waiting)
        except (ValueError, OSError, RuntimeError) as exc:
            self._sender.shutdown()
            raise ConfigError(f"tracing: {exc}") from exc
        return provider

    def begin(self, exchange: Exchange) -> RequestTrace:
        """See `Tracing`. Only once it is started."""
        assert self._spans is not None  # noqa: S101 - started
        return self._spans.begin(exchange)

    def put(self, span: ReadableSpan) -> None:
        """Have it sent, or drop it when too many wait; returns at once."""
        if self._processor is None:
            self.queue_full += 1
            return
        if self.waiting >= self._max_waiting:
            self.queue_full += 1
            if (now := time.monotonic()) >= self._tell_full:
                self._tell_full = now + COMPLAINT_INTERVAL
                log.warning(
                    "%d spans wait and more are dropped, %d so far: the collector is slow, or "
                    "tracing_sample too high",
                    *(self.waiting, self.queue_full),
                )
            return
        self._put_down += 1
        self._processor.on_end(span)

    async def close(self, limit: float = FLUSH_LIMIT) -> None:
        """Send what waits, for at most `limit` seconds, and end. May be called twice."""
        processor, self._processor = self._processor, None
        if processor is None:
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def flush() -> None:
            processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # nobody waited, and the loop is closed
                loop.call_soon_threadsafe(done.set)

        # A thread of the executor would hold up the end of the process.
        threading.Thread(target=flush, name="tracing-flush", daemon=True).start()
        try:
            async with asyncio.timeout(limit):
                await done.wait()
        except TimeoutError:
            pass
        finally:
            self.abandoned = self._put_down - self._sender.exported - self._sender.failed
            self._sender.shutdown()
        if self.abandoned:
            log.warning("%d spans were not sent before the end", self.abandoned)


def _exporter(url: str, headers: SecretStr | None) -> OTLPSpanExporter:
    """Raises ValueError. The SDK would log what it cannot read of headers in the environment, which
    is a password with a colon in place of the equals sign, and go on without it."""
    unread = _Reason()
    _HEADERS_LOG.addFilter(unread)
    try:
        exporter = OTLPSpanExporter(
            url, headers=parse_headers(headers.get_secret_value()) if headers is not None else None
        )
    finally:
        _HEADERS_LOG.removeFilter(unread)
    if unread.text != _Reason.text:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        names = " or ".join(name for name in HEADERS if os.environ.get(name))
        raise ValueError(f"an entry of {names} is not name=value, or not percent-encoded")
    return exporter


class _Sender(SpanExporter):
    """The exporter of the SDK, with its results counted and its complaints thinned out. `export`
    is called by the processor's thread alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.taken = 0
        self.exported = 0
        self.failed = 0
        self._exporter: OTLPSpanExporter | None = None
        self._clock = clock
        self._why = _Reason()
        self._complained: float | None = None
        self._untold = 0

    def start(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        _EXPORTERS_LOG.addFilter(self._why)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        exporter = self._exporter
        if exporter is None:
            return SpanExportResult.FAILURE  # closed; they are counted as abandoned
        try:
            result = exporter.export(spans)
        except Exception as exc:
            self._why.text = repr(exc)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._complained is not None:
                self._complained = None
                log.info("the collector takes spans again")
        else:
            self.failed += len(spans)
            self._complain(len(spans))
        return result

    def _complain(self, count: int) -> None:
        self._untold += count
        now = self._clock()
        if self._complained is None or now - self._complained >= COMPLAINT_INTERVAL:
            log.warning("%d spans were not taken: %s", self._untold, self._why.text)
            self._complained, self._untold = now, 0

    def shutdown(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()  # type: ignore[no-untyped-call] # it tries nothing again
            _EXPORTERS_LOG.removeFilter(self._why)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _Reason(logging.Filter):
    """Keeps what the exporter would log, which is a line for each batch and each try."""

    text = "for no reason that is known"

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()[:300]
        return False


def resource_of(settings: Settings) -> Resource:
    """Who we are: the setting, else what the environment says, else what is known here."""
    named = settings.tracing_service_name
    found = Resource.create({} if named is None else {"service.name": named})
    given = dict(found.attributes)
    if str(given["service.name"]).startswith("unknown_service"):  # as the SDK says of itself
        given["service.name"] = DEFAULT_NAME
    given.setdefault("service.version", build_version())
    if settings.workers > 1 and "service.instance.id=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        given["service.instance.id"] = f"{given['service.instance.id']}/{os.getpid()}"
    return _Resource(given, found.schema_url)


class _Resource(Resource):
    """The exporter asks for the hash once for each span, and the SDK's is that of its JSON."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
