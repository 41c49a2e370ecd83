"""Kubernetes objects agree with Kubernetes' schemas and with what the gateway does; no program is
needed. What kustomize and Helm make of them is tried in tests/servers."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import pytest
import yaml

from benchmarks.processes import started
from gateway.admin import admin_application
from gateway.settings import ENV_PREFIX, Settings
from gateway.sources import CONFIG_VARIABLE
from manifests import (
    CHART,
    KUBERNETES,
    ROOT,
    VERSIONS,
    Mesh,
    Pod,
    complaint,
    gateway_of,
    parse,
    pod,
    settings_of,
    written,
)
from scamp import keys
from scamp.config import ScampConf
from scamp.discovery import write_cache
from scamp.tickets import issue_ticket

CLOSING: Final = 10.0
"""Seconds that a stop may take beyond the drain (docs/operations.md)."""

OBJECTS: Final = written()
DEPLOYMENT: Final = OBJECTS["base/deployment.yaml"]
CONTAINER: Final = gateway_of(DEPLOYMENT)
CONFIGURATIONS: Final = sorted(KUBERNETES.rglob("gateway.toml"))
PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")


def generated() -> Any:
    spec = spec_from_file_location("generate", ROOT / "deploy" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- schemas ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", OBJECTS)
def test_kubernetes_knows_every_field(path: str) -> None:
    for version in VERSIONS:
        assert complaint(OBJECTS[path], version) is None


def places(one: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where in an object there is an object with names of Kubernetes, and not of somebody's own."""
    if isinstance(one, dict):
        if path and path[-1] not in {"labels", "matchLabels", "annotations", "selector", "limits"}:
            yield path
        for key, value in one.items():
            yield from places(value, *path, key)
    elif isinstance(one, list):
        for number, value in enumerate(one):
            yield from places(value, *path, number)


def test_a_field_that_does_not_exist_is_noticed_wherever_it_is() -> None:
    for path in ("base/deployment.yaml", "components/monitoring/servicemonitor.yaml"):
        for place in places(OBJECTS[path]):
            if place[-1] == "requests":  # of any resource
                continue
            broken = inner = copy.deepcopy(OBJECTS[path])
            for step in place:
                inner = inner[step]  # type: ignore[index]
            inner["misspelt"] = "1"
            assert complaint(broken, VERSIONS[-1]) is not None, place


# -- copies -----------------------------------------------------------------------------


def test_no_copy_is_old() -> None:
    for path, content in generated().copies().items():
        assert path.read_text() == content, f"python deploy/generate.py brings {path} up to date"


def test_the_rules_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    rule = OBJECTS["components/monitoring/prometheusrule.yaml"]
    assert rule["spec"]["groups"] == rules["groups"]
    assert yaml.safe_load((CHART / "files" / "rules.yml").read_text())["groups"] == rules["groups"]


def test_the_schema_of_values_takes_every_setting_that_is_neither_placed_nor_secret() -> None:
    module = generated()
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = set(schema["properties"]["config"]["properties"])
    secret = {name for name in Settings.model_fields if f"{name}_file" in Settings.model_fields}
    assert secret >= {"tls_key_password", "rate_limit_redis"}
    assert known == set(Settings.model_fields) - secret - module.OF_THE_CHART
    for name in known:
        assert schema["properties"]["config"]["properties"][name]["description"]


# -- the drain --------------------------------------------------------------------------


