"""Workers that ask each other, in one loop; shares of limits; places that are filled again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.admin import Check
from gateway.checks import examine
from gateway.lifecycle import Gateway
from gateway.setting_types import cores
from gateway.settings import Settings
from gateway.signals import Triggers
from gateway.sources import Loaded
from gateway.state import RunningState
from gateway.workers import team as module
from gateway.workers.ledger import Ledger
from gateway.workers.master import MAX_PAUSE, STEADY, Slot
from gateway.workers.shares import require_gunicorn, share, warnings
from gateway.workers.team import StateOfAll, Team
from gateway.workers.worker import GatewayWorker
from scamp.errors import ConfigError
from scamp.testing import until
from stand import Stand, stand


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


class Member:
    """A worker's gateway in this loop."""

    def __init__(self, gateway: Gateway, team: Team) -> None:
        self.gateway = gateway
        self.team = team
        self.all = StateOfAll(team, gateway.parts.state)


@asynccontextmanager
async def members(mesh: Stand, *births: int) -> AsyncIterator[list[Member]]:
    ledger = Ledger(mesh.folder / "run")
    ledger.directory.mkdir()
    made: list[Member] = []
    async with AsyncExitStack() as stack:
        for number, birth in enumerate(births, 1):
            loaded = mesh.loaded()
            team = Team(loaded, ledger, number=number, count=len(births), birth=birth)
            gateway = Gateway(loaded, Triggers(), team=team)
            stack.push_async_callback(gateway.close)
            await gateway.start()
            made.append(Member(gateway, team))
        yield made


async def sample(state: StateOfAll, name: str) -> float:
    text = (await state.metrics(""))[0].decode()
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines()
                if line.startswith(f"{name} "))  # fmt: skip


async def test_whoever_is_asked_tells_of_all(mesh: Stand) -> None:
    async with members(mesh, 1, 2) as (one, two):
        one.gateway.parts.counters.cut.inc(3)
        two.gateway.parts.counters.cut.inc(4)
        for member in (one, two):
            assert await sample(member.all, "scamp_gateway_answers_cut_total") == 7
            assert await sample(member.all, "scamp_gateway_discovery_services") == 1
        assert all(check.ok for check in await one.all.checks())
        two.gateway.parts.drain()
        checks = {check.name: check for check in await one.all.checks()}
        assert checks["draining"] == Check("draining", False, "yes (worker 2)")
        assert checks["index"].ok
        assert await one.all.under_way() == 0
        assert one.all.exposed("main")
        assert one.all.discovery().loaded


async def test_one_that_is_away_is_missed_and_what_it_had_counted_is_not(mesh: Stand) -> None:
    async with members(mesh, 1, 2) as (one, two):
        two.gateway.parts.counters.cut.inc(4)
        await sample(one.all, "scamp_gateway_answers_cut_total")
        await two.gateway.close()
        assert await sample(one.all, "scamp_gateway_answers_cut_total") == 4
        one.team.ledger.bury(2, "died")
        assert await sample(one.all, "scamp_gateway_answers_cut_total") == 4
        assert await sample(one.all, 'scamp_gateway_workers{state="silent"}') == 1
        assert await sample(one.all, 'scamp_gateway_worker_ends_total{cause="died"}') == 1
        assert (await one.all.checks())[0] == Check("workers", False, "1 of 2 answer, not 2")


