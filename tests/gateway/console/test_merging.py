"""Parts of workers as one, and what the dead have left behind."""

from __future__ import annotations

from typing import Any

from offers import registry_of, service
from prometheus_client import Metric

from gateway.actions import announced
from gateway.console.merging import merged, of_families
from gateway.console.reading import Part, added, of_tally
from gateway.counting import BUCKETS, buckets_of
from gateway.metrics import Metrics, Tally
from gateway.workers.merge import packed


def part(**given: Any) -> Part:
    return {"histograms": {}, "actions": {}, **given}


def view(identity: str = "shop", **given: Any) -> dict[str, Any]:
    return {
        "fingerprint": "AA",
        "identity": identity,
        "state": "up",
        "seconds": 10.0,
        "retry_in": None,
        "failures": 0,
        "in_flight": 1,
        "waiting": 2,
        "connections": 3,
        "share": 1.0,
        "last_error": None,
        **given,
    }


def test_numbers_are_added_by_name() -> None:
    one = part(counters={"retries": 1}, gauges={"in_flight": 2}, responses={"2xx service": 3})
    two = part(counters={"retries": 10, "connects": 5}, responses={"4xx gateway": 1}, shed={"a": 1})
    total = merged([one, two])
    assert total["counters"] == {"retries": 11, "connects": 5}
    assert total["gauges"] == {"in_flight": 2}
    assert total["responses"] == {"2xx service": 3, "4xx gateway": 1}
    assert total["shed"] == {"a": 1}


def test_histograms_and_actions_are_added_bucket_by_bucket() -> None:
    one = part(histograms={"own": [1, 2]}, actions={"A.b~1": [3, 1, 0, 10, [3, 0]]})
    two = part(histograms={"own": [10, 20]}, actions={"A.b~1": [1, 0, 1, 5, [0, 1]],
                                                      "C.d~1": [1, 0, 0, 0, [1, 0]]})  # fmt: skip
    total = merged([one, two])
    assert total["histograms"] == {"own": [11, 22]}
    assert total["actions"] == {"A.b~1": [4, 1, 1, 15, [3, 1]], "C.d~1": [1, 0, 0, 0, [1, 0]]}
    assert one["actions"]["A.b~1"][0] == 3, "a part is left as it is"


def test_an_instance_of_several_workers_is_one_and_out_when_one_finds_it_out() -> None:
    error = "connection refused" * 100
    one = part(instances=[view(), view("other", share=0.5)])
    two = part(
        instances=[view(state="out", seconds=1.0, retry_in=0.5, failures=2, last_error=error)]
    )
    for order in ([one, two], [two, one]):
        found = merged(order)["instances"]
        assert found.keys() == {("AA", "shop"), ("AA", "other")}
        shop = found["AA", "shop"]
        assert (shop["state"], shop["out"], shop["workers"]) == ("out", 1, 2)
        assert (shop["in_flight"], shop["waiting"], shop["connections"]) == (2, 4, 6)
        assert (shop["seconds"], shop["retry_in"], shop["failures"]) == (1.0, 0.5, 2)
        assert shop["last_error"] == error[:300]
        assert found["AA", "other"]["share"] == 0.5


def test_a_file_that_all_workers_read_was_loaded_once() -> None:
    good = {"what": "routes", "ok": 2, "failed": 0, "last_ok": 5.0, "last_failed": None,
            "error": None}  # fmt: skip
    bad = {**good, "ok": 1, "failed": 1, "last_ok": 4.0, "last_failed": 6.0, "error": "x" * 1000}
    (row,) = merged([part(reloads=[good]), part(reloads=[bad])])["reloads"]
    assert row == {
        "what": "routes",
        "ok": 2,
        "failed": 1,
        "last_ok": 5.0,
        "last_failed": 6.0,
        "error": "x" * 300,
    }


def test_nothing_is_nothing() -> None:
    assert merged([])["instances"] == {}
    assert added([], []) == []
    assert added([1], []) == [1]


def test_what_the_dead_wrote_for_prometheus_is_what_the_living_tell() -> None:
    """Whoever renames a metric finds the other place here."""
    registry = registry_of(service("shop", "Shop.buy", "Shop.sell"))
    counted = Metrics(registry)
    for number, name in enumerate(("Shop.buy", "Shop.sell"), 1):
        series = counted.series(announced(registry.find("main", name), 1.0))
        series.requests(("GET", "2xx", "service")).inc(number)
        series.requests(("POST", "5xx", "gateway")).inc()
        series.duration.observe(0.004 * number)
        series.upstream.observe(0.002 * number)
        series.bytes_in.inc(100)
        series.bytes_out.inc(200 * number)
    counted.own.observe(0.0001)
    counted.own.observe(1e6)
    counted.lag.observe(0.3)
    counted.queued.observe(0.02)
    counted.cut.inc(4)
    families: list[Metric] = list(counted.collect())
    left = of_families(packed(families))
    tallies = [series.tally() for series in counted.all_series()]
    assert left["responses"] == {"2xx service": 3, "5xx gateway": 2}
    assert left["counters"] == {"answers_cut": 4, "bytes_in": 200, "bytes_out": 600}
    whole: list[float] = []
    for tally in tallies:
        whole = added(whole, tally.duration)
    assert left["histograms"]["whole"] == whole
    assert sum(left["histograms"]["upstream"]) == 2
    assert left["histograms"]["own"] == buckets_of(counted.own)
    assert left["histograms"]["own"][0] == left["histograms"]["own"][len(BUCKETS)] == 1
    assert left["histograms"]["lag"] == buckets_of(counted.lag)
    assert left["histograms"]["queued"] == buckets_of(counted.queued)


def test_an_action_in_five_numbers() -> None:
    requests = {("GET", "2xx", "service"): 5, ("GET", "4xx", "gateway"): 2,
                ("POST", "4xx", "service"): 1, ("GET", "5xx", "service"): 1}  # fmt: skip
    tally = Tally(dict(requests), [1, 2], [3, 4], 10, 20)
    assert of_tally(tally) == [9, 3, 1, 30, [1, 2]]
