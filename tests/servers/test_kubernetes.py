"""What kustomize and Helm make of deploy/, by Kubernetes' schemas and by the gateway itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from multicast import free_group, needs_multicast

from benchmarks.processes import started
from gateway.settings import ENV_PREFIX, Settings
from manifests import (
    CHART,
    KUBERNETES,
    ROOT,
    VERSIONS,
    Mesh,
    Object,
    Pod,
    complaint,
    gateway_of,
    only,
    parse,
    pod,
    settings_of,
    texts,
)
from scamp.discovery.multicast import MulticastSender

Tool = Callable[[str], str]

BUILT: Final = [
    str(path.parent.relative_to(KUBERNETES))
    for path in sorted(KUBERNETES.rglob("kustomization.yaml"))
    if "kind: Kustomization" in path.read_text()
]
COMPONENTS: Final = sorted(path.name for path in (KUBERNETES / "components").iterdir())
VALUES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
BASE: Final = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"),
    "ServiceAccount",
}
CLOSING: Final = 10.0


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


# -- kustomize --------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", BUILT)
def test_kustomize_builds_what_kubernetes_takes(overlay: str, tool: Tool) -> None:
    objects = build(tool, KUBERNETES / overlay)
    assert_good(objects)
    if overlay != "cache-daemon":
        assert {one["kind"] for one in objects} >= BASE


def combined(folder: Path, *components: str) -> Path:
    """A kustomization of all of them. It wants relative paths."""
    above = "/".join([".."] * (len(folder.parts) - 1)) + str(KUBERNETES)
    lines = [f"resources: [{above}/base]", "components:"]
    lines += [f"  - {above}/components/{name}" for name in components]
    (folder / "kustomization.yaml").write_text("\n".join(lines))
    return folder


SOURCES: Final = ("claim", "host-cache", "sidecar")


@pytest.mark.parametrize("source", SOURCES)
def test_components_combine(source: str, tool: Tool, tmp_path: Path) -> None:
    others = [name for name in COMPONENTS if name not in SOURCES]
    assert others == ["autoscaling", "monitoring", "tls"]
    forth = build(tool, combined(tmp_path, source, *others))
    assert_good(forth)
    back = build(tool, combined(tmp_path, *reversed(others), source))
    assert {one["kind"] for one in back} == {one["kind"] for one in forth}
    assert {volume["name"] for volume in pod(only(back, "Deployment"))["volumes"]} == {
        volume["name"] for volume in pod(only(forth, "Deployment"))["volumes"]
    }


def test_a_claim_is_the_same_by_both(tool: Tool, tmp_path: Path) -> None:
    options = ("--set", "discovery.source=claim,discovery.claim=scamp-discovery")
    by_kustomize = build(tool, combined(tmp_path, "claim"))
    assert named(template(tool, *options)) == named(by_kustomize)


def test_a_change_of_the_settings_is_a_new_pod(tool: Tool, tmp_path: Path) -> None:
    folder = combined(tmp_path, "sidecar")
    before = only(build(tool, folder), "Deployment")
    with (folder / "kustomization.yaml").open("a") as file:
        file.write(
            "\nconfigMapGenerator:\n"
            "  - {name: scamp-gateway-config, behavior: merge, literals: [routes.toml=]}\n"
        )
    assert (
        only(build(tool, folder), "Deployment")["spec"]["template"] != (before["spec"]["template"])
    )


def test_production_is_whole(tool: Tool) -> None:
    objects = build(tool, KUBERNETES / "overlays" / "production")
    assert {one["metadata"].get("namespace") for one in objects} == {"scamp-gateway"}
    assert {one["kind"] for one in objects} == BASE | {
        *("HorizontalPodAutoscaler", "PrometheusRule", "ServiceMonitor"),
    }
    public = only(objects, "NetworkPolicy")["spec"]["ingress"][0]
    assert public["from"], "trusted_proxies believes everybody who gets in"


# -- Helm -------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path and path.stem)
def test_the_chart_is_good(values: Path | None, tool: Tool, tmp_path: Path) -> None:
    done = run(tool("helm"), "lint", "--strict", CHART, *(("--values", values) if values else ()))
    assert done.returncode == 0, done.stdout + done.stderr
    objects = template(tool, values=values)
    assert_good(objects)
    spec, found = settled(objects, tmp_path)
    drain = found.drain_delay + found.drain_limit
    assert spec["terminationGracePeriodSeconds"] >= drain + CLOSING
    mounted = {one["mountPath"] for one in gateway_of(only(objects, "Deployment"))["volumeMounts"]}
    for key in found.ticket_keys:
        assert str(key.parent) in mounted


@pytest.mark.parametrize(
    ("values", "overlay"),
    [
        (None, "sidecar"),
        ("host-cache-values.yaml", "host-cache"),
        ("production-values.yaml", "production"),
    ],
)
def test_the_chart_makes_what_kustomize_makes(
    values: str | None, overlay: str, tool: Tool, tmp_path: Path
) -> None:
    by_helm = template(tool, values=CHART / "ci" / values if values else None)
    by_kustomize = build(tool, KUBERNETES / "overlays" / overlay)
    assert named(by_helm) == named(by_kustomize)
    assert settled(by_helm, tmp_path)[1] == settled(by_kustomize, tmp_path)[1]


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


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("replicaCout=3", "replicaCout"),
        ("image.tags=1", "tags"),
        ("config.drain_dely=3", "drain_dely"),
        ("config.bind=:80", "bind"),
        ("config.rate_limit_redis=redis://u:p@host", "rate_limit_redis"),
        ("config.max_in_flight=many", "max_in_flight"),
        ("config.drain_limit=null", "drain_limit"),
        ("discovery.source=dns", "source"),
        ("networkPolicy.adminFrom=null", "adminFrom"),
        ("discovery.source=claim", "discovery.claim"),
        ("discovery.source=none", "config.discovery_source"),
        ("config.discovery_source=multicast", "discovery.source"),
        ("nameOverride=1e5", "nameOverride"),
        ("podSecurityContext.runAsUser=0", "runAsUser"),
        ("readinessProbe=null", "readinessProbe"),
        ("ingress.enabled=true", "ingress.hosts"),
        ("ticketKeys.secret=", "ticketKeys.secret"),
        ("networkPolicy.meshPorts.last=80", "meshPorts"),
        ("podDisruptionBudget.maxUnavailable=0%", "maxUnavailable"),
        ("autoscaling.enabled=true,autoscaling.maxReplicas=1", "minReplicas"),
        ("autoscaling.enabled=true,resources.requests.cpu=null", "resources.requests.cpu"),
        ("service.externalTrafficPolicy=Local", "externalTrafficPolicy"),
        ("service.type=NodePort,service.loadBalancerClass=x", "loadBalancerClass"),
        # What would be there twice.
        ("podAnnotations.checksum/config=x", "checksum/config"),
        (r"podLabels.app\.kubernetes\.io/name=x", "app.kubernetes.io/name"),
        (r"monitoring.serviceMonitor.labels.helm\.sh/chart=x", "helm.sh/chart"),
        ("env[0].name=SCAMP_GATEWAY_ADMIN_BIND", "/env/0/name"),
        ("extraVolumes[0].name=tmp", "/extraVolumes/0/name"),
        (
            "extraVolumeMounts[0].name=x,extraVolumeMounts[0].mountPath=/tmp",
            "/extraVolumeMounts/0/mountPath",
        ),
    ],
)
def test_values_that_mean_nothing_are_refused(given: str, said: str, tool: Tool) -> None:
    done = run(tool("helm"), "template", "scamp-gateway", CHART, "--set", given)
    assert done.returncode != 0
    assert said in done.stderr


def test_what_is_refused_as_taken_is_what_the_chart_has(tool: Tool) -> None:
    """Volumes, mounts, variables and labels: as many as it can have, by what it makes."""
    objects = template(tool, "--set", "tls.enabled=true,monitoring.serviceMonitor.enabled=true")
    values = json.loads((CHART / "values.schema.json").read_text())["properties"]

    def taken(schema: Any, *path: str) -> set[str]:
        for step in path:
            schema = schema["items"]["properties"][step]
        return set(schema["not"]["enum"])

    deployment = only(objects, "Deployment")
    container, metadata = gateway_of(deployment), deployment["spec"]["template"]["metadata"]
    volumes = {one["name"] for one in pod(deployment)["volumes"]}
    assert taken(values["extraVolumes"], "name") == volumes
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert taken(values["extraVolumeMounts"], "mountPath") == mounts
    assert taken(values["podLabels"]["propertyNames"]) == metadata["labels"].keys()
    assert taken(values["podAnnotations"]["propertyNames"]) == metadata["annotations"].keys()
    labels = only(objects, "ServiceMonitor")["metadata"]["labels"].keys()
    for kind in ("serviceMonitor", "prometheusRule"):
        of_kind = values["monitoring"]["properties"][kind]["properties"]["labels"]
        assert taken(of_kind["propertyNames"]) == labels
    security = pod(deployment)["securityContext"].keys()
    assert taken(values["podSecurityContext"]["propertyNames"]) == security
    variables = taken(values["env"], "name")
    assert variables > {one["name"] for one in container["env"]}
    assert {one.removeprefix(ENV_PREFIX).lower() for one in variables} == {
        *("config", "runtime_directory", "drain_delay", "drain_limit"),
        *(name for name in Settings.model_fields if name not in config_values(values)),
    } - {name for name in Settings.model_fields if f"{name}_file" in Settings.model_fields}


def config_values(values: Any) -> set[str]:
    return set(values["config"]["properties"])


WORDS: Final = ("on", "y", "null", "0777", "1e5", "0x10", "12", "a.b-c")
"""Names that Kubernetes takes, and YAML takes for something else."""

TEXT: Final = st.characters(
    max_codepoint=0xFFFF, exclude_categories=["Cc", "Cf", "Cn", "Cs"], include_characters="\n\t\0"
)
"""Helm refuses the others, for YAML does."""

SETTINGS: Final = st.fixed_dictionaries(
    {},
    optional={
        "compress_replies": st.booleans(),
        "cors_origins": st.sampled_from([[], ["*"], ["https://a.example", "http://b.example:81"]]),
        "drain_delay": st.floats(0, 1e4),
        "drain_limit": st.integers(0, 10_000),
        "error_status": st.dictionaries(
            st.from_regex(r"[a-z_]{1,9}\*?", fullmatch=True), st.just(409)
        ),
        "log_level": st.sampled_from(["debug", "warning"]),
        "max_body": st.integers(0, 1 << 40),
        "media_types": st.dictionaries(st.just("text/x-on"), st.sampled_from(WORDS)),
        "openapi_title": st.text(TEXT, min_size=1),
        "request_timeout": st.floats(0.5, 3600),
        "server_timing": st.booleans(),
    },
)


@st.composite
def some_values(draw: st.DrawFn) -> Object:
    word, bit = st.sampled_from(WORDS), st.booleans()
    source = draw(st.sampled_from(["sidecar", "hostPath", "claim", "none"]))
    config = draw(SETTINGS)
    if source == "none":
        config["discovery_source"] = "multicast"
    labels = st.dictionaries(word, word, max_size=2)
    return {
        "config": config,
        "routes": draw(st.sampled_from(["", "# none", "\n\n# {{ }}: on\n"])),
        "image": {"tag": draw(st.sampled_from(["", "1e5", "0777"])), "pullSecrets": [draw(word)]},
        "mesh": {"configMap": draw(word)},
        "ticketKeys": {"secret": draw(word)},
        "tls": {"enabled": draw(bit), "secret": draw(word)},
        "discovery": {"source": source, "claim": draw(word), "hostPath": "/a: b #c"},
        "service": {
            "type": "LoadBalancer",
            "port": draw(st.none() | st.integers(1, 65535)),
            "annotations": draw(labels),
            "externalTrafficPolicy": draw(st.sampled_from(["", "Local"])),
            "loadBalancerClass": draw(st.sampled_from(["", "on"])),
            "loadBalancerSourceRanges": draw(st.sampled_from([[], ["192.0.2.0/24"]])),
        },
        "ingress": {
            "enabled": draw(bit),
            "hosts": draw(st.lists(word, min_size=1, max_size=2)),
            "className": draw(st.just("") | word),
            "tlsSecret": draw(st.just("") | word),
            "annotations": draw(labels),
        },
        "podDisruptionBudget": {
            "enabled": draw(bit),
            "maxUnavailable": draw(st.just("5%") | st.just(2)),
        },
        "networkPolicy": {"enabled": draw(bit)},
        "autoscaling": {
            "enabled": draw(bit),
            "requestsInFlight": draw(st.none() | st.integers(1, 10_000_000)),
        },
        "monitoring": {
            "serviceMonitor": {"enabled": draw(bit), "labels": draw(labels)},
            "prometheusRule": {"enabled": draw(bit), "labels": draw(labels)},
        },
        "podLabels": draw(labels),
        "podAnnotations": draw(labels),
        "priorityClassName": draw(st.just("") | word),
        "nameOverride": draw(st.sampled_from(["", "on", "y", "null", "a1"])),
    }


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
@given(values=some_values())
def test_whatever_the_schema_takes_is_good(
    values: Object, tool: Tool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("values")
    (folder / "values.json").write_text(json.dumps(values))
    objects = template(tool, values=folder / "values.json")
    assert_good(objects)
    assert not [one for one in texts(objects) if "<no value>" in one]
    spec, found = settled(objects, folder)
    assert spec["terminationGracePeriodSeconds"] >= found.drain_delay + found.drain_limit + CLOSING
    known = found.model_dump(mode="json")
    assert {name: known[name] for name in values["config"]} == values["config"]
    assert tomllib.loads(config_map(objects)["routes.toml"]) == {}
    every = set(texts(objects))
    assert {values["mesh"]["configMap"], values["ticketKeys"]["secret"]} <= every
    assert {str(one["name"]) for one in spec["imagePullSecrets"]} <= every


def test_who_checks_no_ticket_needs_no_keys(tool: Tool) -> None:
    options = ("--set", "ticketKeys.secret=,config.ticket_keys=null,config.auth_mode=forward")
    objects = template(tool, *options)
    assert_good(objects)
    volumes = {one["name"] for one in pod(only(objects, "Deployment"))["volumes"]}
    mounts = {one["name"] for one in gateway_of(only(objects, "Deployment"))["volumeMounts"]}
    assert "ticket-keys" not in volumes | mounts
    assert volumes == mounts


def test_a_digest_counts_more_than_a_tag(tool: Tool) -> None:
    digest = f"sha256:{'0' * 64}"
    objects = template(tool, "--set", f"image.digest={digest},image.tag=1.0.0")
    spec = pod(only(objects, "Deployment"))
    images = {one["image"] for one in (*spec["containers"], *spec["initContainers"])}
    assert images == {f"scamp-gateway@{digest}"}


@pytest.mark.parametrize("values", [None, *VALUES], ids=lambda path: path and path.stem)
def test_notes_name_what_has_to_be_there(values: Path | None, tool: Tool) -> None:
    given = () if values is None else ("--values", values)
    nowhere = ("--kubeconfig", "/dev/null", "--dry-run=client")
    done = run(tool("helm"), "install", "scamp-gateway", CHART, *given, *nowhere)
    assert done.returncode == 0, done.stderr
    said = done.stdout.partition("NOTES:")[2]
    for volume in pod(only(template(tool, values=values), "Deployment"))["volumes"]:
        for kind, name in (("secret", "secretName"), ("persistentVolumeClaim", "claimName")):
            if kind in volume and volume["name"] != "redis":
                assert f" {volume[kind][name]} " in said
        if volume["name"] == "mesh":
            assert f"ConfigMap {volume['configMap']['name']} " in said
    assert "multicast" in said or values is not None


def test_releases_may_be_called_like_numbers(tool: Tool) -> None:
    helm = tool("helm")
    objects = parse(run(helm, "template", "1e5", CHART, "--set", "nameOverride=on").stdout)
    assert_good(objects)
    assert set(names(objects)) == {"on", "on-admin", "on-config"}
    done = run(helm, "template", "1e5", CHART)
    assert "nameOverride" in done.stderr, "no name of a Service"


def test_what_values_say_arrives_in_the_settings(tool: Tool, tmp_path: Path) -> None:
    objects = template(tool, values=CHART / "ci" / "everything-values.yaml")
    _, found = settled(objects, tmp_path)
    assert found.openapi_title == 'What "we" sell, <cheap> & \\ good'
    assert found.error_status == {"out_of_stock": 409, "quota_*": 429}
    assert found.media_types == {"text/csv": "csv"}
    assert found.drain_delay == 20.5
    assert found.max_mapped_body == 104857600
    every = set(texts(objects))
    for value in ("registry.example/mesh/gateway:0.1.0-1", "tickets", "certificate", "discovery"):
        assert value in every
    ingress = only(objects, "Ingress")
    assert list(ingress["metadata"]["annotations"].values()) == ["90"]
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert ingress["spec"]["tls"] == [
        {"secretName": "names", "hosts": ["api.example", "www.example"]}
    ]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["api.example", "www.example"]
    spec = pod(only(objects, "Deployment"))
    assert spec["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    probe = gateway_of(only(objects, "Deployment"))["readinessProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (3, 4)
    public = only(objects, "Service", "mesh-gateway")["spec"]
    assert (public["externalTrafficPolicy"], public["type"]) == ("Local", "LoadBalancer")
    assert public["loadBalancerClass"] == "example.com/internal"
    assert public["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
    assert {one[:12] for one in names(objects)} == {"mesh-gateway"}


def test_announcements_of_another_group_are_heard_and_let_in(tool: Tool) -> None:
    objects = template(
        tool, "--set", "config.multicast_port=5556,config.multicast_address=239.1.1.1"
    )
    assert_good(objects)
    (sidecar,) = pod(only(objects, "Deployment"))["initContainers"]
    assert sidecar["args"][-2:] == ["--group=239.1.1.1", "--port=5556"]
    assert udp(objects) == [5556]
    options = ("--set", "discovery.source=none,config.discovery_source=multicast")
    objects = template(tool, *options)
    assert_good(objects)
    assert udp(objects) == [5555]
    assert "initContainers" not in pod(only(objects, "Deployment"))
    assert udp(template(tool, values=CHART / "ci" / "host-cache-values.yaml")) == []


def udp(objects: list[Object]) -> list[int]:
    rules = only(objects, "NetworkPolicy")["spec"]["ingress"]
    ports = [port for rule in rules for port in rule["ports"]]
    return [port["port"] for port in ports if port["protocol"] == "UDP"]


def names(objects: list[Object]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


def test_two_releases_do_not_take_each_others_pods(tool: Tool) -> None:
    helm = tool("helm")
    one, other = (parse(run(helm, "template", name, CHART).stdout) for name in ("one", "other"))
    assert not set(names(one)) & set(names(other))
    labels = only(one, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selector = only(other, "Deployment")["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= labels.items()


def test_a_change_of_values_is_a_new_pod(tool: Tool) -> None:
    def made(*options: str) -> Object:
        spec: Object = only(template(tool, *options), "Deployment")["spec"]["template"]
        return spec

    assert made() == made("--set", "replicaCount=3")
    assert made() != made("--set", "config.retries=1")
    assert made() != made("--set", "routes=# none")


# -- the gateway itself -------------------------------------------------------------------


def test_the_gateway_takes_what_is_rendered_for_production(tool: Tool, tmp_path: Path) -> None:
    """With both, by ``scamp-gateway check`` in such a pod; there is no cache, which it says."""
    makers = {
        "kustomize": build(tool, KUBERNETES / "overlays" / "production"),
        "helm": template(tool, values=CHART / "ci" / "production-values.yaml"),
    }
    for maker, objects in makers.items():
        here = Pod(gateway_of(only(objects, "Deployment")), tmp_path / maker)
        Mesh().fill(here, config_map(objects))
        command = [sys.executable, "-m", "gateway.cli", "check", *here.arguments[1:]]
        done = subprocess.run(
            command, env=here.environment, capture_output=True, text=True, cwd=ROOT, check=False
        )
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
        assert len(failed) == 1, done.stdout + done.stderr
        assert failed[0].startswith("FAIL  discovery cache: ")
        assert "ok    TLS: " in done.stdout
        assert "routes.toml: 5 routes" in done.stdout


@contextmanager
def beside(tool: Tool, container: Object, folder: Path, *options: str) -> Iterator[Pod]:
    """A cache with its own command line, on the loopback interface."""
    here = Pod(container, folder)
    arguments = [one for one in here.arguments if not one.startswith("--interface=")]
    command = [tool(container["command"][0]), *arguments, "--interface=if:lo", *options]
    with (folder / "cache.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield here
    finally:
        process.terminate()
        assert process.wait(20) == 0, (folder / "cache.log").read_text()


@needs_multicast
def test_a_pod_is_ready_when_its_sidecar_has_heard_a_service(tool: Tool, tmp_path: Path) -> None:
    group, mesh = free_group(), Mesh()
    objects = build(tool, KUBERNETES / "overlays" / "sidecar")
    spec = pod(only(objects, "Deployment"))
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    here = Pod(gateway_of(only(objects, "Deployment")), tmp_path)
    mesh.fill(here, config_map(objects))
    heard = (f"--group={group.address}", f"--port={group.port}")
    command = [
        *(sys.executable, "-m", "gateway.cli", *here.arguments),
        *("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0", "--drain-delay", "0"),
    ]
    with (
        beside(tool, sidecar, tmp_path, *heard),
        started(command, tmp_path / "gateway.log", here.environment) as process,
    ):
        admin = process.said.split()[-1]
        assert ready(admin) == 503
        sender = MulticastSender(group)
        until = time.monotonic() + 20
        try:
            while ready(admin) != 200:
                assert time.monotonic() < until, (tmp_path / "cache.log").read_text()
                sender.send(mesh.record)
                time.sleep(0.05)
        finally:
            sender.close()


def ready(admin: str) -> int:
    with closing(HTTPConnection(urlsplit(admin).netloc, timeout=10)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status


@needs_multicast
def test_the_daemon_writes_what_others_may_read(tool: Tool, tmp_path: Path) -> None:
    group, mesh = free_group(), Mesh()
    spec = pod(only(build(tool, KUBERNETES / "cache-daemon"), "DaemonSet"))
    gateway = pod(only(build(tool, KUBERNETES / "overlays" / "host-cache"), "Deployment"))
    paths = {
        volume["hostPath"]["path"]
        for one in (spec, gateway)
        for volume in one["volumes"]
        if volume["name"] == "discovery"
    }
    assert len(paths) == 1, "one writes where the other does not look"
    heard = (f"--group={group.address}", f"--port={group.port}")
    with beside(tool, spec["containers"][0], tmp_path, *heard) as here:
        file = here.mounts["discovery"] / "discovery"
        sender = MulticastSender(group)
        until = time.monotonic() + 20
        try:
            while not file.exists():
                assert time.monotonic() < until, (tmp_path / "cache.log").read_text()
                sender.send(mesh.record)
                time.sleep(0.05)
        finally:
            sender.close()
        assert file.stat().st_mode & 0o004
