"""What Helm makes of the chart, by Kubernetes' schemas and by the settings that arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from rendering import (
    CLOSING,
    VALUES,
    Tool,
    assert_good,
    names,
    run,
    settled,
    template,
)

from manifests import (
    CHART,
    Object,
    gateway_of,
    only,
    parse,
    pod,
    texts,
)


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
