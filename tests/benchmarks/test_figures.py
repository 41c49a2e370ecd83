"""Every figure is made by the real command in real processes; what its numbers are is not asked."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import FIGURES, KEPT, PAGES, main
from benchmarks.figures import Figure, Series, percentile, ratios, read_figure
from benchmarks.load import Outcome
from benchmarks.processes import Process, started
from benchmarks.sides import Side, measured, turns
from benchmarks.tables import columns, heading, markdown, plain, put

SIDES = {
    "small": {"scamp-gateway", "web.Application", "web.Server", "nginx"},
    "ticket": {
        *("no ticket", "same ticket", "ten in turn", "another ticket each time"),
        "web.Application",
    },
    "bodies": {"scamp-gateway", "web.Application", "nginx"},
    "streaming": {"scamp-gateway", "nginx"},
    "crowd": {"scamp-gateway", "web.Application"},
    "latency": {"scamp-gateway", "direct", "added"},
    "start": {
        "scamp-gateway",
        "web.Application",
        "python -c 'import aiohttp.web, uvloop'",
    },
    "memory": {"scamp-gateway", "web.Application"},
    "workers": {"1 worker", "2 workers"},
    "cache": {"3 services", "6 services"},
    "changing": {"nothing changes", "written anew", "one record changed", "all records renewed"},
}


@pytest.fixture(autouse=True)
def own_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of a mesh that runs somewhere."""
    monkeypatch.delenv("SCAMP_INTEROP_CACHE", raising=False)


@pytest.mark.one_loop
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_a_number_on_each_side(name: str, tmp_path: Path) -> None:
    written = tmp_path / "result.json"
    done = CliRunner().invoke(main, ["--quick", "--json", str(written), name])
    assert done.exception is None, done.output
    facts = json.loads(written.read_text())
    (figure,) = facts["figures"]
    assert figure["name"] == name
    assert figure["series"]
    for series in figure["series"]:
        assert series["samples"], series
        assert all(map(math.isfinite, series["samples"])), series
        assert series["unit"] not in ("x", "1/s", "MB/s") or min(series["samples"]) > 0, series
    if name in SIDES:
        sides = {series["side"] for series in figure["series"]}
        assert sides in (SIDES[name], SIDES[name] - {"nginx"})
    assert {"scamp-gateway", "aiohttp", "uvloop"} <= set(facts["versions"])
    assert facts["options"]["pairs"] == 1
    assert facts["date"] in done.output


def test_without_nginx_the_figure_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(
        main, ["--quick", "--generator", "auto", "--size", "1MiB", "streaming"]
    )
    assert done.exception is None, done.output
    assert "nginx is not installed" in done.output
    assert "scamp-gateway" in done.output


