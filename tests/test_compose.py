"""deploy/compose says what the code means: names, ports, paths, times; and its commands work."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from demos import LAST_LINE
from monitoring import CONFIG, DASHBOARD, DEPLOY, RULES

from gateway.setting_types import Address
from gateway.settings import Settings
from gateway.sources import load
from stand import eventually

COMPOSE: Final = DEPLOY / "compose"
FILE: Final = COMPOSE / "compose.yaml"
IMAGE: Final = f"scamp-gateway:{version('scamp-gateway')}"
CLOSING: Final = 10.0
"""Seconds that docs/operations.md asks for besides drain delay and drain limit."""

CONTENT: Final = yaml.safe_load(FILE.read_text())
SERVICES: Final[dict[str, Any]] = CONTENT["services"]
OURS: Final = ("mesh", "gateway")


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """What is mounted, by where: the source, and whether it may only be read."""
    found = {}
    for one in SERVICES[service]["volumes"]:
        source, target, *options = one.split(":")
        found[target] = source, "ro" in options
    return found


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "pid", "network_mode", "ipc"}
    assert service["healthcheck"]["test"]
    assert seconds(service["stop_grace_period"]) > 10
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), "a version, no moving name"
    for source, _ in mounts(name).values():
        if source.startswith("."):
            assert (COMPOSE / source).is_file(), source
        else:
            assert source in CONTENT["volumes"], source
    assert all(readonly for source, readonly in mounts(name).values() if source.startswith("."))
    assert set(service["networks"]) <= CONTENT["networks"].keys()


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_our_image_under_its_user(name: str) -> None:
    assert SERVICES[name]["image"] == IMAGE
    assert SERVICES[name]["user"] == "10001:10001"
    dockerfile = (COMPOSE / SERVICES["mesh"]["build"]["context"] / "Dockerfile").read_text()
    assert "10001" in dockerfile
    options = CONTENT["volumes"]["discovery"]["driver_opts"]["o"]
    assert {"uid=10001", "gid=10001", "mode=0700"} <= set(options.split(","))


def test_an_image_is_built_by_one_service_and_pulled_by_none_that_is_ours() -> None:
    """Two that build the same one at once fail ("already exists") in a store of containerd's."""
    assert [name for name in OURS if "build" in SERVICES[name]] == ["mesh"]
    policies = {name: SERVICES[name]["pull_policy"] for name in OURS}
    assert policies == {"mesh": "build", "gateway": "never"}
    assert "mesh" in SERVICES["gateway"]["depends_on"], "it is there when the image is"


def test_gateway_has_time_to_drain() -> None:
    settings = load({}, config=COMPOSE / "gateway.toml").settings
    grace = seconds(SERVICES["gateway"]["stop_grace_period"])
    assert grace >= settings.drain_delay + settings.drain_limit + CLOSING


def test_ports_are_those_that_are_listened_on_and_only_the_public_one_is_for_all() -> None:
    settings = load({}, config=COMPOSE / "gateway.toml").settings
    public, admin = settings.bind.port, settings.admin_bind.port
    assert settings.bind.host is None
    assert settings.admin_bind == Address("0.0.0.0", 9090)  # noqa: S104 - in a container
    assert SERVICES["gateway"]["ports"] == [f"{public}:{public}", f"127.0.0.1:{admin}:{admin}"]
    assert f":{admin}/readyz" in SERVICES["gateway"]["healthcheck"]["test"][-1]
    for name in SERVICES.keys() - {"gateway"}:
        assert all(one.startswith("127.0.0.1:") for one in SERVICES[name].get("ports", ()))
    hosts = [one.rpartition(":")[0] for name in SERVICES for one in SERVICES[name].get("ports", ())]
    assert len(set(hosts)) == len(hosts)


def test_services_are_in_a_network_that_leads_nowhere_else() -> None:
    assert CONTENT["networks"]["mesh"]["internal"] is True
    assert SERVICES["mesh"]["networks"] == ["mesh"]
    assert "mesh" in SERVICES["gateway"]["networks"]
    command = SERVICES["mesh"]["command"]
    assert command[command.index("--mesh") + 1] == "mesh", "the name that leads there"


