"""A collector of traces (OTLP over HTTP) in this event loop, and a gateway that sends to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from fronted import Fronted
from gateway.settings import Settings
from gateway.tracing.export import Exported

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as it was on the wire; ids in hex."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str
    state: str
    start: int
    end: int
    failed: bool
    links: list[tuple[str, str]]
    """Trace and span of each."""
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """``async with Collector() as collector``: takes what is sent to `url`."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.raw: list[bytes] = []
        """Every body."""
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status = 200
        """What it answers; only with 200 it takes anything."""
        self.open = asyncio.Event()
        """Cleared, it does not answer."""
        self.open.set()
        self.asked = 0
        self._arrived = asyncio.Event()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked += 1
        self._arrived.set()
        await self.open.wait()
        if self.status == 200:
            self.raw.append(body)
            self.headers.append({name.lower(): text for name, text in request.headers.items()})
            self.paths.append(request.path)
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self._arrived.set()
        return web.Response(status=self.status)

    async def until(self, done: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until `done`, looked at whenever something comes. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while not done():
                self._arrived.clear()
                await self._arrived.wait()

    async def named(self, name: str, count: int = 1) -> list[Span]:
        """The spans of this name, once there are `count`, in the order in which they began."""
        await self.until(lambda: sum(one.name == name for one in self.spans) >= count)
        return sorted((one for one in self.spans if one.name == name), key=lambda one: one.start)

    async def one(self, name: str) -> Span:
        """The one span of this name."""
        (found,) = await self.named(name)
        return found

    async def __aenter__(self) -> Collector:
        application = web.Application(client_max_size=1 << 26)
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.open.set()
        await self._runner.cleanup()


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            name=one.name,
            kind=trace_pb2.Span.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_"),
            trace=one.trace_id.hex(),
            span=one.span_id.hex(),
            parent=one.parent_span_id.hex(),
            state=one.trace_state,
            start=one.start_time_unix_nano,
            end=one.end_time_unix_nano,
            failed=one.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
            links=[(link.trace_id.hex(), link.span_id.hex()) for link in one.links],
            attributes=_values(one.attributes),
            resource=_values(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for one in scope.spans
    ]


def _values(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}


@dataclass(slots=True)
class Traced:
    """A gateway, its collector, and what is between the two."""

    front: Fronted
    collector: Collector
    tracing: Exported

    async def spans(self, count: int) -> dict[str, Span]:
        """All spans so far by name, once there are `count`, each of another name."""
        spans = self.collector.spans
        await self.collector.until(lambda: len(spans) >= count)
        found = {one.name: one for one in spans}
        assert len(found) == len(spans) == count, [one.name for one in spans]
        return found


@asynccontextmanager
async def traced(
    *services: Any, sample: float | None = None, parent: Any = "continue", **front: Any
) -> AsyncIterator[Traced]:
    """`front` are arguments of `Fronted`."""
    async with Collector() as collector:
        tracing = Exported(
            Settings(
                tracing=True,
                tracing_endpoint=collector.url,
                tracing_sample=sample,
                tracing_parent=parent,
            )
        )
        tracing.start()
        try:
            async with Fronted(*services, tracing=tracing, **front) as gateway:
                yield Traced(gateway, collector, tracing)
        finally:
            await tracing.close()
