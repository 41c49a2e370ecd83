"""What several workers count, as one; and what is kept of those that died."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.families import OTHER, PREFIX
from gateway.lifecycle import running
from gateway.workers.ledger import Ledger
from gateway.workers.merge import (
    GAUGES,
    Packed,
    capped,
    lasting,
    merged,
    metrics,
    packed,
    without,
)
from scamp.errors import ConfigError
from stand import Stand, stand


def counted(**by_action: float) -> list[Packed]:
    """What a worker that answered so many requests says, as another gets it."""
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests.", ["action"], registry=registry)
    took = Histogram("took_seconds", "Time.", ["action"], buckets=(1, 2), registry=registry)
    for action, count in by_action.items():
        requests.labels(action).inc(count)
        took.labels(action).observe(count)
    made: list[Packed] = orjson.loads(orjson.dumps(packed(registry.collect())))
    return made


def values(families: list[Packed]) -> dict[str, float | None]:
    return {
        f"{sample}{labels.get('action', '')}{labels.get('le', '')}": value
        for _, _, _, samples in families
        for sample, labels, value in samples
        if not sample.endswith("_created")
    }


def test_counters_and_histograms_are_added_sample_by_sample() -> None:
    both = values(merged([counted(a=1, b=2), counted(b=1, c=5)]))
    assert {name: value for name, value in both.items() if name.startswith("requests")} == {
        "requests_totala": 1,
        "requests_totalb": 3,
        "requests_totalc": 5,
    }
    assert both["took_seconds_bucketb1.0"] == 1
    assert both["took_seconds_bucketb2.0"] == both["took_seconds_countb"] == 2
    assert both["took_seconds_sumb"] == 3


def test_one_worker_comes_out_as_it_went_in() -> None:
    registry = CollectorRegistry()
    Counter("requests", "Requests.", ["action"], registry=registry).labels('a"b\n').inc()
    Histogram("took_seconds", "Time.", buckets=(1, 2), registry=registry).observe(1.5)
    Gauge("temperature", "Now.", registry=registry).set(math.nan)

    class Again(CollectorRegistry):
        def collect(self):  # type: ignore[no-untyped-def]
            sent = orjson.loads(orjson.dumps(packed(registry.collect())))
            return metrics(merged([sent]))

    assert generate_latest(Again()) == generate_latest(registry)


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("requests_in_flight", 5.0),
        ("discovery_age_seconds", 3.0),
        ("discovery_loaded", 2.0),
        ("discovery_stale", 3.0),
        ("rate_limit_redis_up", 2.0),
        ("something_new", 3.0),
    ],
)
def test_each_gauge_has_its_rule(name: str, one: float) -> None:
    two: list[list[Packed]]
    two = [[(f"{PREFIX}{name}", "gauge", "", [(f"{PREFIX}{name}", {}, at)])] for at in (3.0, 2.0)]
    assert [*values(merged(two)).values()] == [one]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


async def test_every_gauge_of_a_gateway_has_a_rule(mesh: Stand) -> None:
    async with running(mesh.loaded(rate_limit_user="1/s")) as gateway:
        families = await gateway.parts.state.families()
    gauges = {family.name for family in families if family.type == "gauge"}
    assert len(gauges) > 10
    assert gauges <= GAUGES.keys(), "say in GAUGES what the values of two workers make"
    assert {family.type for family in families} <= {"gauge", "counter", "histogram"}


def test_of_actions_beyond_a_number_the_rest_is_added_up() -> None:
    families = counted(**{f"a{number}": 1 for number in range(50)})
    few = values(capped(families, 10))
    assert few[f"requests_total{OTHER}"] == 40
    assert sum(name.startswith("requests_total") for name in few) == 11
    assert few[f"took_seconds_count{OTHER}"] == 40
    assert sum(value or 0 for name, value in few.items() if name.startswith("requests_t")) == 50
    assert capped(families, 50) == families


def test_actions_that_are_gone_leave_no_series() -> None:
    left = values(without(counted(a=1, b=1), lambda action: action == "a"))
    assert {name for name in left if name.startswith("requests")} == {"requests_totalb"}


# -- the ledger -------------------------------------------------------------------------


def all_told(ledger: Ledger) -> float | None:
    """What a scrape says while nobody answers."""
    living, dead = ledger.living(), ledger.dead()
    alive = [families for birth, families in living.items() if birth not in dead.births]
    return values(merged([*alive, dead.families])).get("requests_totala")


def test_what_a_dead_worker_had_counted_is_kept_and_counted_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(1, counted(a=3))
    ledger.write(2, counted(a=4))
    assert all_told(ledger) == 7
    left = (tmp_path / "live-1.json").read_bytes()
    ledger.bury(1, "died")
    assert all_told(ledger) == 7
    (tmp_path / "live-1.json").write_bytes(left)  # as between the two steps of burying
    assert all_told(ledger) == 7
    ledger.bury(2, "hung")
    ledger.bury(3, "died")  # one that never wrote anything
    assert all_told(ledger) == 7
    assert ledger.dead().ends == {"died": 2, "hung": 1}
    assert ledger.dead().births == {1, 2, 3}


def test_only_what_lasts_is_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    gauge: Packed = ("now", "gauge", "", [("now", {}, 1.0)])
    ledger.write(1, [gauge, *counted(a=1)])
    assert "now" not in {name for name, *_ in ledger.living()[1]}
    assert lasting([gauge]) == []


def test_workers_that_die_all_the_time_make_no_file_grow(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    sizes = []
    for birth in range(30):
        ledger.write(birth, counted(**{f"x{birth}_{number}": 1 for number in range(200)}))
        ledger.bury(birth, "died")
        sizes.append((tmp_path / "dead.json").stat().st_size)
    assert sizes[-1] < sizes[9] * 1.1
    assert [path.name for path in tmp_path.iterdir()] == ["dead.json"]


def test_its_directory_is_private_short_and_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / ('x' * 100)}:{tmp_path}")
    ledger = Ledger.made()
    assert ledger.directory.parent == Path("/tmp")
    assert ledger.directory.stat().st_mode & 0o777 == 0o700
    ledger.remove()
    ledger.remove()
    assert not ledger.directory.exists()
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/none")
    with pytest.raises(ConfigError, match="no place for what workers share: /none"):
        Ledger.made()


def test_it_says_what_is_missing_where_nothing_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/']")

    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with pytest.raises(ConfigError, match=r"share: .* in \['/tmp', '/'\]; TMPDIR can name another"):
        Ledger.made()


async def test_writing_while_others_read_shows_no_half_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(1, counted(a=1))

    def write() -> None:
        for count in range(1, 50):
            ledger.write(1, counted(a=count))

    writing = asyncio.create_task(asyncio.to_thread(write))
    while not writing.done():
        assert (await asyncio.to_thread(all_told, ledger) or 0) >= 1
    await writing
