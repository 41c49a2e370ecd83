"""What deploy/ has for Prometheus and Grafana, and a real Prometheus to try it on."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus" / "rules.yml"
CONFIG: Final = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboard.json"

INTERVAL: Final = "500ms"
"""Between scrapes, and between evaluations: the only thing that tests have other than operators."""

VARIABLES: Final = {
    "$job": ".*",
    "$instance": ".*",
    "$__rate_interval": "1m",
}
"""What Grafana puts in their place; see `substituted`."""


def rules() -> list[dict[str, Any]]:
    """Every rule of the file, recording rules too."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The alerts among them."""
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """Everything on the dashboard, rows too."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> list[str]:
    """Every query of the dashboard, as it stands there."""
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def substituted(query: str) -> str:
    """With values in place of Grafana's variables."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, f"{query}: no value for a variable"
    return query


T = TypeVar("T")


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer. Fails with the server's own words."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - our own server
                told = json.load(answer)
        except urllib.error.HTTPError as exc:
            raise AssertionError(f"{path} {parameters}: {exc.read().decode()}") from exc
        assert told["status"] == "success", told
        assert not told.get("warnings"), told
        return told["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that `expr` gives now."""
        data = self.ask("query", query=expr)
        assert data["resultType"] == "vector", expr
        found: list[dict[str, Any]] = data["result"]
        return found

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Those that are pending or firing, by name."""
        return {one["labels"]["alertname"]: one for one in self.ask("alerts")["alerts"]}

    def firing(self, name: str) -> bool:
        """Whether the alert does."""
        return any(
            one["labels"]["alertname"] == name and one["state"] == "firing"
            for one in self.ask("alerts")["alerts"]
        )


@contextmanager
def running_prometheus(
    program: str, folder: Path, targets: Mapping[str, str], at_once: frozenset[str] = frozenset()
) -> Iterator[Prometheus]:
    """A server with the shipped configuration and rules; `targets` has others for the shipped
    ones. Of the alerts `at_once` nothing is waited for: their expressions stay as they are."""
    process = subprocess.Popen(
        [
            program,
            f"--config.file={_configured(folder, targets, at_once)}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--log.level=warn",
        ],
        stderr=subprocess.PIPE,
    )
    try:
        yield Prometheus(f"http://127.0.0.1:{_port(process)}")
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
        print(said.decode())  # noqa: T201 - shown when the test fails


def _configured(folder: Path, targets: Mapping[str, str], at_once: frozenset[str]) -> Path:
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {
        "scrape_interval": INTERVAL,
        "evaluation_interval": INTERVAL,
        "scrape_timeout": INTERVAL,
    }
    for job in config["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [targets[one] for one in group["targets"]]
    content = yaml.safe_load(RULES.read_text())
    for group in content["groups"]:
        for rule in group["rules"]:
            if rule.get("alert") in at_once:
                rule["for"] = "0s"
    (folder / "rules.yml").write_text(yaml.safe_dump(content))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _port(process: subprocess.Popen[bytes]) -> int:
    """Where it listens, which is its own choice."""

    def listening() -> int | None:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        found = psutil.Process(process.pid).net_connections("tcp")
        return next((one.laddr.port for one in found if one.status == psutil.CONN_LISTEN), None)

    return until(listening, "Prometheus listens")


def until(look: Callable[[], T | None], what: object, limit: float = 30.0) -> T:
    """What `look` gives as soon as it is true; else it fails with `what`, as that is then."""
    end = time.monotonic() + limit
    while True:
        if found := look():
            return found
        assert time.monotonic() < end, f"not within {limit:g} s: {what}"
        time.sleep(0.1)