async def test_one_that_died_after_it_answered_is_counted_once(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with members(mesh, 1, 2) as (one, two):
        two.gateway.parts.counters.cut.inc(4)
        ask = one.team.ask

        async def then_it_dies(question: Any) -> dict[int, Any]:
            answers = await ask(question)
            one.team.ledger.bury(2, "died")
            return answers

        monkeypatch.setattr(one.team, "ask", then_it_dies)
        assert await sample(one.all, "scamp_gateway_answers_cut_total") == 4


async def test_series_of_dead_workers_go_with_their_action(mesh: Stand) -> None:
    async with members(mesh, 1) as (one,):
        there, gone = "Test.Gate.open~1", "Test.Gate.gone~1"
        families: list[Any] = [
            ["x", "counter", "", [["x_total", {"action": name}, 1] for name in (there, gone)]]
        ]
        one.team.ledger.write(7, families)
        one.team.ledger.bury(7, "died")
        text = (await one.all.metrics(""))[0].decode()
        assert there in text
        assert gone not in text


async def test_it_is_written_down_though_nobody_asks(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_INTERVAL", 0.01)
    monkeypatch.setattr(module, "WRITE_SHARE", 1)
    async with members(mesh, 1) as (one,):
        one.gateway.parts.counters.cut.inc(9)
        await until(lambda: "9.0" in str(one.team.ledger.living()))


async def test_a_full_disk_is_told_once_and_hides_nothing(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with members(mesh, 1) as (one,):

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(one.team.ledger, "write", full)
        for count in (1, 2):
            one.gateway.parts.counters.cut.inc()
            assert await sample(one.all, "scamp_gateway_answers_cut_total") == count
    assert caplog.text.count("No space left on device") == 1


async def test_one_that_does_not_answer_in_time_holds_nobody_up(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.2)
    async with members(mesh, 1, 2) as (one, two):

        async def never() -> list[dict[str, Any]]:
            await asyncio.Event().wait()
            return []

        monkeypatch.setattr(two.gateway.parts.state, "connections", never)
        assert (await one.team.ask("state")).get(2, "?") is None
        assert (await one.team.ask("metrics"))[2] is not None


async def test_an_answer_without_an_end_is_none(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 10)
    async with members(mesh, 1, 2) as (one, _):
        assert (await one.team.ask("state"))[2] is None


def test_a_state_can_be_shown_for_all() -> None:
    """That the running gateway's has what is asked of it, for the type checker."""
    state: module.OwnState = cast(RunningState, SimpleNamespace())
    assert state


# -- limits -----------------------------------------------------------------------------


def test_limits_for_all_are_divided_and_others_are_not() -> None:
    given = Settings(workers=4, max_in_flight=10, max_event_streams=0, retries=3)
    one = share(Loaded(given)).settings
    assert (one.max_in_flight, one.max_event_streams, one.max_event_subscriptions) == (3, 0, 25)
    assert (one.retries, one.workers, one.max_event_streams_per_caller) == (3, 4, 100)
    assert share(Loaded(Settings(max_in_flight=10))).settings.max_in_flight == 10


def test_rates_that_each_worker_counts_are_told() -> None:
    redis = "redis://localhost"
    for settings, told in (
        (Settings(workers=2), 1),
        (Settings(workers=1), 0),
        (Settings(workers=2, rate_limit_redis=redis), 0),
    ):
        assert len(list(warnings(settings, limits_rates=True))) == told
        assert not list(warnings(settings, limits_rates=False))


def test_what_manages_processes_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    require_gunicorn()
    settings = Settings(workers=2, rate_limit_user="1/s")
    told = [one.text for one in examine(Loaded(settings)) if one.about == "workers"]
    assert told[0].startswith("each of 2 workers counts requests for rate limits by itself")
    assert told[1:] == ["2 processes"]
    monkeypatch.setattr("gateway.workers.shares.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[workers\]'"):
        require_gunicorn()
    found = [one for one in examine(Loaded(settings)) if one.about == "workers"]
    assert [one.level for one in found] == ["FAIL"]


@pytest.mark.parametrize(
    ("quota", "at_most"),
    [("max 100000", 256), ("50000 100000", 1), ("100001 100000", 2), ("nonsense", 256)],
)
def test_as_many_workers_as_the_machine_and_the_container_have(
    tmp_path: Path, quota: str, at_most: int
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert 1 <= cores(path) <= at_most
    assert cores(path) == min(cores(tmp_path / "none"), at_most)
    assert Settings(workers="auto").workers == Settings(workers=0).workers == cores()


# -- places -----------------------------------------------------------------------------


def test_who_dies_again_and_again_is_started_ever_later() -> None:
    slot = Slot(0)
    now, pauses = 1000.0, []
    for _ in range(7):
        slot.worker = cast(GatewayWorker, SimpleNamespace(began=now))
        now += 0.1
        pauses.append(slot.died(now))
        assert slot.due == now + pauses[-1]
        now = slot.due
    assert pauses == [0, 1, 2, 4, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]
    slot.worker = cast(GatewayWorker, SimpleNamespace(began=now))
    assert slot.died(now + STEADY) == 0


# -- /overview --------------------------------------------------------------------------


def count(member: Member, requests: int) -> None:
    counters = member.gateway.parts.counters
    counters.none.requests(("GET", "4xx", "gateway")).inc(requests)
    counters.none.duration.observe(0.01)
    counters.cut.inc()


async def test_the_overview_is_of_all_workers_whoever_is_asked(mesh: Stand) -> None:
    async with members(mesh, 1, 2) as (one, two):
        count(one, 3)
        count(two, 4)
        for member in (one, two):
            found = await member.all.overview("")
            assert found["responses"] == {"4xx gateway": 7}
            assert sum(found["histograms"]["whole"]) == 2
            assert found["counters"]["answers_cut"] == 2
            assert found["counted_by"] == [1, 2]
            assert found["gateway"]["workers"] == {"count": 2, "answering": 2, "silent": []}
            assert found["gateway"]["state"] == "ready"
            assert found["instances"]["total"] == 1, "it is the same for both"
            (reload,) = found["reloads"]
            assert (reload["what"], reload["ok"]) == ("discovery", 1)


async def test_the_overview_goes_on_without_one_and_forgets_nothing_it_wrote(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.console.console.FRESH", 0.0)
    async with members(mesh, 1, 2) as (one, two):
        count(one, 3)
        count(two, 4)
        await two.gateway.close()  # it writes down what it has counted
        found = await one.all.overview("")
        assert found["responses"] == {"4xx gateway": 7}
        assert found["counted_by"] == [1]
        assert found["gateway"]["workers"] == {"count": 2, "answering": 1, "silent": [2]}
        assert found["gateway"]["state"] == "not ready"
        one.team.ledger.bury(2, "died")
        for _ in range(2):
            found = await one.all.overview("")
            assert found["responses"] == {"4xx gateway": 7}
            assert found["counters"]["answers_cut"] == 2
            assert sum(found["histograms"]["whole"]) == 2


async def test_a_worker_that_is_too_slow_for_others_shows_itself(
    mesh: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workers.overall.LIMIT", 0.0)
    async with members(mesh, 1, 2) as (one, _):
        count(one, 3)
        found = await one.all.overview("")
        assert found["responses"] == {"4xx gateway": 3}
        assert found["gateway"]["workers"] == {"count": 2, "answering": 1, "silent": [2]}
        assert found["gauges"]["in_flight"] == 0
