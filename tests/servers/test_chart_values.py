"""Values that the chart refuses, and any others, which make good objects."""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rendering import (
    CLOSING,
    Tool,
    assert_good,
    config_map,
    run,
    settled,
    template,
)

from gateway.settings import ENV_PREFIX, Settings
from manifests import (
    CHART,
    Object,
    gateway_of,
    only,
    pod,
    texts,
)


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