@pytest.mark.parametrize("toml", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_there_is_time_to_drain(toml: Path) -> None:
    settings = settings_of(CONTAINER, toml).settings
    drain = settings.drain_delay + settings.drain_limit
    assert pod(DEPLOYMENT)["terminationGracePeriodSeconds"] >= drain + CLOSING
    assert "lifecycle" not in CONTAINER, "a preStop counts, too"


def test_settings_left_at_their_defaults_drain_in_time_as_well() -> None:
    defaults = Settings.model_fields
    drain = defaults["drain_delay"].default + defaults["drain_limit"].default
    assert pod(DEPLOYMENT)["terminationGracePeriodSeconds"] >= drain + CLOSING


@pytest.mark.parametrize("toml", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_who_looks_at_readiness_knows_before_the_port_is_closed(toml: Path) -> None:
    probe = CONTAINER["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert noticed < settings_of(CONTAINER, toml).settings.drain_delay


def test_a_rollout_takes_none_away_before_the_next_is_there() -> None:
    spec = DEPLOYMENT["spec"]
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] > 0
    keys = {one["topologyKey"] for one in pod(DEPLOYMENT)["topologySpreadConstraints"]}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


# -- names ------------------------------------------------------------------------------


def test_probes_and_scrapes_ask_for_what_the_admin_listener_has() -> None:
    app = admin_application(cast(Any, None))
    known = {route.resource.canonical for route in app.router.routes() if route.resource}
    asked = {CONTAINER[probe]["httpGet"]["path"] for probe in PROBES}
    for endpoint in OBJECTS["components/monitoring/servicemonitor.yaml"]["spec"]["endpoints"]:
        asked.add(endpoint["path"])
    assert asked == {"/livez", "/readyz", "/metrics"}
    assert asked <= known
    assert {CONTAINER[probe]["httpGet"]["port"] for probe in PROBES} == {"admin"}
    assert "/readyz" not in (
        CONTAINER[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")
    ), "an index that is not there would have it started again and again"


@pytest.mark.parametrize("toml", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_ports_are_those_of_the_settings(toml: Path) -> None:
    settings = settings_of(CONTAINER, toml).settings
    ports = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
    assert ports == {
        "http": settings.bind.port,
        "admin": settings.admin_bind.port,
    }
    assert OBJECTS["base/service.yaml"]["spec"]["ports"][0]["targetPort"] == "http"
    admin = OBJECTS["base/service-admin.yaml"]["spec"]["ports"][0]
    assert (admin["targetPort"], admin["port"]) == ("admin", ports["admin"])
    monitor = OBJECTS["components/monitoring/servicemonitor.yaml"]["spec"]
    assert monitor["endpoints"][0]["port"] == admin["name"]


def test_the_policy_lets_in_and_out_what_is_needed() -> None:
    spec = OBJECTS["base/networkpolicy.yaml"]["spec"]
    public, admin = spec["ingress"]
    assert [port["port"] for port in public["ports"]] == ["http"]
    assert [port["port"] for port in admin["ports"]] == ["admin"]
    assert admin["from"], "an empty list is everybody"
    mesh = spec["egress"][0]["ports"][0]
    conf = ScampConf({})
    assert (mesh["port"], mesh["endPort"]) == (conf.first_port, conf.last_port)
    opened = (KUBERNETES / "components" / "sidecar" / "kustomization.yaml").read_text()
    assert f"port: {Settings.model_fields['multicast_port'].default}\n" in opened


def test_selectors_find_the_pods_and_services() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    own = {"matchLabels": labels}
    assert DEPLOYMENT["spec"]["selector"] == own
    assert OBJECTS["base/poddisruptionbudget.yaml"]["spec"]["selector"] == own
    assert OBJECTS["base/networkpolicy.yaml"]["spec"]["podSelector"] == own
    for constraint in pod(DEPLOYMENT)["topologySpreadConstraints"]:
        assert constraint["labelSelector"] == own
    for name in ("service", "service-admin"):
        assert OBJECTS[f"base/{name}.yaml"]["spec"]["selector"] == labels
    monitor = OBJECTS["components/monitoring/servicemonitor.yaml"]["spec"]
    of_admin = OBJECTS["base/service-admin.yaml"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"] == of_admin
    assert monitor["selector"]["matchLabels"] != OBJECTS["base/service.yaml"]["metadata"]["labels"]
    # Rules and dashboard know targets by it.
    assert "scamp-gateway" in of_admin[monitor["jobLabel"]]


def test_variables_are_settings() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        for name in re.findall(rf"\b{ENV_PREFIX}\w+", path.read_text()):
            assert name == CONFIG_VARIABLE or name[len(ENV_PREFIX) :].lower() in (
                Settings.model_fields
            ), f"{path}: {name}"


def test_no_service_of_the_namespace_makes_variables_that_look_like_settings() -> None:
    for spec in (pod(DEPLOYMENT), pod(OBJECTS["cache-daemon/daemonset.yaml"])):
        assert spec["enableServiceLinks"] is False


def test_image_and_chart_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version
    images = {
        one
        for path in KUBERNETES.rglob("*.yaml")
        for one in re.findall(r"image: (\S+)", path.read_text())
    }
    assert images == {f"scamp-gateway:{version}"}
    production = yaml.safe_load(
        (KUBERNETES / "overlays" / "production" / "kustomization.yaml").read_text()
    )
    assert production["images"][0]["newTag"] == version


# -- what a pod may -----------------------------------------------------------------------


def test_it_runs_as_the_user_of_the_image() -> None:
    found = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    security = pod(DEPLOYMENT)["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(found[1]), int(found[2]))
    assert security["fsGroup"] == int(found[2])
    templates = (CHART / "templates" / "deployment.yaml").read_text()
    assert f"runAsUser: {found[1]}\n" in templates


def test_the_profile_restricted_takes_the_pod() -> None:
    spec = pod(DEPLOYMENT)
    sidecar = parse((KUBERNETES / "components/sidecar/deployment.patch.yaml").read_text())[0]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in (*spec["containers"], *pod(sidecar)["initContainers"]):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
    for volume in spec["volumes"]:
        assert {"configMap", "secret", "emptyDir"} & volume.keys()
        assert volume.get("emptyDir", {"medium": "Memory"})["medium"] == "Memory"
    assert spec["automountServiceAccountToken"] is False
    assert OBJECTS["base/serviceaccount.yaml"]["automountServiceAccountToken"] is False


def test_secrets_are_named_and_not_here() -> None:
    for path in (ROOT / "deploy").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"-----BEGIN" not in content, path
            assert not re.search(rb"^kind: Secret$|secretGenerator", content, re.MULTILINE), path
    secrets = [one["secret"] for one in pod(DEPLOYMENT)["volumes"] if "secret" in one]
    assert [one["secretName"] for one in secrets] == ["scamp-gateway-ticket-keys"]


@pytest.mark.parametrize("toml", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_every_file_of_the_settings_is_mounted(toml: Path) -> None:
    volumes = {one["name"] for one in pod(DEPLOYMENT)["volumes"]}
    mounts = {one["mountPath"]: one for one in CONTAINER["volumeMounts"]}
    assert {one["name"] for one in mounts.values()} == volumes
    settings = settings_of(CONTAINER, toml).settings
    files = [
        settings.discovery_cache,
        settings.authorized_services,
        settings.routes,
        *settings.ticket_keys,
    ]
    for file in files:
        assert file is not None
        assert str(file.parent) in mounts, file
    assert not any("subPath" in one for one in mounts.values()), "would never change"
    assert {place for place, one in mounts.items() if not one.get("readOnly")} == {
        "/tmp",
        next(one["value"] for one in CONTAINER["env"] if one["name"] == "RUNTIME_DIRECTORY"),
    }


def test_memory_is_what_the_capacity_page_reckons_with() -> None:
    page = (ROOT / "docs" / "capacity.md").read_text()
    found = re.search(r"^## A container with (\d+) MiB\n\n((?:    .*\n)+)", page, re.MULTILINE)
    assert found is not None
    told = tomllib.loads(re.sub(r"^ +", "", found[2], flags=re.MULTILINE))
    base = tomllib.loads((KUBERNETES / "base" / "gateway.toml").read_text())
    assert {name: base[name] for name in told} == told
    resources = CONTAINER["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == f"{found[1]}Mi"
    assert "cpu" not in resources["limits"]
    assert int(resources["requests"]["cpu"]) == base["workers"]
    flight, cpu = OBJECTS["components/autoscaling/horizontalpodautoscaler.yaml"]["spec"]["metrics"]
    assert int(flight["pods"]["target"]["averageValue"]) * 2 < base["max_in_flight"]
    assert cpu["containerResource"]["container"] == CONTAINER["name"], "not of its sidecars"


# -- it runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("toml", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_the_configuration_passes_the_check(toml: Path, tmp_path: Path) -> None:
    here, mesh = Pod(CONTAINER, tmp_path), Mesh()
    mesh.fill(here, configuration(toml))
    write_cache(here.mounts["discovery"] / "discovery", [mesh.record])
    command = [sys.executable, "-m", "gateway.cli", "check", *here.arguments[1:]]
    done = subprocess.run(
        command, env=here.environment, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def configuration(toml: Path) -> dict[str, str]:
    return {name: (toml.parent / name).read_text() for name in ("gateway.toml", "routes.toml")}


def ticket(private: bytes) -> str:
    return issue_ticket(
        keys.load_private_key(private),
        user_id=1001,
        client_id=42,
        privileges=(1,),
        start=int(time.time()),
        length=3600,
    )


def fetch(url: str, ticket: str | None = None) -> tuple[int, str]:
    parts = urlsplit(url)
    headers = {} if ticket is None else {"Authorization": f"Bearer {ticket}"}
    with closing(HTTPConnection(parts.netloc, timeout=10)) as connection:
        connection.request("GET", parts.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_it_starts_in_such_a_pod_and_takes_up_a_new_secret(tmp_path: Path) -> None:
    """The Deployment's own command line and environment, but for addresses and the drain."""
    here, mesh = Pod(CONTAINER, tmp_path), Mesh()
    mesh.fill(here, configuration(KUBERNETES / "base" / "gateway.toml"))
    write_cache(here.mounts["discovery"] / "discovery", [mesh.record])
    command = [
        *(sys.executable, "-m", "gateway.cli", *here.arguments),
        *("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--drain-delay", "0"),
        *("--auth-mode", "verify"),  # there is nobody who has the privileges
    ]
    with started(command, tmp_path / "log", here.environment) as process:
        found = re.search(r"ready: (\S+) admin (\S+)", process.said)
        assert found is not None
        public, admin = found[1].rstrip("/"), found[2].rstrip("/")
        for probe in PROBES:
            assert fetch(admin + CONTAINER[probe]["httpGet"]["path"])[0] == 200, probe
        _, metrics = fetch(f"{admin}/metrics")
        scaler = OBJECTS["components/autoscaling/horizontalpodautoscaler.yaml"]
        metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
        assert re.search(rf"^{metric} \d", metrics, re.MULTILINE)
        (rule,) = parse((KUBERNETES / "prometheus-adapter.yaml").read_text())[0]["rules"]["custom"]
        assert rule["name"]["as"] == metric
        assert rule["seriesQuery"].startswith(f"{metric}{{")

        private, _ = keys.generate("auth", now=datetime.now(UTC))
        old, new = ticket(mesh.private), ticket(private)
        assert (fetch(f"{public}/whoami", old)[0], fetch(f"{public}/whoami", new)[0]) == (200, 401)
        here.project("ticket-keys", {"ticket.pem": keys.public_key_pem(private)})
        until = time.monotonic() + 20
        while fetch(f"{public}/whoami", new)[0] != 200:
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        assert fetch(f"{public}/whoami", old)[0] == 401


# -- the page -----------------------------------------------------------------------------


def test_the_page_names_what_there_is() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for path in re.findall(r"\bdeploy/[\w./-]*\w", page):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`(overlays/[\w-]+|components/[\w-]+)`", page):
        assert (KUBERNETES / path).is_dir(), path
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for text in re.findall(r"`((?:[a-z]+[A-Z]?\w*\.)+[a-zA-Z_]+)(?:: [^`]*)?`", page):
        step, *rest = text.split(".")
        if step in values and rest != ["toml"]:
            known = values[step]
            for name in rest:
                settable = Settings.model_fields if step == "config" else known
                assert name in settable, text
                known = known.get(name, {})


def test_what_the_page_says_to_make_is_what_pods_mount() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    made: dict[str, set[str]] = {}
    for kind, name, options in re.findall(
        r"^\$ kubectl create (configmap|secret generic|secret tls) ([\w-]+) (.+)$",
        page,
        re.MULTILINE,
    ):
        files = {Path(one).name for one in re.findall(r"--from-file=(\S+)", options)}
        made[name] = {"tls.crt", "tls.key"} if kind == "secret tls" else files
    tls = parse((KUBERNETES / "components/tls/deployment.patch.yaml").read_text())[0]
    assert made.keys() == {
        one["secret"]["secretName"] if "secret" in one else one["configMap"]["name"]
        for one in (*pod(DEPLOYMENT)["volumes"], *pod(tls)["volumes"])
        if "secret" in one or one.get("configMap", {}).get("name") == "scamp-mesh"
    }
    (mesh,) = (one for one in pod(DEPLOYMENT)["volumes"] if one["name"] == "mesh")
    assert made["scamp-mesh"] == {one["key"] for one in mesh["configMap"]["items"]}
    base = tomllib.loads((KUBERNETES / "base" / "gateway.toml").read_text())
    assert made["scamp-gateway-ticket-keys"] == {Path(one).name for one in base["ticket_keys"]}
    named = {one["value"] for one in gateway_of(tls)["env"]}
    assert {Path(one).name for one in named} == made["scamp-gateway-tls"]
