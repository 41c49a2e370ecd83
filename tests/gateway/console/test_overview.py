"""What /overview answers: its shape, its limits, who comes first, and when it is made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from offers import service
from pages import ROOT

from gateway.actions import announced
from gateway.console import console as console_module
from gateway.console.overview import (
    MAX_ACTIONS,
    MAX_INSTANCES,
    MAX_REJECTED,
    MAX_SERVICES,
    MAX_TEXT,
    Gathered,
    Mesh,
    Overview,
    state_of,
)
from gateway.counting import BUCKETS
from gateway.lifecycle import Gateway, running
from gateway.metrics import MAX_ACTIONS as MAX_SERIES
from scamp.client import Requester
from scamp.discovery import DiscoveryStatus
from scamp.testing import until
from stand import Stand, stand

READY = [{"name": "index", "ok": True, "detail": ""}]


@pytest.fixture(autouse=True)
def always_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "FRESH", 0.0)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


@pytest.fixture
async def gateway(mesh: Stand) -> AsyncIterator[Gateway]:
    async with running(mesh.loaded()) as one:
        yield one


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.admin.url) as session:
        yield session


async def look(http: aiohttp.ClientSession, wanted: str | None = None) -> Any:
    params = {} if wanted is None else {"filter": wanted}
    async with http.get("/overview", params=params) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert answer.headers["Cache-Control"] == "no-store"
        return await answer.json()


# -- of a real gateway ------------------------------------------------------------------


async def test_all_of_a_gateway_in_one_piece(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    for path in ("/api/Test.Gate.open", "/api/Test.Gate.open", "/api/No.such"):
        async with http.get(gateway.public.url + path) as answer:
            await answer.read()
    found = await look(http)
    about = found["gateway"]
    assert about["state"] == "ready"
    assert about["workers"] == {"count": 1, "answering": 1, "silent": []}
    assert about["public"] == gateway.public.url
    assert about["docs"] is True
    assert about["started"] <= found["at"]
    assert found["discovery"]["loaded"] is True
    assert found["discovery"]["source"] == str(mesh.cache)
    assert found["responses"] == {"2xx service": 2, "4xx gateway": 1}
    assert found["bounds"] == list(BUCKETS)
    assert sum(found["histograms"]["whole"]) == 3
    assert sum(found["histograms"]["upstream"]) == 2
    assert {len(counts) for counts in found["histograms"].values()} == {len(BUCKETS) + 1}
    assert found["counters"]["attempts"] >= 2  # and that for the privilege table
    assert found["counters"]["bytes_out"] > 0
    assert found["gauges"]["in_flight"] == 0
    assert found["gauges"]["connections"] == 1
    assert found["gauges"]["memory"] > 1e6
    (row,) = found["instances"]["shown"]
    assert row["identity"] == mesh.service.identity
    assert row["address"] == mesh.service.uri.removeprefix("beepish+tls://")
    assert (row["state"], row["connections"], row["out"], row["workers"]) == ("up", 1, 0, 1)
    assert row["seconds"] >= 0
    assert row["retry_in"] is None
    assert found["services"] == {
        "total": 1,
        "actions": 4,
        "found": 1,
        "shown": [{"service": "stand", "sector": "main", "instances": 1, "actions": 4}],
        "more": 0,
    }
    rows = {one["action"]: one for one in found["actions"]["shown"]}
    assert rows["Test.Gate.open~1"]["requests"] == 2
    assert rows["_none"]["4xx"] == 1
    assert sum(rows["Test.Gate.open~1"]["duration"]) == 2
    (reload,) = found["reloads"]
    assert (reload["what"], reload["ok"], reload["error"]) == ("discovery", 1, None)


async def test_an_instance_that_is_lost_is_out_with_the_reason_and_the_next_try(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
        assert answer.status == 200
    await mesh.service.stop(grace=0)
    await until(lambda: gateway.parts.requester.instances()[0].state == "out")
    found = (await look(http))["instances"]
    assert found["states"]["out"] == 1
    (row,) = found["shown"]
    assert row["state"] == "out"
    assert "connection refused" in row["last_error"]
    assert 0 <= row["retry_in"] <= 60
    assert row["failures"] >= 1


async def test_before_anything_is_loaded_it_says_so(mesh: Stand) -> None:
    mesh.cache.unlink()
    async with running(mesh.loaded()) as gateway, aiohttp.ClientSession(gateway.admin.url) as http:
        found = await look(http)
        async with http.get("/") as answer:
            page = await answer.text()
    assert found["gateway"]["state"] == "not ready"
    assert found["discovery"]["loaded"] is False
    assert found["discovery"]["age"] is None
    assert found["discovery"]["last_error"]
    assert found["instances"] == {
        "total": 0,
        "states": dict.fromkeys(("out", "warming", "up", "leaving", "idle"), 0),
        "found": 0,
        "shown": [],
        "more": 0,
    }
    assert found["actions"]["shown"] == found["services"]["shown"] == []
    assert "<tr><th>discovery age</th><td>never loaded</td></tr>" in page


async def test_draining_is_told(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    gateway.parts.drain()
    assert (await look(http))["gateway"]["state"] == "draining"


async def test_a_file_that_is_refused_is_told_with_the_reason(mesh: Stand, tmp_path: Path) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text('[[routes]]\nmethod = "GET"\npath = "/a"\naction = "Test.Gate.open"\n')
    async with (
        running(mesh.loaded(routes=routes)) as gateway,
        aiohttp.ClientSession(gateway.admin.url) as http,
    ):
        routes.write_text("[[routes]]\nmethod = 7\n")
        gateway.triggers.reload.set()
        await until(lambda: any(one.what == "routes" for one in gateway.parts.reloads.all()))
        rows = {one["what"]: one for one in (await look(http))["reloads"]}
    assert (rows["routes"]["ok"], rows["routes"]["failed"]) == (0, 1)
    assert str(routes) in rows["routes"]["error"]
    assert rows["routes"]["last_failed"] is not None


async def test_nothing_is_read_unless_somebody_looks_and_once_for_all_who_do(
    gateway: Gateway, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    instances = Requester.instances

    def counted(requester: Requester) -> Any:
        nonlocal read
        read += 1
        return instances(requester)

    monkeypatch.setattr(Requester, "instances", counted)
    monkeypatch.setattr(console_module, "FRESH", 60.0)
    for _ in range(20):
        async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
            assert answer.status == 200
    assert read == 0
    found = await asyncio.gather(*(look(http, str(number)) for number in range(10)))
    assert read == 1
    assert len({one["clock"] for one in found}) == 1, "what is shown again is of then"


async def test_sums_do_not_go_back_when_an_action_goes(
    mesh: Stand, gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    for _ in range(3):
        async with http.get(f"{gateway.public.url}/api/Test.Gate.open") as answer:
            assert answer.status == 200
    before = await look(http)
    gateway.parts.registry.apply(removed=[one.key for one in gateway.parts.registry.services()])
    gateway.parts.counters.prune()
    after = await look(http)
    assert after["actions"]["shown"] == []
    assert after["responses"] == before["responses"]
    assert after["histograms"]["whole"] == before["histograms"]["whole"]
    assert after["counters"]["bytes_out"] == before["counters"]["bytes_out"]
    assert sum(after["responses"].values()) == 3


# -- limits -----------------------------------------------------------------------------


def compose(wanted: str = "", overview: Overview | None = None, **given: Any) -> dict[str, Any]:
    part = {"histograms": {}, "actions": {}, "started": 1.0, **given.pop("part", {})}
    gathered = Gathered([part], (1,), {}, given.pop("checks", READY))
    services, status = given.pop("services", []), given.pop("status", DiscoveryStatus())
    mesh = Mesh(services, status, "here")
    return (overview or Overview()).compose(gathered, mesh, {}, wanted)


def test_a_large_mesh_is_cut_and_the_rest_is_counted() -> None:
    services = [service(f"s{number:04d}", "A.b", number=number) for number in range(2000)]
    actions = {f"A.b{number}~1": [number, 0, 0, 0, []] for number in range(MAX_SERIES)}
    status = DiscoveryStatus(
        rejected={"signature": 700},
        rejected_records=tuple((f"r{at}", "signature", "x" * 5000) for at in range(100)),
    )
    found = compose(services=services, part={"actions": actions}, status=status)
    for name, limit, total in (
        ("instances", MAX_INSTANCES, 2000),
        ("services", MAX_SERVICES, 2000),
        ("actions", MAX_ACTIONS, MAX_SERIES),
        ("rejected", MAX_REJECTED, 700),
    ):
        assert len(found[name]["shown"]) == limit
        assert found[name]["total"] == total
        assert found[name]["more"] == total - limit
    assert found["actions"]["shown"][0]["action"] == f"A.b{MAX_SERIES - 1}~1"
    assert len(found["rejected"]["shown"][0]["detail"]) == MAX_TEXT


def test_a_filter_finds_what_is_beyond_the_limit() -> None:
    services = [service(f"s{number:04d}", "A.b", number=number) for number in range(2000)]
    actions = {f"A.b{number}~1": [1, 0, 0, 0, []] for number in range(1000)}
    status = DiscoveryStatus(
        rejected={"signature": 2},
        rejected_records=(("Odd", "signature", "d"), ("other", "signature", "S1999 d")),
    )
    given: dict[str, Any] = {"services": services, "part": {"actions": actions}, "status": status}
    found = compose("S1999", **given)
    assert [one["service"] for one in found["instances"]["shown"]] == ["s1999"]
    assert found["instances"]["total"] == 2000
    assert [one["service"] for one in found["services"]["shown"]] == ["s1999"]
    assert [one["identity"] for one in found["rejected"]["shown"]] == ["other"]
    assert found["actions"]["shown"] == []
    assert [one["action"] for one in compose("b777", **given)["actions"]["shown"]] == ["A.b777~1"]
    assert compose("x" * 100_000, **given)["instances"]["found"] == 0


def test_who_is_out_comes_first_and_nobody_jumps_because_he_is_busy() -> None:
    services = [service(name, "A.b") for name in ("idle", "up", "a.idle", "busy", "warming", "out")]
    services.append(service("leaving", "A.b", weight=0))

    def view(name: str, **given: Any) -> dict[str, Any]:
        one = next(each for each in services if each.name == name)
        return {
            "fingerprint": one.fingerprint, "identity": one.identity, "state": "up", "share": 1.0,
            "seconds": 1.0, "retry_in": None, "failures": 0, "in_flight": 0, "waiting": 0,
            "connections": 1, "peer": "echoes", "last_error": None, **given,
        }  # fmt: skip

    views = [view("up", in_flight=9), view("busy"), view("warming", share=0.2),
             view("out", state="out"), view("leaving")]  # fmt: skip
    found = compose(services=services, part={"instances": views})["instances"]
    assert [(one["service"], one["state"]) for one in found["shown"]] == [
        ("out", "out"),
        ("warming", "warming"),
        ("busy", "up"),
        ("up", "up"),
        ("leaving", "leaving"),
        ("a.idle", "idle"),
        ("idle", "idle"),
    ]
    assert found["states"] == {"out": 1, "warming": 1, "up": 2, "leaving": 1, "idle": 2}


def test_the_busiest_action_is_the_one_that_is_busy_now(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr("gateway.console.overview.time.monotonic", lambda: clock)
    overview = Overview()

    def order(**counts: float) -> list[str]:
        actions = {label: [count, 0, 0, 0, []] for label, count in counts.items()}
        found = compose(overview=overview, part={"actions": actions})
        return [one["action"] for one in found["actions"]["shown"]]

    assert order(old=1000, new=1) == ["old", "new"]
    for _ in range(3):
        clock += 5.0
        last = order(old=1000, new=1)
    assert last == ["old", "new"], "neither is called"
    clock += 1.0
    assert order(old=1000, new=50) == ["new", "old"]
    assert order(old=1000, new=50) == ["new", "old"], "who looks takes nothing away from others"


@pytest.mark.parametrize(
    ("bad", "state"),
    [((), "ready"), (("index",), "not ready"), (("draining", "listener"), "draining")],
)
def test_state_is_what_the_conditions_say(bad: tuple[str, ...], state: str) -> None:
    checks = [{"name": name, "ok": name not in bad} for name in ("index", "listener", "draining")]
    assert state_of(checks) == state
    assert state_of([*checks, {"name": "replaced", "ok": True}]) == "replaced"


async def test_series_of_many_actions_are_read_once_they_change(gateway: Gateway) -> None:
    parts = gateway.parts
    services = [service("many", *(f"M.a{at} noauth" for at in range(200)))]
    parts.registry.apply(added=services)
    all_series = [
        parts.counters.series(announced(offers, 1.0)) for offers in parts.registry.actions()
    ]
    for number in range(3):
        for series in all_series:
            series.requests(("GET", "2xx", "service")).inc()
            series.duration.observe(0.01)
        part = await parts.state.part()
        assert sum(part["histograms"]["whole"]) == (number + 1) * len(all_series)
        assert part["responses"] == {"2xx service": (number + 1) * len(all_series)}


async def test_many_who_read_at_once_and_give_up_count_nothing_twice(gateway: Gateway) -> None:
    parts = gateway.parts
    for number in range(50):
        parts.registry.apply(added=[service(f"s{number}", f"M.a{number} noauth")])
        (series,) = (
            parts.counters.series(announced(offers, 1.0))
            for offers in parts.registry.actions()
            if offers[0].service.name == f"s{number}"
        )
        series.requests(("GET", "2xx", "service")).inc()
        tasks = [asyncio.create_task(parts.state.part()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.wait(tasks)
        parts.registry.apply(removed=[one.key for one in parts.registry.services()])
        parts.counters.prune()
    assert (await parts.state.part())["responses"] == {"2xx service": 50}


def test_the_page_for_readers_names_every_key() -> None:
    text = (ROOT / "docs" / "console.md").read_text()
    table = text.partition("## /overview")[2]
    named = [name for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
             for name in re.findall(r"`(\w+)`", line)]  # fmt: skip
    assert set(named) == set(compose())
    assert len(named) == len(set(named))
    for name, limit in (("instances", MAX_INSTANCES), ("services", MAX_SERVICES),
                        ("actions", MAX_ACTIONS), ("refused", MAX_REJECTED)):  # fmt: skip
        assert f"{limit} {name}" in text
