"""From the gateway to the collector: what is sent how, and what a bad collector costs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collecting import PARENT, TRACE, Collector, traced

from crew import crew
from fronted import Fronted
from gateway import sources
from gateway.checks import examine
from gateway.exposition import make_registry, rendered
from gateway.lifecycle import running
from gateway.settings import Settings
from gateway.sources import Loaded
from gateway.tracing import export, options
from gateway.tracing.export import Exported, resource_of
from gateway.tracing.exposition import TracingCollector
from gateway.tracing.options import parse_headers, traces_url
from scamp.errors import ConfigError
from scamp.testing import ScriptedPeer, until
from stand import stand


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What tracing logs, as it comes; and nothing else may come from the library."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    keep = Keep()
    for name in ("gateway.tracing", "opentelemetry"):
        logging.getLogger(name).addHandler(keep)
    caplog.set_level(logging.INFO, "gateway.tracing")
    yield found
    for name in ("gateway.tracing", "opentelemetry"):
        logging.getLogger(name).removeHandler(keep)


def scraped(tracing: Exported) -> dict[str, float]:
    body, _ = rendered(make_registry(TracingCollector(tracing)).collect(), "")
    lines = [line for line in body.decode().splitlines() if line.startswith("scamp_gateway_spans")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


# -- how it is sent ---------------------------------------------------------------------


async def test_what_waits_is_sent_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with traced(ScriptedPeer()) as to:
        for _ in range(3):
            await to.front.request("GET", "/nowhere")
        await until(lambda: to.tracing.waiting == 3)
        assert not to.collector.asked
        await to.tracing.close()
        assert len(to.collector.spans) == 3
        await to.tracing.close()
    assert scraped(to.tracing) == {
        "scamp_gateway_spans_exported_total": 3,
        'scamp_gateway_spans_dropped_total{reason="queue_full"}': 0,
        'scamp_gateway_spans_dropped_total{reason="export_failed"}': 0,
    }


async def test_a_secret_for_the_collector_goes_there_and_nowhere_else(
    tmp_path: Path, messages: list[str]
) -> None:
    secret = tmp_path / "headers"
    secret.write_text("authorization=Bearer%20s3cr3t\nx-tenant=shop\n")
    async with Collector() as collector:
        loaded = sources.load(
            {
                "tracing": True,
                "tracing_endpoint": collector.url,
                "tracing_headers_file": str(secret),
            }
        )
        assert "s3cr3t" not in str(sources.configuration(loaded))
        tracing = Exported(loaded.settings)
        tracing.start()
        await send(tracing)
        await tracing.close()
        assert collector.paths == ["/v1/traces"]
        assert collector.headers[0]["authorization"] == "Bearer s3cr3t"
        assert collector.headers[0]["x-tenant"] == "shop"
        assert collector.headers[0]["content-type"] == "application/x-protobuf"
        assert b"s3cr3t" not in b"".join(collector.raw)
    assert messages == [f"traces go to {collector.url}/v1/traces"]


async def send(tracing: Exported, count: int = 1) -> None:
    """Spans of `count` requests that nobody made."""
    async with Fronted(ScriptedPeer(), tracing=tracing) as front:
        for _ in range(count):
            await front.request("GET", "/nowhere")


async def test_the_environment_counts_where_settings_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/otlp/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        tracing = Exported(Settings(tracing=True))
        tracing.start()
        await send(tracing)
        await tracing.close()
        assert collector.paths == ["/otlp/v1/traces"]
        assert collector.headers[0]["x-tenant"] == "shop"
        assert collector.headers[0]["content-encoding"] == "gzip"
        (span,) = collector.spans
        assert span.resource["service.name"] == "edge"
        assert span.resource["deployment.environment.name"] == "test"


async def test_a_sampler_of_the_environment_counts_where_settings_are_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with traced(ScriptedPeer()) as to:
        fields = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
        await to.front.request("GET", "/nowhere", fields)
        await to.tracing.close()
        assert not to.collector.asked
    async with traced(ScriptedPeer(), sample=1.0) as to:
        await to.front.request("GET", "/nowhere")
        await to.spans(1)


@pytest.mark.parametrize(
    ("setting", "environ", "url"),
    [
        (None, {}, "http://localhost:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1/"}, "http://a:1/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:1/x"}, "http://a:1/x"),
        ("http://b", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, "http://b/v1/traces"),
        ("https://b/otlp", {}, "https://b/otlp/v1/traces"),
        ("http://[::1]:4318/v1/traces", {}, "http://[::1]:4318/v1/traces"),
    ],
)
def test_where_traces_go(setting: str | None, environ: dict[str, str], url: str) -> None:
    assert traces_url(setting, environ) == url


@pytest.mark.parametrize("given", [None, "front"])
def test_who_we_are(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tracing_service_name=given)
    assert resource_of(settings).attributes["service.name"] == (given or "scamp-gateway")
    assert resource_of(settings).attributes["service.version"]
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=edge,service.instance.id=pod-7")
    found = resource_of(settings).attributes
    assert found["service.name"] == (given or "edge")
    assert found["service.instance.id"] == "pod-7"
    several = resource_of(Settings(workers=2)).attributes["service.instance.id"]
    assert str(several).startswith("pod-7/")


def test_headers_are_read_as_the_standard_writes_them() -> None:
    assert parse_headers("A=1, b = two%2Cthree,\n\nc==") == {"a": "1", "b": "two,three", "c": "="}


# -- a bad collector --------------------------------------------------------------------


async def test_a_collector_that_fails_costs_spans_and_a_line(messages: list[str]) -> None:
    async with traced(ScriptedPeer()) as to:
        to.collector.status = 500
        for number in range(1, 4):
            assert (await to.front.request("GET", "/nowhere")).status == 404
            await until(lambda n=number: to.tracing.failed == n)  # type: ignore[misc]
        to.collector.status = 200
        await to.front.request("GET", "/nowhere")
        await to.collector.one("GET")
        await until(lambda: to.tracing.exported == 1)
        assert scraped(to.tracing) == {
            "scamp_gateway_spans_exported_total": 1,
            'scamp_gateway_spans_dropped_total{reason="queue_full"}': 0,
            'scamp_gateway_spans_dropped_total{reason="export_failed"}': 3,
        }
    (begin, complaint, again) = messages
    assert begin.startswith("traces go to")
    assert "500" in complaint
    assert again == "the collector takes spans again"


async def test_a_complaint_is_repeated_with_what_was_not_told(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "COMPLAINT_INTERVAL", 0.0)
    async with traced(ScriptedPeer()) as to:
        to.collector.status = 500
        for number in range(1, 4):
            await to.front.request("GET", "/nowhere")
            await until(lambda n=number: to.tracing.failed >= n)  # type: ignore[misc]
    told = [int(text.split()[0]) for text in messages[1:]]
    assert sum(told) == 3


async def test_a_collector_that_is_not_there_costs_spans(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    async with Collector() as collector:
        url = collector.url
    tracing = Exported(Settings(tracing=True, tracing_endpoint=url))
    tracing.start()
    await send(tracing, 3)
    await until(lambda: tracing.failed == 3)
    await tracing.close()
    assert tracing.exported == 0
    assert messages[0] == f"traces go to {url}/v1/traces"
    assert all("spans were not taken" in text for text in messages[1:])
    assert len(messages) == 2


async def test_a_collector_that_does_not_answer_costs_no_more_memory_than_is_said(
    monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    async with traced(ScriptedPeer()) as to:
        to.collector.open.clear()
        await to.front.request("GET", "/nowhere")
        await to.collector.until(lambda: to.collector.asked == 1)  # the first is being sent
        for _ in range(50):
            assert (await to.front.request("GET", "/nowhere")).status == 404
        await to.front.log.until(51)
        assert to.tracing.waiting == 8
        assert to.tracing.queue_full == 42
        to.collector.open.set()
        await until(lambda: to.tracing.exported == 9)
        await to.front.request("GET", "/nowhere")
        await until(lambda: to.tracing.exported == 10)
    assert messages[1:] == [
        "8 spans wait and more are dropped, 1 so far: the collector is slow, or tracing_sample too "
        "high"
    ], "it is said, and not for each span"
    assert len(to.collector.spans) == 10


async def test_the_end_does_not_wait_for_a_collector_for_long(messages: list[str]) -> None:
    async with traced(ScriptedPeer()) as to:
        to.collector.open.clear()
        await to.front.request("GET", "/nowhere")
        await to.collector.until(lambda: to.collector.asked == 1)
        await to.front.request("GET", "/nowhere")
        await until(lambda: to.tracing.waiting == 1)
        await to.tracing.close(limit=0.01)
        assert to.tracing.abandoned == 2
        await to.front.request("GET", "/nowhere")  # and what comes after that does no harm
    assert messages[-1] == "2 spans were not sent before the end"


# -- settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tracing_endpoint": "collector:4318"}, "not http://HOST:PORT"),
        ({"tracing_endpoint": "http://"}, "not http://HOST:PORT"),
        ({"tracing_endpoint": "http://a:99999"}, "not http://HOST:PORT"),
        ({"tracing_endpoint": "http://a/?x"}, "not http://HOST:PORT"),
        ({"tracing_endpoint": "http://me:hunter2@a"}, "credentials go into tracing_headers_file"),
        ({"tracing_headers": "hunter2"}, "entry 1 is not name=value"),
        ({"tracing_headers": "a=1,b c=hunter2"}, "entry 2 is not name=value"),
        ({"tracing_headers": "a=hunter2%0d%0ab"}, "entry 1 is not name=value"),
        ({"tracing_sample": "1.5"}, "less than or equal to 1"),
    ],
)
def test_settings_that_are_no_good(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        sources.load(given)
    if "tracing_headers" in given:
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "me:hunter2"}, "OTEL_EXPORTER_OTLP_ENDPOINT: not http"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "many"}, "OTEL_BSP_MAX_QUEUE_SIZE: not a number"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "8"}, "tracing: max_export_batch_size must be less"),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "key: hunter2"}, "tracing: an entry of OTEL_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": 'a=1,b="hunter2"'}, "tracing: an entry of"),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"}, "tracing: OTEL_SPAN_ATTRIBUTE_COUNT"),
    ],
)
def test_an_environment_that_is_no_good(
    environ: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def start() -> None:
        Exported(Settings(tracing=True)).start()

    with pytest.raises(ConfigError, match=message) as caught:
        start()
    assert "hunter2" not in str(caught.value)
    assert messages == []


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> object:
        if name == "opentelemetry.sdk":
            raise ModuleNotFoundError(name)  # as find_spec does when there is no opentelemetry
        return find_spec(name)

    monkeypatch.setattr(options, "find_spec", found)
    settings = Settings(tracing=True, auth_mode="forward", discovery_cache=Path("cache"))
    with pytest.raises(ConfigError, match=r"pip install '\.\[otel\]'"):
        settings.require_complete()
    findings = [str(one) for one in examine(Loaded(settings))]
    assert any(one.startswith("FAIL ") and "'.[otel]'" in one for one in findings)
    assert not any("otel" in one for one in Settings(auth_mode="forward").problems())


@pytest.mark.parametrize(
    ("given", "environ", "level", "text"),
    [
        ({}, {}, None, ""),
        ({"tracing_sample": 0.5}, {}, "warn", "it is off"),
        ({"tracing": True}, {}, "ok", "to http://localhost:4318/v1/traces; whether"),
        ({"tracing": True}, {"OTEL_SDK_DISABLED": "True"}, "warn", "there will be no traces"),
        ({"tracing": True}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, "FAIL", "not http://"),
        ({"tracing": True, "tracing_headers": "a=1"}, {}, "warn", "in the clear"),
        ({"tracing": True}, {"OTEL_EXPORTER_OTLP_HEADERS": "a=1"}, "warn", "HEADERS: over the"),
        ({"tracing": True}, {"OTEL_EXPORTER_OTLP_HEADERS": "a: 1"}, "FAIL", "is not name=value"),
        ({"tracing": True}, {"OTEL_SPAN_EVENT_COUNT_LIMIT": "x"}, "FAIL", "OTEL_SPAN_EVENT_COUNT"),
    ],
)
def test_check_says_what_becomes_of_traces(
    given: dict[str, Any],
    environ: dict[str, str],
    level: str | None,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    findings = [one for one in examine(Loaded(Settings(**given))) if one.about == "tracing"]
    if level is None:
        assert not findings
    else:
        assert findings[0].level == level
        assert text in findings[0].text


# -- the real thing ---------------------------------------------------------------------


async def test_a_gateway_counts_and_flushes(tmp_path: Path) -> None:
    async with stand(tmp_path) as mesh, Collector() as collector:
        given = mesh.loaded(tracing=True, tracing_endpoint=collector.url)
        async with running(given) as gateway, aiohttp.ClientSession() as http:
            async with http.get(f"{gateway.public.url}/api/Test.Gate.guarded") as answer:
                assert answer.status == 401
            url = f"{gateway.public.url}/api/Test.Gate.guarded?ticket=no"
            headers = mesh.ticket()
            async with http.get(url, headers=headers) as answer:
                assert answer.status == 200
            exchange = await collector.one("Test.Gate/guarded")
            assert exchange.attributes["peer.service"] == "stand"
            async with http.get(f"{gateway.admin.url}/metrics") as answer:
                assert "scamp_gateway_spans_exported_total" in await answer.text()
            async with http.get(f"{gateway.public.url}/last"):
                pass
        assert [one for one in collector.spans if one.attributes.get("url.path") == "/last"]
        secret = headers["Authorization"].partition(" ")[2]
        assert secret.encode() not in b"".join(collector.raw)
        signature = secret.rpartition(",")[2]
        assert signature.encode() not in b"".join(collector.raw)


async def test_told_by_its_environment_that_there_is_no_sdk_a_gateway_makes_no_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with stand(tmp_path) as mesh, running(mesh.loaded(tracing=True)) as gateway:
        assert gateway.parts.tracing is None
    assert "OTEL_SDK_DISABLED" in caplog.text


@pytest.mark.one_loop
async def test_each_worker_sends_its_own_and_flushes_when_it_is_told_to_stop(
    tmp_path: Path,
) -> None:
    async with stand(tmp_path) as mesh, Collector() as collector:
        flags = ("--tracing", "--tracing-endpoint", collector.url)
        async with crew(mesh, *flags) as team:
            pids = {one.pid for one in team.workers()}
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            async with aiohttp.ClientSession(connector=connector) as http:
                await ask_all(http, team.public, collector)
                metrics = await team.metrics(http)
                assert metrics["scamp_gateway_spans_exported_total"] >= 2
                async with http.get(f"{team.public}/last"):
                    pass
        assert len(pids) == 2
        last = [one for one in collector.spans if one.attributes.get("url.path") == "/last"]
        assert len(last) == 1
        assert len({one.resource["service.instance.id"] for one in collector.spans}) == 2


async def ask_all(http: aiohttp.ClientSession, url: str, collector: Collector) -> None:
    """Ask until both workers have been heard of."""
    async with asyncio.timeout(20):
        while len({one.resource["service.instance.id"] for one in collector.spans}) < 2:
            async with http.get(f"{url}/api/Test.Gate.open") as answer:
                assert answer.status == 200
            asked = collector.asked
            await collector.until(lambda asked=asked: collector.asked > asked)  # type: ignore[misc]
