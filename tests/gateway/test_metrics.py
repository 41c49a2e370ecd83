"""Series: which there are, who can make them, and whether Prometheus likes their names."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fronted import Fronted
from gateway.actions import announced
from gateway.counting import BUCKETS
from gateway.exposition import make_registry
from gateway.metrics import LoopLag, Metrics
from scamp.discovery import Registry
from scamp.testing import ScriptedPeer
from scamp.testing.scripts import failing, when

BOUNDS = ("0.001", "0.0025", "60.0", "120.0", "+Inf")


def exposed(collector: Collector) -> str:
    return generate_latest(make_registry(collector)).decode()


def samples(text: str) -> dict[str, float]:
    """Every sample by its line."""
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


def label_values(text: str, label: str) -> set[str]:
    return {
        sample.labels[label]
        for family in text_string_to_metric_families(text)
        if family.name.startswith("scamp_gateway")
        for sample in family.samples
        if label in sample.labels
    }


async def test_requests_are_counted_by_action_method_class_and_source() -> None:
    async with Fronted(ScriptedPeer(failing("not_found"), flags="noauth,read")) as gateway:
        await gateway.request("POST", "/api/test.ECHO", body=b"[1]")
        await gateway.request("GET", "/api/Test.echo")
        await gateway.request("PUT", "/api/Test.echo")
        found = samples(gateway.scrape())
        name = 'scamp_gateway_requests_total{action="Test.echo~1",method='
        assert found[f'{name}"POST",source="service",status_class="4xx"}}'] == 1
        assert found[f'{name}"GET",source="service",status_class="4xx"}}'] == 1
        assert found[f'{name}"PUT",source="gateway",status_class="4xx"}}'] == 1
        assert found['scamp_gateway_request_body_bytes_total{action="Test.echo~1"}'] == 3
        duration = "scamp_gateway_request_duration_seconds"
        assert found[f'{duration}_count{{action="Test.echo~1"}}'] == 3
        assert found[f'{duration}_bucket{{action="Test.echo~1",le="+Inf"}}'] == 3
        upstream = "scamp_gateway_upstream_duration_seconds"
        assert found[f'{upstream}_count{{action="Test.echo~1"}}'] == 2
        assert found["scamp_gateway_own_duration_seconds_count"] == 3
        assert found["scamp_gateway_requests_in_flight"] == 0


async def test_what_strangers_send_makes_no_series() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        await gateway.request("POST", "/api/Test.echo")
        await gateway.request("TRACE", "/api/Test.echo")
        await gateway.request("POST", "/api/Made.up")
        before = set(samples(gateway.scrape()))
        wire = await gateway.connect()
        for number in range(300):
            wire.send("POST", f"/api/Made.up{number}")
            wire.send("POST", f"/api/Test.echo~{number + 2}")
            wire.send("POST", f"/made/up/{number}?x={number}")
            wire.send("POST", f"/api/made{number}:Test.echo")
        for method in ("PROPFIND", "MKCOL", "PURGE", "REPORT", "LOCK"):
            wire.send(method, "/api/Test.echo", [("X-Request-ID", method)])
        for _ in range(1205):
            await wire.answer()
        after = samples(gateway.scrape())
        assert set(after) == before
        series = 'scamp_gateway_requests_total{action="_none",method="POST",source="gateway"'
        assert after[f'{series},status_class="4xx"}}'] == 1201
        assert label_values(gateway.scrape(), "action") == {"_none", "Test.echo~1"}


async def test_a_thousand_error_codes_of_a_service_make_no_series() -> None:
    codes = iter(range(10_000))

    async def script(request: object) -> None:
        await failing(f"code{next(codes)}")(request)  # type: ignore[arg-type]

    async with Fronted(ScriptedPeer(script)) as gateway:
        await gateway.request("POST", "/api/Test.echo")
        before = set(samples(gateway.scrape()))
        wire = await gateway.connect()
        for _ in range(100):
            wire.send("POST", "/api/Test.echo")
            assert (await wire.answer()).status == 500
        assert set(samples(gateway.scrape())) == before


async def test_series_go_when_their_action_goes() -> None:
    peer, other = ScriptedPeer(), ScriptedPeer(actions=("Other.echo",))
    async with Fronted(peer, other) as gateway:
        await gateway.request("POST", "/api/Test.echo")
        await gateway.request("POST", "/api/Other.echo")
        assert label_values(gateway.scrape(), "action") == {"_none", "Test.echo~1", "Other.echo~1"}
        gateway.mesh.remove(peer)
        assert label_values(gateway.scrape(), "action") == {"_none", "Other.echo~1"}
        gateway.mesh.announce(peer)
        await gateway.request("POST", "/api/Test.echo")
        assert "Test.echo~1" in label_values(gateway.scrape(), "action")


def test_an_action_that_is_spelt_anew_each_time_has_one_series() -> None:
    registry = Registry()
    metrics = Metrics(registry)
    for name in ("Test.echo", "test.Echo", "TEST.ECHO"):
        peer = ScriptedPeer(name="one", actions=(name,))
        peer.port = 1
        gone = [service.key for service in registry.services()]
        registry.apply(added=(peer.service(),), removed=gone)
        metrics.series(announced(registry.find("main", "Test.echo"), 75.0))
    assert label_values(exposed(metrics), "action") == {"_none", "TEST.ECHO~1"}


async def test_a_request_that_outlives_its_action_brings_no_series_back() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(when(go_on))
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", "/api/Test.echo")
        await peer.until(lambda: peer.requests == 1)
        gateway.mesh.remove(peer)
        assert label_values(gateway.scrape(), "action") == {"_none"}
        go_on.set()
        await wire.answer()
        assert len(await gateway.log.until(1)) == 1
        assert label_values(gateway.scrape(), "action") == {"_none"}


async def test_gateways_of_one_process_do_not_count_together() -> None:
    async with Fronted(ScriptedPeer()) as one, Fronted(ScriptedPeer()) as other:
        await one.request("POST", "/api/Test.echo")
        assert "Test.echo~1" in label_values(one.scrape(), "action")
        assert label_values(other.scrape(), "action") == {"_none"}


async def test_actions_beyond_the_cap_share_one_label() -> None:
    names = tuple(f"Test.echo{number}" for number in range(10))
    peer, later = ScriptedPeer(actions=names), ScriptedPeer(actions=("Later.echo",))
    async with Fronted(peer, later, max_actions=3) as gateway:
        for name in names:
            await gateway.request("POST", f"/api/{name}")
        values = label_values(gateway.scrape(), "action")
        assert values == {"_none", "_other", "Test.echo0~1", "Test.echo1~1", "Test.echo2~1"}
        other = 'scamp_gateway_request_duration_seconds_count{action="_other"}'
        assert samples(gateway.scrape())[other] == 7
        gateway.mesh.remove(peer)
        await gateway.request("POST", "/api/Later.echo")
        assert "Later.echo~1" in label_values(gateway.scrape(), "action"), "places come free"


def test_the_cap_holds_without_a_scrape() -> None:
    registry = Registry()
    metrics = Metrics(registry, max_actions=2)
    peer = ScriptedPeer(actions=tuple(f"Test.echo{number}" for number in range(5)))
    peer.port = 1
    registry.apply(added=(peer.service(),))
    for offers in registry.actions():
        metrics.series(announced(offers, 75.0))
    assert len(label_values(exposed(metrics), "action")) == 4  # _none, two, _other


def test_an_observation_counts_in_the_bucket_of_its_bound() -> None:
    metrics = Metrics(Registry())
    for seconds in (0.0, 0.001, 0.0011, 120.0, 121.0):
        metrics.own.observe(seconds)
    found = samples(exposed(metrics))
    name = "scamp_gateway_own_duration_seconds"
    cumulative = {bound: found[f'{name}_bucket{{le="{bound}"}}'] for bound in BOUNDS}
    assert cumulative["0.001"] == 2
    assert cumulative["0.0025"] == 3
    assert cumulative["60.0"] == 3
    assert cumulative["120.0"] == 4
    assert cumulative["+Inf"] == 5
    assert found[f"{name}_sum"] == pytest.approx(241.0021)
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 120.0)


async def test_what_others_hold_is_read_at_the_scrape() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        assert samples(gateway.scrape())["scamp_gateway_connects_total"] == 0
        await gateway.request("POST", "/api/Test.echo")
        gateway.metrics.count_reload("routes", ok=False)
        found = samples(gateway.scrape())
        assert found["scamp_gateway_connects_total"] == 1
        assert found['scamp_gateway_connections{state="up"}'] == 1
        assert found['scamp_gateway_instances{state="up"}'] == 1
        assert found["scamp_gateway_discovery_loaded"] == 1
        assert found["scamp_gateway_stray_replies_total"] == 0
        assert found['scamp_gateway_retries_total{reason="lost"}'] == 0
        assert found['scamp_gateway_tickets_total{result="expired"}'] == 0
        assert found['scamp_gateway_reloads_total{result="failed",what="routes"}'] == 1
        assert any(name.startswith("scamp_gateway_build_info{") for name in found)
        assert any(name.startswith("process_resident_memory_bytes") for name in found)


async def test_names_and_texts_are_what_promtool_accepts() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        await gateway.request("POST", "/api/Test.echo")
        gateway.metrics.count_reload("routes", ok=True)
        text = gateway.scrape()
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    names = [name for name in typed if name.startswith("scamp_gateway_")]
    assert len(names) == len(set(names)) > 30
    for name in names:
        assert name in helped, f"{name} has no text"
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert (typed[name] == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|seconds?_ms|kb|mb|count|sum|bucket|milliseconds|gauge)$", name)
        assert "counter" not in name
        assert "histogram" not in name
        if typed[name] == "histogram":
            assert name.endswith("_seconds")
    assert "_created" not in text
    assert len(samples(text)) == len([x for x in text.splitlines() if not x.startswith("#")])


async def test_the_loops_lag_is_measured() -> None:
    metrics = Metrics(Registry())

    def counted() -> float:
        return samples(exposed(metrics))["scamp_gateway_event_loop_lag_seconds_count"]

    told: list[float] = []
    lag = LoopLag(metrics.lag, interval=0.001, tell=told.append)
    lag.start()
    async with asyncio.timeout(5):
        while counted() < 3:  # noqa: ASYNC110 - a clock has no event
            await asyncio.sleep(0.001)
    lag.stop()
    lag.stop()
    assert len(told) == counted()
    assert min(told) >= 0.0
    before = counted()
    await asyncio.sleep(0.01)
    assert counted() == before
