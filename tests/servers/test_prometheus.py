"""The shipped rules and the dashboard's queries, on a real Prometheus that scrapes a gateway."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
import yaml
from demos import LAST_LINE, demo_command
from monitoring import (
    DEPLOY,
    RULES,
    Prometheus,
    alerts,
    panels,
    queries,
    rules,
    running_prometheus,
    substituted,
    until,
)

pytestmark = pytest.mark.timeout(120)

UNIT_TESTS: Final = DEPLOY / "prometheus" / "tests.yml"
ACTION: Final = "Product.Sku.ping~1"

NOT_IN_A_DEMO: Final = (
    "certificate_expiry_timestamp_seconds",  # no TLS
    "workers", "worker_ends_total",  # a single one
    "rate_limit_redis_up", "rate_limit_redis_failures_total", "rate_limit_entries",  # no limits
    "discovery_records_rejected",  # none is
    "spans_exported_total", "spans_dropped_total",  # no tracing
)  # fmt: skip
"""Metrics of what a demo does not have; a query for them has no data."""

ONLY_WHEN_BAD: Final = ("action_usable", "last_reload_successful")
"""Metrics of which the dashboard lists what is 0."""


# -- promtool ---------------------------------------------------------------------------


def promtool(tool: Callable[[str], str], *arguments: str | Path) -> None:
    command = [tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_rules_and_configuration(tool: Callable[[str], str]) -> None:
    promtool(tool, "check", "rules", RULES)
    promtool(tool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_alerts_fire_on_bad_series_and_on_no_others(tool: Callable[[str], str]) -> None:
    promtool(tool, "test", "rules", UNIT_TESTS)


def test_no_alert_goes_without_such_a_test() -> None:
    """Needs no promtool. Each says which series make it fire, and has some that do not."""
    groups = yaml.safe_load(UNIT_TESTS.read_text())["tests"]
    assert [group["name"] for group in groups] == [alert["alert"] for alert in alerts()]
    for group in groups:
        name = group["name"]
        expected = group["promql_expr_test"]
        assert all(f'alertname="{name}"' in one["expr"] for one in expected), name
        assert any(one["exp_samples"] for one in expected), f"{name} is never expected to fire"
        fires = {one["labels"] for test in expected for one in test["exp_samples"]}
        silent = any("good" in one["series"].lower() for one in group["input_series"])
        assert silent, f"{name} has no good series"
        assert not any("good" in one.lower() for one in fires), name


def test_unit_tests_notice_an_alert_that_is_gone(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Else they could all pass by looking at nothing."""
    content = yaml.safe_load(RULES.read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = "vector(1) < 0"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(content))
    shutil.copy(UNIT_TESTS, tmp_path)
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "tests.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert [one["alert"] for one in alerts() if f'"{one["alert"]}\\"' not in said] == []


# -- a real server ----------------------------------------------------------------------


