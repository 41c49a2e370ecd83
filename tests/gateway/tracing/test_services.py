"""Services go on with the gateway's trace as docs/tracing.md shows, and the page is right."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collecting import PARENT, TRACE, Collector, traced
from demos import demo_process
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pages import Page

from gateway.families import SECTIONS
from gateway.settings import Settings
from scamp.client import ClientOptions
from scamp.server import Request, Service
from scamp.testing import Mesh, ScriptedPeer, make_identity
from scamp.testing.scripts import failing

PAGE = Page("docs/tracing.md")
BOTH = {"traceparent": "a", "tracestate": "b"}


def made(name: str, number: int) -> Service:
    identity = make_identity(number)
    return Service(
        name,
        key=identity.key,
        certificate=identity.certificate,
        queue_depth=False,
        documentation=False,
    )


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    await service.start(port=0)
    try:
        yield service
    finally:
        await service.stop(grace=1)


async def test_the_service_on_the_page_goes_on_with_the_trace_and_passes_it_on() -> None:
    shown: dict[str, Any] = {}
    exec(PAGE.scripts()["traced.py"], shown)  # noqa: S102 - ours
    kept = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    reserved: list[dict[str, str]] = []

    async def reserve(request: Request) -> object:
        reserved.append(request.trace_context)
        return {"reserved": True}

    stock, cart = made("stock", 0), made("cart", 1)
    stock.action("Stock.reserve", flags="noauth")(reserve)
    async with serving(stock), Mesh(stock) as behind:
        shown["offer"](cart, behind.requester, provider.get_tracer("cart"))
        async with serving(cart), traced(cart) as to:
            fields = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=1")]
            answer = await to.front.request("POST", "/api/Cart.add", fields, b"{}")
            assert answer.json() == {"reserved": True}
            exchange = await to.collector.one("Cart/add")
    (span,) = kept.get_finished_spans()
    assert span.context is not None
    assert span.parent is not None
    assert span.parent.is_remote
    assert f"{span.context.trace_id:032x}" == exchange.trace == TRACE
    assert f"{span.parent.span_id:016x}" == exchange.span
    passed = f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert reserved == [{"traceparent": passed, "tracestate": "vendor=1"}]


@pytest.mark.parametrize(
    ("extra", "context"),
    [
        (
            {"traceparent": "a", "tracestate": "b", "more": "c"},
            {"traceparent": "a", "tracestate": "b"},
        ),
        ({"traceparent": 7, "tracestate": ["b"]}, {}),
        ({}, {}),
    ],
)
async def test_a_handler_is_told_the_trace_as_far_as_it_is_text(
    extra: dict[str, Any], context: dict[str, str]
) -> None:
    seen: list[dict[str, str]] = []

    async def note(request: Request) -> object:
        seen.append(request.trace_context)
        return {}

    shop = made("shop", 0)
    shop.action("Shop.note", flags="noauth")(note)
    async with serving(shop), Mesh(shop) as mesh:
        await (await mesh.requester.request("Shop.note", extra=extra)).read_all()
    assert seen == [context]


@pytest.mark.one_loop
async def test_the_demo_shows_it(tmp_path: Path) -> None:
    async with Collector() as collector, aiohttp.ClientSession() as http:
        async with demo_process(tmp_path, "--tracing-endpoint", collector.url) as (_, printed):
            (url,) = re.findall(r"^# gateway (\S+)", printed, re.MULTILINE)
            async with http.get(f"{url}/api/Product.Sku.ping") as answer:
                assert answer.status == 200
        exchange = await collector.one("Product.Sku/ping")
        request = await collector.one("GET /api/Product.Sku.ping~1")
    assert exchange.parent == request.span
    assert exchange.attributes["peer.service"] == "shop"


# -- the page ---------------------------------------------------------------------------


async def test_the_table_has_every_attribute_of_every_span() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    peer = ScriptedPeer(failing("no"), actions=("Cart.add",))
    async with traced(peer, client=ClientOptions(retries=0)) as to:
        await to.front.request("POST", "/api/Cart.add", body=b"{}")
        await to.collector.one("Cart/add")
        peer.stop_listening()
        await peer.cut()
        await to.front.request("POST", "/api/Cart.add")
        await to.collector.named("connect", 2)
        for one in to.collector.spans:
            name = {"SERVER": "request", "CLIENT": "exchange"}.get(one.kind, f"`{one.name}`")
            found[name] |= one.attributes.keys()
    found["request"].add("server.port")  # which the Host of this test does not name
    rows = re.findall(r"^\| (\S+) \| [^|]+ \| [^|]+ \| (.+) \|$", PAGE.text, re.MULTILINE)
    table = {
        name: set(re.findall(r"`([a-z_.]+\.[a-z_.]+)`", attributes)) for name, attributes in rows
    }
    assert {name: table[name] for name in found} == found


def test_the_page_names_settings_and_metrics_that_there_are() -> None:
    settings = set(re.findall(r"`(tracing\w*)`", PAGE.text))
    assert settings == {name for name in Settings.model_fields if name.startswith("tracing")}
    metrics = set(re.findall(r"`(scamp_gateway_spans_\w+?)(?:\{\w+\})?`", PAGE.text))
    assert metrics == {family.shown for family in SECTIONS["Traces"]}
