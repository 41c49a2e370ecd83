"""What alerts count on: whether actions in use have an instance, readiness, failures, reloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from offers import registry_of, service

from fronted import Fronted
from gateway.actions import announced
from gateway.catalogue import CATALOGUE
from gateway.exposition import make_registry
from gateway.families import CAUSES
from gateway.lifecycle import Gateway, running
from gateway.metrics import PIECE, Metrics
from gateway.proxy import BROKEN_OFF
from gateway.usable import UsableCollector
from scamp.client import Requester
from scamp.testing import ScriptedPeer
from scamp.testing.scripts import failing
from stand import Stand, eventually, stand

USABLE = 'scamp_gateway_action_usable{action="Test.Gate.open~1"}'


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def scraped(gateway: Gateway) -> dict[str, float]:
    body, _ = await gateway.parts.state.metrics("")
    lines = (line for line in body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def asked(http: aiohttp.ClientSession, gateway: Gateway) -> int:
    async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
        return answer.status


async def test_action_is_usable_until_its_last_instance_is_out(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with running(mesh.loaded()) as gateway:
        assert USABLE not in await scraped(gateway)  # nobody has used it
        assert await asked(http, gateway) == 200
        assert (await scraped(gateway))[USABLE] == 1
        await mesh.service.stop(grace=0)
        assert await asked(http, gateway) in (502, 503)
        found = await scraped(gateway)
        assert found[USABLE] == 0
        causes = ("connect_failed", "connection_lost", "no_usable_instance")
        name = 'scamp_gateway_request_failures_total{{cause="{}"}}'
        assert sum(found[name.format(cause)] for cause in causes) == 1


async def test_action_whose_instances_take_nothing_is_not_usable(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with running(mesh.loaded()) as gateway:
        assert await asked(http, gateway) == 200
        mesh.service.set_weight(0)
        mesh.announce()

        async def unusable() -> bool:
            return (await scraped(gateway))[USABLE] == 0

        await eventually(unusable)
        mesh.service.set_weight(1)
        mesh.announce()

        async def usable() -> bool:
            return (await scraped(gateway))[USABLE] == 1

        await eventually(usable)


async def test_action_that_nobody_announces_has_no_series(
    mesh: Stand, http: aiohttp.ClientSession
) -> None:
    async with running(mesh.loaded()) as gateway:
        assert await asked(http, gateway) == 200
        await mesh.service.stop(grace=0)
        mesh.announce()

        async def gone() -> bool:
            return USABLE not in await scraped(gateway)

        await eventually(gone)


async def test_ready_is_what_readyz_says(mesh: Stand, http: aiohttp.ClientSession) -> None:
    async with running(mesh.loaded(discovery_cache=mesh.folder / "missing")) as gateway:
        assert (await scraped(gateway))["scamp_gateway_ready"] == 0
    async with running(mesh.loaded(max_in_flight=77, discovery_max_age=33)) as gateway:
        found = await scraped(gateway)
        assert found["scamp_gateway_ready"] == 1
        assert found["scamp_gateway_requests_in_flight_limit"] == 77
        assert found["scamp_gateway_discovery_max_age_seconds"] == 33
        gateway.parts.drain()
        assert (await scraped(gateway))["scamp_gateway_ready"] == 0


async def test_greatest_age_of_the_privilege_table_is_told(mesh: Stand) -> None:
    async with running(mesh.loaded(authz_ttl=20, authz_grace=30)) as gateway:
        assert (await scraped(gateway))["scamp_gateway_authz_table_max_age_seconds"] == 50


async def test_last_reload_counts(mesh: Stand) -> None:
    async with running(mesh.loaded()) as gateway:
        name = 'scamp_gateway_last_reload_successful{what="routes"}'
        assert name not in await scraped(gateway)
        for ok in (False, True):
            gateway.parts.reloads.note("routes", None if ok else "no good")
            assert (await scraped(gateway))[name] == ok


async def test_failures_are_counted_by_cause_from_the_start() -> None:
    name = 'scamp_gateway_request_failures_total{{cause="{}"}}'
    async with Fronted(ScriptedPeer(failing("not_found"), flags="noauth,read")) as gateway:
        text = gateway.scrape()
        for cause in CAUSES:
            assert f"{name.format(cause)} 0.0" in text
        await gateway.request("POST", "/api/Test.echo")
        await gateway.request("POST", "/api/Made.up")
        await gateway.request("DELETE", "/api/Test.echo")
        await gateway.request("OPTIONS", "/api/Test.echo")
        text = gateway.scrape()
    for cause, count in (("service_error", 1), ("unknown_action", 1), ("method_not_allowed", 1)):
        assert f"{name.format(cause)} {count:.1f}" in text
    assert f"{name.format('_other')} 0.0" in text


def test_causes_are_all_that_there_are() -> None:
    assert set(CATALOGUE) < set(CAUSES)
    assert BROKEN_OFF in CAUSES
    assert len(CAUSES) < 80, "each is a series"


async def test_a_scrape_reads_few_actions_at_a_time_and_looks_at_few_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All offers of all actions, 500 of 1000, would stop the event loop for a second."""
    names = [f"Big.act{number}~1" for number in range(3 * PIECE + 1)]
    registry = registry_of(*(service(f"s{number}", *names) for number in range(5)))
    counters = Metrics(registry)
    for offers in registry.actions():
        counters.series(announced(offers, 1.0)).requests(("GET", "2xx", "service")).inc()
    registry.apply(added=[service("one more", *names)])
    monkeypatch.setattr(registry, "find", None)
    requester = Requester(registry)
    usable = UsableCollector(registry, counters, requester)
    for collector in (counters, usable):
        for family in collector.collect():
            labels = {one.labels.get("action") for one in family.samples}
            assert len(labels) <= PIECE
    async with stand(tmp_path) as mesh, running(mesh.loaded()) as gateway:
        gateway.parts.state.exposition = make_registry(counters, usable)
        body, _ = await gateway.parts.state.metrics("")
    lines = body.decode().splitlines()
    assert len([one for one in lines if one.startswith("# TYPE")]) == len(
        {one for one in lines if one.startswith("# TYPE")}
    )
    for name in ("action_usable", "requests_total", "request_duration_seconds_count"):
        shown = {
            one for one in lines if one.startswith(f"scamp_gateway_{name}{{") and "Big.act" in one
        }
        assert len(shown) == len(names), name
    assert all(one.endswith(" 1.0") for one in lines if "action_usable{" in one)