@dataclass
class Watched:
    """A demo, and the Prometheus that scrapes its gateway."""

    process: subprocess.Popen[str]
    printed: str
    prometheus: Prometheus
    folder: Path

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.printed, re.MULTILINE)
        assert match is not None, self.printed
        return match[1]

    def ask(self, path: str, user: str | None = None) -> int:
        """The status of a GET on the public listener."""
        request = urllib.request.Request(self.found(r"# gateway (\S+)") + path)  # noqa: S310
        if user is not None:
            ticket = (self.folder / f"{user}.ticket").read_text()
            request.add_header("Authorization", f"Bearer {ticket}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                answer.read()
                status: int = answer.status
                return status
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code

    def traffic(self) -> None:
        """Some of all kinds, few of them errors."""
        for _ in range(5):
            assert self.ask("/api/Product.Sku.ping") == 200
            assert self.ask("/api/Product.Sku.list", "bob") == 200
        assert self.ask("/api/Product.Sku.list") == 401


@pytest.fixture(scope="module")
def watched(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    program = tool("prometheus")
    folder: Path = tmp_path_factory.mktemp("demo")
    process = subprocess.Popen(
        demo_command(folder, "--quiet-services"), stdout=subprocess.PIPE, text=True
    )
    family: list[psutil.Process] = []
    try:
        printed = ""
        assert process.stdout is not None
        while LAST_LINE not in printed:
            line = process.stdout.readline()
            assert line, printed
            printed += line
        family = psutil.Process(process.pid).children(recursive=True)
        admin = re.search(r"# admin +http://(\S+)", printed)
        assert admin is not None
        at_once = frozenset({"ScampGatewayNoInstance", "ScampGatewayDown"})
        where = {"127.0.0.1:9090": admin[1]}
        with running_prometheus(
            program, tmp_path_factory.mktemp("prometheus"), where, at_once
        ) as prometheus:
            yield Watched(process, printed, prometheus, folder)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=30)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def test_target_is_up_and_every_expression_is_understood(watched: Watched) -> None:
    prometheus = watched.prometheus
    until(lambda: prometheus.query('up{job="scamp-gateway"} == 1'), "the target is up")
    target = prometheus.ask("targets")["activeTargets"][0]
    assert (target["health"], target["lastError"]) == ("up", "")
    for rule in rules():
        prometheus.query(rule["expr"])
    for query in queries():
        prometheus.query(substituted(query))


def test_queries_have_data_once_there_is_traffic(watched: Watched) -> None:
    prometheus = watched.prometheus
    empty = [substituted(one) for one in queries() if not _is_about(one, NOT_IN_A_DEMO)]
    empty = [one for one in empty if not ("== 0" in one and _is_about(one, ONLY_WHEN_BAD))]
    assert len(empty) > 70
    assert watched.ask("/api/Product.Sku.broken", "bob") == 500

    def all_full() -> bool:
        watched.traffic()
        empty[:] = [one for one in empty if not prometheus.query(one)]
        return not empty

    until(all_full, empty)
    for panel in panels():
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for one in prometheus.query(substituted(target["expr"])):
                assert shown <= one["metric"].keys(), (panel["title"], one["metric"])
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    until(lambda: all(prometheus.query(name) for name in recorded), recorded)


def _is_about(query: str, names: tuple[str, ...]) -> bool:
    return any(
        re.search(rf"scamp_gateway_{re.escape(name)}(?![a-z_])", query) is not None
        for name in names
    )


def test_alert_fires_when_an_action_in_use_has_no_instance(watched: Watched) -> None:
    """And ends when there is one again. Who would start the services anew is stopped meanwhile."""
    prometheus, name = watched.prometheus, "ScampGatewayNoInstance"
    watched.traffic()
    healthy = f'scamp_gateway_action_usable{{action="{ACTION}"}} == 1'
    until(lambda: prometheus.query(healthy), "the action is seen in use")
    until(lambda: not prometheus.alerts(), "nothing is wrong")
    shops = [int(watched.found(rf"shop-{number} (\d+)")) for number in (1, 2)]
    watched.process.send_signal(signal.SIGSTOP)
    for shop in shops:
        os.kill(shop, signal.SIGKILL)
    until(lambda: watched.ask("/api/Product.Sku.ping") >= 500, "nobody answers")
    until(lambda: prometheus.firing(name), f"{name} fires")
    alert = _of_action(prometheus, name)
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == f"No instance of {ACTION} is usable"
    watched.process.send_signal(signal.SIGCONT)
    until(lambda: watched.ask("/api/Product.Sku.ping") == 200, "the services are back")
    until(lambda: not prometheus.firing(name), f"{name} ends")


def _of_action(prometheus: Prometheus, name: str) -> dict[str, Any]:
    return next(
        one
        for one in prometheus.ask("alerts")["alerts"]
        if one["labels"]["alertname"] == name and one["labels"]["action"] == ACTION
    )


def test_alert_fires_when_a_gateway_does_not_answer(watched: Watched) -> None:
    gateway = int(watched.found(r"# gateway \S+ \(process (\d+)\)"))
    os.kill(gateway, signal.SIGSTOP)
    try:
        until(lambda: watched.prometheus.firing("ScampGatewayDown"), "ScampGatewayDown fires")
    finally:
        os.kill(gateway, signal.SIGCONT)
    until(lambda: not watched.prometheus.firing("ScampGatewayDown"), "ScampGatewayDown ends")
