"""Rules, dashboard and the page about alerts agree with each other and with what is exposed.

That Prometheus understands all of it is tried in servers/test_prometheus.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest
from monitoring import DASHBOARD, DEPLOY, alerts, panels, queries, rules
from pages import ROOT
from prometheus_client import Metric

from gateway.auth import TICKET_RESULTS
from gateway.families import CAUSES, FAMILIES, PREFIX, declared
from gateway.lifecycle import running
from gateway.settings import Settings
from stand import stand

PAGE: Final = ROOT / "docs" / "alerts.md"

NOT_ON_THE_DASHBOARD: Final = {
    "process_virtual_memory_bytes": "resident memory is what counts",
    "python_gc_objects_collected": "the number of collections tells enough",
    "python_gc_objects_uncollectable": "none since Python 3.4",
}
"""Families that no panel asks for, and why."""

SECTION: Final = re.compile(r"^### (ScampGateway\w+)$", re.MULTILINE)

OTHERS: Final = re.compile(r"\b(?:process|python_gc)_[a-z_]+\b")
METRIC: Final = re.compile(rf"(?<![a-z_:]){PREFIX}[a-z0-9_]+")
MATCHED: Final = re.compile(rf"({PREFIX}[a-z0-9_]+)\{{([^}}]*)\}}")
LABEL: Final = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')


def exposed() -> set[str]:
    """The names of all samples that there can be."""
    return {name for one in FAMILIES.values() for name in samples(one.kind, one.name)}


def samples(kind: str, name: str) -> set[str]:
    if kind == "counter":
        return {f"{name}_total"}
    if kind == "histogram":
        return {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    return {name}


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def expressions() -> list[str]:
    """All of rules and dashboard."""
    return [rule["expr"] for rule in rules()] + queries()


@pytest.fixture
async def families(tmp_path: Path) -> AsyncIterator[list[Metric]]:
    """What a gateway exposes that has just started, and has reloaded something."""
    async with (
        stand(tmp_path) as made,
        running(made.loaded(rate_limit_user="1/s")) as gateway,
    ):
        gateway.parts.reloads.note("routes", "no good")
        yield await gateway.parts.state.families()


# -- names ------------------------------------------------------------------------------


def test_every_metric_in_rules_and_dashboard_is_exposed() -> None:
    texts = [*expressions(), (DEPLOY / "prometheus" / "tests.yml").read_text(), PAGE.read_text()]
    names = {name for text in texts for name in METRIC.findall(text)}
    assert len(names) > 60
    assert sorted(names - exposed()) == []


def test_every_recorded_series_that_is_used_is_recorded() -> None:
    used = {name for one in expressions() for name in re.findall(r"\bjob\w*:[\w:]+", one)}
    assert used <= recorded()
    assert all(re.fullmatch(r"job\w*:[a-z0-9_]+:[a-z0-9_]+", one) for one in recorded())
    assert not any(":" in one for one in queries()), "the dashboard does without the rules"


async def test_what_is_exposed_has_the_labels_that_are_asked_for(families: list[Metric]) -> None:
    """And, where all values are there from the start, these values."""
    known: dict[str, dict[str, set[str]]] = {}
    for family in families:
        for name in samples(family.type, family.name):
            known[name] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                known[sample.name].setdefault(label, set()).add(value)
    looked = 0
    for name, matchers in (pair for one in expressions() for pair in MATCHED.findall(one)):
        for label, operator, value in LABEL.findall(matchers):
            values = known.get(name, {}).get(label)
            if values is None or label in ("job", "instance", "action"):
                continue
            looked += 1
            if operator == "=":
                assert value in values, f"{name}: {label}={value}"
            else:
                assert set(value.split("|")) <= values, f"{name}: {label}{operator}{value}"
    assert looked > 5


async def test_process_metrics_are_exposed(families: list[Metric]) -> None:
    names = {sample.name for family in families for sample in family.samples}
    used = {name for one in expressions() for name in OTHERS.findall(one)}
    assert used
    assert used <= names


# -- alerts -----------------------------------------------------------------------------


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    found = alerts()
    assert len({alert["alert"] for alert in found}) == len(found) > 30
    for alert in found:
        name = alert["alert"]
        assert re.fullmatch(r"ScampGateway[A-Za-z]+", name)
        assert alert["for"] not in ("", "0s"), name
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        said = alert["annotations"]
        assert said.keys() == {"summary", "description", "runbook"}, name
        assert 15 < len(said["summary"]) < 120, name
        assert said["description"].endswith("."), name
        assert said["runbook"] == f"docs/alerts.md#{name.lower()}"


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert SECTION.findall(PAGE.read_text()) == [alert["alert"] for alert in alerts()]


def test_every_section_says_something() -> None:
    parts = SECTION.split(PAGE.read_text())[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        assert len(text) > 90, name


def test_settings_and_causes_that_the_page_names_exist() -> None:
    known = {*Settings.model_fields, *CAUSES}
    words = set(re.findall(r"`(?!scamp_)([a-z]+(?:_[a-z]+)+)`", PAGE.read_text()))
    values = {value for one in expressions() for _, _, value in LABEL.findall(one)}
    elsewhere = {*"|".join(values).split("|"), *TICKET_RESULTS, *declared("requests_shed").known()}
    assert sorted(words - known - elsewhere - {"authorized_services"}) == []


# -- the dashboard ----------------------------------------------------------------------


def test_dashboard_is_what_its_script_makes() -> None:
    command = [sys.executable, str(DEPLOY / "grafana" / "dashboard.py")]
    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert DASHBOARD.read_text() == made, "python deploy/grafana/dashboard.py > …/dashboard.json"


def test_every_family_is_on_the_dashboard_or_left_out_for_a_reason() -> None:
    text = " ".join(queries())
    shown = {
        one.name
        for one in FAMILIES.values()
        if any(re.search(rf"\b{name}\b", text) for name in samples(one.kind, one.name))
    }
    assert sorted(FAMILIES.keys() - shown - NOT_ON_THE_DASHBOARD.keys()) == [], (
        "a panel in deploy/grafana/panels.py, or a line in NOT_ON_THE_DASHBOARD"
    )
    assert NOT_ON_THE_DASHBOARD.keys() <= FAMILIES.keys() - shown


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    found = panels()
    assert len({one["id"] for one in found}) == len(found) > 60
    places = [one["gridPos"] for one in found]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] > 0
        assert place["y"] >= 0
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_target_asks_the_chosen_data_source() -> None:
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"], panel["title"]
        ids = [target["refId"] for target in panel["targets"]]
        assert len(set(ids)) == len(ids)
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"]
            assert target["legendFormat"]
            assert 'job=~"$job", instance=~"$instance"' in target["expr"], panel["title"]


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            left = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
            if "by (" in target["expr"]:
                assert shown <= left, target["expr"]
            else:
                assert shown <= {"instance"}, target["expr"]


def test_variables_are_those_that_queries_use() -> None:
    content = json.loads(DASHBOARD.read_text())
    variables = {one["name"]: one for one in content["templating"]["list"]}
    assert variables.keys() == {"datasource", "job", "instance"}
    assert variables["datasource"]["query"] == "prometheus"
    used = {name for one in queries() for name in re.findall(r"\$(\w+)", one)}
    assert used == {"job", "instance", "__rate_interval"}
    assert content["uid"] == "scamp-gateway"
    assert "id" not in content, "Grafana gives it"


def test_every_row_that_was_asked_for_is_there() -> None:
    rows = [one["title"] for one in panels() if one["type"] == "row"]
    assert rows == [
        *("Traffic", "Errors by cause", "Latency", "Instances", "Connections to services"),
        *("Discovery", "Tickets", "Clients", "Events", "Rate limits", "Resources"),
    ]