def test_prometheus_reads_the_shipped_rules_and_scrapes_the_gateway() -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    shipped = yaml.safe_load(CONFIG.read_text())
    mounted = mounts("prometheus")
    assert (
        f"--config.file={_target('prometheus', COMPOSE / 'prometheus.yml')}"
        in (SERVICES["prometheus"]["command"])
    )
    assert [_source("prometheus", one) for one in config["rule_files"]] == [RULES]
    [job], [usual] = config["scrape_configs"], shipped["scrape_configs"]
    assert job["job_name"] == usual["job_name"] == "scamp-gateway"
    assert job["static_configs"] == [{"targets": ["gateway:9090"]}]
    assert set(SERVICES["gateway"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert any(
        f"--storage.tsdb.path={where}" in SERVICES["prometheus"]["command"] for where in mounted
    )


def test_grafana_is_provisioned_with_the_shipped_dashboard() -> None:
    grafana = SERVICES["grafana"]
    folder = Path(_target("grafana", DASHBOARD)).parent
    [provider] = yaml.safe_load((COMPOSE / "grafana/dashboards.yaml").read_text())["providers"]
    assert provider["options"]["path"] == str(folder)
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert _source("grafana", home) == DASHBOARD
    [source] = yaml.safe_load((COMPOSE / "grafana/datasource.yaml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    assert source["url"] == "http://prometheus:9090"
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def _target(service: str, path: Path) -> str:
    [found] = [
        target
        for target, (source, _) in mounts(service).items()
        if (COMPOSE / source).resolve() == path.resolve()
    ]
    return found


def _source(service: str, target: str) -> Path:
    return (COMPOSE / mounts(service)[target][0]).resolve()


def compose() -> list[str] | None:
    """Docker Compose from its second version on, as a part of docker or by itself."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is not None:
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
            if done.returncode == 0 and not done.stdout.startswith("1."):
                return command
    return None


def test_docker_compose_takes_it() -> None:
    command = compose()
    if command is None:
        pytest.skip("needs docker compose")
    done = subprocess.run(
        [*command, "-f", str(FILE), "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    understood = json.loads(done.stdout)["services"]
    assert understood.keys() == SERVICES.keys()
    for name, service in SERVICES.items():
        assert understood[name]["image"] == service["image"]
        assert understood[name]["read_only"] is True
        assert len(understood[name]["volumes"]) == len(service["volumes"])


# -- the commands, without containers ---------------------------------------------------


@asynccontextmanager
async def process(*command: str, until: str) -> AsyncIterator[str]:
    """What a command of ours has printed up to the line with `until`; ended by SIGTERM."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.cli", *command, stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        printed = ""
        while until not in printed:
            line = (await started.stdout.readline()).decode()
            assert line, printed
            printed += line
        yield printed
    finally:
        started.terminate()
        await started.communicate()
        assert started.returncode == 0


async def check(service: str, *, replacing: dict[str, str]) -> int:
    """The exit status of a health check."""
    kind, program, *arguments = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    for old, new in replacing.items():
        arguments = [one.replace(old, new) for one in arguments]
    done = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    return await done.wait()


@pytest.mark.one_loop
async def test_mesh_and_gateway_find_each_other(tmp_path: Path) -> None:
    """With a folder in place of the volume, and this host in place of the other container."""
    folder = tmp_path / "scamp"
    replacing = {"/run/scamp": str(folder)}
    assert await check("mesh", replacing=replacing) != 0
    command = [
        {"mesh": "localhost", "/run/scamp": str(folder)}.get(one, one)
        for one in SERVICES["mesh"]["command"]
    ]
    assert set(mounts("mesh")) == set(replacing) < set(mounts("gateway"))
    settings = tmp_path / "gateway.toml"
    settings.write_text((COMPOSE / "gateway.toml").read_text().replace("/run/scamp", str(folder)))
    assert _target("gateway", COMPOSE / "gateway.toml") in SERVICES["gateway"]["command"]
    start = [
        *("run", "--config", str(settings)),
        *("--bind", "127.0.0.1:0"),
        *("--admin-bind", "127.0.0.1:0"),
    ]
    start += ["--drain-delay", "0", "--log-level", "warning"]
    async with process(*command, until=LAST_LINE) as printed:
        assert " at localhost\n" in printed
        assert await check("mesh", replacing=replacing) == 0
        async with (
            process(*start, until="scamp-gateway ready: ") as line,
            aiohttp.ClientSession() as http,
        ):
            public, admin = re.findall(r"http://\S+", line)
            await _answers(http, f"{admin}/readyz")
            assert await check("gateway", replacing={"http://127.0.0.1:9090": admin}) == 0
            async with http.get(f"{public}/api/Product.Sku.ping") as answer:
                assert (await answer.json())["pong"] is True
            ticket = (folder / "alice.ticket").read_text()
            headers = {"Authorization": f"Bearer {ticket}"}
            async with http.get(f"{public}/v1/skus/CHAIR-1", headers=headers) as answer:
                assert answer.status == 200
        assert await check("gateway", replacing={"http://127.0.0.1:9090": admin}) != 0
    assert "localhost" in (folder / "discovery").read_text()


async def _answers(http: aiohttp.ClientSession, url: str) -> None:
    async def ready() -> bool:
        async with http.get(url) as answer:
            return answer.status == 200

    await eventually(ready)


def test_fields_of_the_configuration_are_settings() -> None:
    given = tomllib.loads((COMPOSE / "gateway.toml").read_text())
    assert given.keys() <= Settings.model_fields.keys()
    assert given["discovery_cache"] == "/run/scamp/discovery"
