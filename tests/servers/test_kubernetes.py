"""What kustomize and Helm make of deploy/, by Kubernetes' schemas and by the gateway itself."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from multicast import free_group, needs_multicast
from rendering import (
    Tool,
    assert_good,
    build,
    config_map,
    named,
    settled,
    template,
)

from benchmarks.processes import started
from manifests import (
    CHART,
    KUBERNETES,
    ROOT,
    Mesh,
    Object,
    Pod,
    gateway_of,
    only,
    pod,
)
from scamp.discovery.multicast import MulticastSender

BUILT: Final = [
    str(path.parent.relative_to(KUBERNETES))
    for path in sorted(KUBERNETES.rglob("kustomization.yaml"))
    if "kind: Kustomization" in path.read_text()
]
COMPONENTS: Final = sorted(path.name for path in (KUBERNETES / "components").iterdir())
BASE: Final = {
    *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"),
    "ServiceAccount",
}


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
