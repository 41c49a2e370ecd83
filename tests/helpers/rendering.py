"""What kustomize and Helm make of deploy/, and what may be said of all of it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from manifests import (
    CHART,
    VERSIONS,
    Object,
    complaint,
    gateway_of,
    only,
    parse,
    pod,
    settings_of,
)

Tool = Callable[[str], str]
"""The fixture of tests/servers that finds a program."""

VALUES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
CLOSING: Final = 10.0
"""Seconds that a stop may take beyond the drain (docs/operations.md)."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def build(tool: Tool, folder: Path) -> list[Object]:
    done = run(tool("kubectl"), "kustomize", folder)
    assert (done.returncode, done.stderr) == (0, "")
    return parse(done.stdout)


def template(tool: Tool, *options: str | Path, values: Path | None = None) -> list[Object]:
    given = () if values is None else ("--values", values)
    done = run(tool("helm"), "template", "scamp-gateway", CHART, *given, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return parse(done.stdout)


def assert_good(objects: list[Object]) -> None:
    """Kubernetes takes them, and they fit together."""
    for version in VERSIONS:
        assert [why for one in objects if (why := complaint(one, version))] == []
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    if ("Namespace", "scamp-cache") in names:
        return
    deployment = only(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for one in objects:
        selector = one["spec"].get("selector", {}) if "spec" in one else {}
        if one["kind"] in ("Service", "PodDisruptionBudget", "Deployment"):
            assert selector.get("matchLabels", selector).items() <= labels.items()
        if one["kind"] == "Ingress":
            for rule in one["spec"]["rules"]:
                backend = rule["http"]["paths"][0]["backend"]["service"]
                public = only(objects, "Service", backend["name"])["spec"]["ports"]
                assert backend["port"]["name"] in {port["name"] for port in public}
        if one["kind"] == "ServiceMonitor":
            found = [
                service
                for service in objects
                if service["kind"] == "Service"
                and selector["matchLabels"].items() <= service["metadata"]["labels"].items()
            ]
            assert [service["spec"]["ports"][0]["name"] for service in found] == ["admin"]
    if any(one["kind"] == "HorizontalPodAutoscaler" for one in objects):
        assert "replicas" not in deployment["spec"], "would be set back each time"
    (config,) = (one["configMap"] for one in pod(deployment)["volumes"] if one["name"] == "config")
    only(objects, "ConfigMap", config["name"])


def config_map(objects: list[Object]) -> dict[str, str]:
    data: dict[str, str] = only(objects, "ConfigMap")["data"]
    return data


def settled(objects: list[Object], folder: Path) -> tuple[Object, Any]:
    """The pod and its settings; a secret that they name is in `folder`."""
    deployment = only(objects, "Deployment")
    toml = folder / "gateway.toml"
    (folder / "url").write_text("redis://127.0.0.1")
    text = config_map(objects)["gateway.toml"]
    toml.write_text(text.replace("/etc/scamp/redis/", f"{folder}/"))
    plain = [one for one in gateway_of(deployment)["env"] if "value" in one]
    return pod(deployment), settings_of({"env": plain}, toml).settings


def names(objects: list[Object]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


OF_HELM: Final = {
    *("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"),
    *("checksum/config", "helm.sh/chart"),
}


def named(objects: list[Object]) -> dict[tuple[str, str], Any]:
    """All but how the settings are written, what a release adds, and the overlay's namespace."""
    return {
        (one["kind"], plain_name(one["metadata"]["name"])): plain(one)
        for one in objects
        if one["kind"] != "ConfigMap"
    }


def plain_name(text: str) -> str:
    return re.sub(r"^(scamp-gateway-config)-\w{10}$", r"\1", text)


def _name(one: Any) -> str:
    return str(one["name"]) if isinstance(one, dict) and "name" in one else ""


def plain(one: Any) -> Any:
    if isinstance(one, dict):
        return {
            key: plain(value)
            for key, value in one.items()
            if key not in OF_HELM and (key, value) != ("namespace", "scamp-gateway")
        }
    if isinstance(one, list):  # those with names are in the order in which patches came
        return sorted((plain(value) for value in one), key=_name)
    return plain_name(one) if isinstance(one, str) else one