def test_what_was_measured_next_to_each_other_is_compared() -> None:
    ours = Series("a", "us", [2.0, 9.0, 4.0], side="ours")
    found = ratios("times theirs", ours, Series("a", "us", [1.0, 3.0, 2.0], side="theirs"))
    assert found.samples == [2.0, 3.0, 2.0]
    assert found.cell() == "2.00 (2.00 to 3.00)"
    assert found.side == "ours"


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100)]
)
def test_percentiles_are_samples(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected
    assert percentile([7.0], share) == 7.0


def test_another_side_is_first_in_each_round() -> None:
    assert list(turns("abc", 4)) == [*"abc", *"bca", *"cab", *"abc"]


@dataclass
class Scripted:
    """A generator that says what it is told to say, and lets a process use some CPU."""

    outcomes: list[Outcome]
    asked: list[float] = field(default_factory=list)
    name = "scripted"

    def run(self, seconds: float) -> Outcome:
        self.asked.append(seconds)
        return self.outcomes.pop(0)


BURNING = "import time; print('ready', flush=True)\nwhile time.process_time() < 60: pass"


@pytest.fixture
def burning(tmp_path: Path) -> Iterator[Process]:
    """A process that does nothing but use CPU."""
    with started([sys.executable, "-c", BURNING], tmp_path / "log") as process:
        yield process


def test_cpu_is_that_of_the_process_and_its_children(burning: Process) -> None:
    before = burning.cpu()
    end = time.monotonic() + 30
    while burning.cpu() < before + 0.05:
        assert time.monotonic() < end
    assert burning.cpu() == pytest.approx(sum(burning.times()), abs=0.5)


def test_the_first_run_of_a_side_does_not_count_and_no_failure_is_let_through(
    burning: Process,
) -> None:
    load = Scripted([Outcome(1, 0, 1.0), Outcome(10, 0, 2.0), Outcome(10, 1, 2.0)])
    side = Side("one", burning, load)
    measured([side], 1, 2.0)
    assert load.asked == [1.0, 2.0]
    (sample,) = side.samples
    assert (sample.requests, sample.seconds) == (10, 2.0)
    assert sample.cpu > 0
    with pytest.raises(RuntimeError, match="one: 1 of 10 failed"):
        side.run(1.0)


FIGURE = Figure(
    "small",
    "CPU per request",
    [
        Series("CPU", "us", [36.0, 35.0, 37.0], side="ours"),
        Series("CPU", "us", [24.0, 24.0, 25.0], side="bare"),
        Series("times bare", "x", [1.5], digits=2, side="ours"),
    ],
    ["A note."],
)


def test_rows_are_names_and_columns_are_sides() -> None:
    assert plain(FIGURE).splitlines() == [
        "small: CPU per request",
        "",
        "                           ours                 bare  unit",
        "CPU         36.0 (35.0 to 37.0)  24.0 (24.0 to 25.0)  us",
        "times bare                 1.50                       x",
        "",
        "A note.",
    ]
    assert markdown(FIGURE).splitlines()[2:] == [
        "| | ours | bare | unit |",
        "| --- | --- | --- | --- |",
        "| CPU | 36.0 (35.0 to 37.0) | 24.0 (24.0 to 25.0) | us |",
        "| times bare | 1.50 | | x |",
        "",
        "A note.",
    ]
    assert columns([("", "n"), ("ab", "1")]) == ["    n", "ab  1"]


def test_one_side_needs_no_name() -> None:
    head, row = Figure("a", "b", [Series("loads", "ms", [1.0])]).rows()
    assert head == ("", "median (lowest to highest)", "unit")
    assert row == ("loads", "1.0", "ms")


def test_a_figure_comes_back_from_its_facts() -> None:
    assert read_figure(json.loads(json.dumps(FIGURE.facts()))) == FIGURE


RESULT = {
    "date": "2026-11-26",
    "commit": "abc",
    "python": "3.11",
    "versions": {"nginx": "1.22"},
    "system": "Linux",
    "cores": 2,
    "processor": "AMD",
    "load_average": 0.1,
    "figures": [FIGURE.facts()],
}


def page(names: str, shown: str = "old\n") -> str:
    return f"Before.\n\n<!-- figures{names} -->\n{shown}<!-- end of figures -->\n\nAfter.\n"


@pytest.mark.parametrize(("names", "title"), [("", "### `small`\n\n"), (": small", "")])
def test_tables_take_the_place_of_those_before(names: str, title: str) -> None:
    text = put(RESULT, page(names))
    shown = f"\n{heading(RESULT)}\n\n{title}{markdown(FIGURE)}\n\n"
    assert text == page(names, shown)
    assert put(RESULT, text) == text
    assert shown.startswith("\n2026-11-26, commit abc. 2 cores (AMD), load 0.1 before it began")


def test_a_page_that_cannot_have_them_is_refused() -> None:
    with pytest.raises(ValueError, match="has no <!-- figures -->"):
        put(RESULT, "text\n")
    with pytest.raises(KeyError, match="latency"):
        put(RESULT, page(": small latency"))


def test_a_result_can_be_shown_again(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    result.write_text(json.dumps(RESULT))
    for option, table in (("--markdown", markdown(FIGURE)), (None, plain(FIGURE))):
        done = CliRunner().invoke(main, ["--read", str(result), *([option] if option else [])])
        assert done.exception is None, done.output
        assert done.output == f"{heading(RESULT)}\n\n{table}\n"


def test_pages_show_the_result_that_is_kept() -> None:
    """`python -m benchmarks --read benchmarks/result.json --keep` makes it so."""
    facts = json.loads(KEPT.read_text())
    assert {figure["name"] for figure in facts["figures"]} == set(FIGURES)
    for shown in PAGES:
        assert put(facts, shown.read_text()) == shown.read_text(), shown.name
