"""The image as it is built and run: the Dockerfile's steps on a base of Debian's, then its files as
a container has them, on a read-only root, as its user, with no capability."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from demos import LAST_LINE
from packaging.utils import canonicalize_name

from contained import Container, container
from gateway.settings import Settings
from imaging import Image, built_image, named_base
from locks import locked
from scamp import keys

pytestmark = pytest.mark.timeout(300)  # the first of them builds it

USER = 10001
LARGEST = 100 << 20
"""Bytes of what comes on top of the base. It is some 85 MB."""

PUBLIC, ADMIN = Settings.model_fields["bind"].default, Settings.model_fields["admin_bind"].default
READY = "scamp-gateway ready: "


@pytest.fixture(scope="module")
def image(tool: Callable[[str], str]) -> Iterator[Image]:
    for name in ("mmdebstrap", "buildah", "unshare", "nsenter", "ip"):
        tool(name)
    if os.geteuid() != 0:
        pytest.skip("needs root")
    tried = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make namespaces")
    with built_image(tool, "REVISION=4f2a", "SOURCE_DATE_EPOCH=1700000000") as built:
        yield built


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo has its files, which belong to its user."""
    folder = tmp_path_factory.mktemp("mesh")
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture(scope="module")
def demo(image: Image, mesh: Path) -> Iterator[Container]:
    """The demo in a container, with a volume."""
    everywhere = "0.0.0.0"  # noqa: S104 - in a network of its own
    command = ("demo", "--host", everywhere, "--dir", "/tmp/demo", "--quiet-services")
    with container(image, *command, volumes={mesh: "/tmp/demo"}) as running:
        printed = running.read_until(LAST_LINE)
        assert f"http://127.0.0.1:{PUBLIC.port}/api/" in printed  # as it is published, to paste
        yield running


def status(running: Container, url: str, *options: str) -> tuple[int, str]:
    """What curl gets there, from beside the container."""
    shown = ("--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}")
    done = running.beside("curl", *shown, *options, url)
    assert done.returncode == 0, done.stderr
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


def healthy(running: Container) -> subprocess.CompletedProcess[str]:
    kind, *command = running.image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return running.execute(*command)


# -- it serves --------------------------------------------------------------------------


def test_it_serves_the_demo(demo: Container, tool: Callable[[str], str]) -> None:
    tool("curl")
    public, admin = (f"http://127.0.0.1:{one.port}" for one in (PUBLIC, ADMIN))
    code, body = status(demo, f"{public}/api/Product.Sku.ping")
    assert (code, json.loads(body)["pong"]) == (200, True)
    assert status(demo, f"{admin}/livez") == (200, "ok\n")
    assert status(demo, f"{admin}/readyz") == (200, "ready\n")
    header = demo.execute("cat", "/tmp/demo/alice.header").stdout.strip()
    assert status(demo, f"{public}/api/Product.Sku.list", "-H", header)[0] == 200
    assert status(demo, f"{public}/api/Product.Sku.list")[0] == 401
    assert status(demo, f"{public}/docs")[0] == 200  # its files are in the wheel


def test_its_health_check_knows_whether_it_lives(demo: Container, image: Image) -> None:
    done = healthy(demo)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    alone = ("-c", "print('up', flush=True); import time; time.sleep(60)")
    with container(image, *alone, entrypoint=["python"]) as nobody:
        nobody.read_until("up")
        done = healthy(nobody)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_it_is_nobody_and_changes_nothing(demo: Container) -> None:
    described = Path(f"/proc/{demo.pid}/status").read_text()
    facts = dict(re.findall(r"^(\w+):\t(.*)$", described, re.MULTILINE))
    assert facts["Uid"].split() == facts["Gid"].split() == [str(USER)] * 4
    assert {int(facts[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {0}
    assert facts["Groups"].strip() == ""
    for path in ("/new", "/opt/scamp-gateway/new", "/etc/scamp-gateway/new", "/run/scamp/new"):
        done = demo.execute("touch", path)
        assert "Read-only file system" in done.stderr, done
    mounted = {
        line.split()[1]: line.split()[3]
        for line in demo.execute("cat", "/proc/mounts").stdout.splitlines()
    }
    assert mounted["/"].startswith("ro,")


def test_the_allocator_is_in_place(demo: Container) -> None:
    assert "libjemalloc.so.2" in Path(f"/proc/{demo.pid}/maps").read_text()


def test_workers_serve_with_a_configuration_that_is_mounted_and_end_as_told(
    image: Image, demo: Container, mesh: Path, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    tool("curl")
    # Beside the demo, in its network, with its mesh: on other ports, which its health check finds.
    configuration = tmp_path / "gateway.toml"
    configuration.write_text(
        'bind = ":8081"\n'
        'admin_bind = "127.0.0.1:1"\n'  # the environment goes before it
        "workers = 2\n"
        "drain_delay = 0\n"
        'discovery_cache = "/run/scamp/discovery"\n'
        'authorized_services = "/run/scamp/authorized_services"\n'
        'ticket_keys = ["/run/scamp/ticket_verify_public_key.pem"]\n'
    )
    volumes = {configuration: "/etc/scamp-gateway/gateway.toml", mesh: "/run/scamp"}
    environ = {"SCAMP_GATEWAY_ADMIN_BIND": "0.0.0.0:9091"}
    started = partial(container, image, environ=environ, volumes=volumes, network=demo)
    with started() as running:
        assert ":9091" in running.read_until(READY)
        assert healthy(running).returncode == 0
        code, body = status(running, "http://127.0.0.1:8081/api/Product.Sku.ping")
        assert (code, json.loads(body)["pong"]) == (200, True)
        code, body = status(running, "http://127.0.0.1:9091/metrics")
        assert re.search(r"^scamp_gateway_workers(?:\{[^}]*\})? 2", body, re.MULTILINE), body
        assert running.terminate() == 0
    with started("check") as checked:
        assert "all good" in checked.read_until("all good"), checked.complaints()


def test_it_says_what_it_misses_without_a_configuration(image: Image) -> None:
    with container(image) as running:
        assert running.process.wait(30) == 2
        assert running.complaints().startswith("scamp-gateway: no discovery cache: ")


def test_scamp_keeps_the_discovery_cache_beside_the_gateway(
    image: Image, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Three of one pod: the daemon, a service, the gateway; they share a volume and a network."""
    tool("curl")
    shared, private = tmp_path / "shared", tmp_path / "private"
    for folder in (shared, private):
        folder.mkdir()
    key, certificate = keys.generate("trial", now=datetime.now(UTC))
    (private / "trial.key").write_bytes(key)
    (private / "trial.crt").write_bytes(certificate)
    (private / "public.pem").write_bytes(keys.public_key_pem(key))
    (private / "authorized").write_text(f"{keys.fingerprint(certificate)} Scamp\n")
    (private / "scamp.conf").write_text(
        "discovery.cache_path = /run/scamp/discovery\n"
        "discovery.address = if:lo\n"
        "service.address = 127.0.0.1\n"
        "bus.authorized_services = /tmp/private/authorized\n"
    )
    for path in (shared, *private.iterdir()):
        os.chown(path, USER, USER)
    started = partial(
        container,
        image,
        environ={"SCAMP": "/tmp/private/scamp.conf"},
        volumes={shared: "/run/scamp", private: "/tmp/private"},
    )
    scamp = partial(started, entrypoint=["scamp"])
    options = ("--ticket-key", "/tmp/private/public.pem", "--drain-delay", "0")
    with (
        scamp("cache") as daemon,
        scamp("serve", "--announce", "--key", "/tmp/private/trial.key", network=daemon) as service,
        started("run", *options, network=daemon) as running,
    ):
        assert "127.0.0.1" in service.read_until("serves at")
        running.read_until(READY)
        url = f"http://127.0.0.1:{PUBLIC.port}/api/Scamp.echo"
        wait_for(lambda: status(running, url, "--json", '{"a": 1}') == (200, '{"a": 1}'))
        assert running.terminate() == 0
        assert daemon.terminate() == 0
    assert (shared / "discovery").stat().st_uid == USER


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)  # between two looks


def test_the_end_is_prompt(image: Image) -> None:
    """Signals reach process 1, and it ends everything else."""
    with container(image, "demo", "--port", "0", "--admin-port", "0", "--quiet-services") as demo:
        demo.read_until(LAST_LINE)
        assert demo.terminate() == 0


# -- what is in it ----------------------------------------------------------------------


def test_it_has_exactly_what_is_locked(image: Image) -> None:
    listing = (
        "import importlib.metadata as m, json; "
        "print(json.dumps({one.name: one.version for one in m.distributions()}))"
    )
    with container(image, "-c", listing, entrypoint=["python"]) as running:
        there = json.loads(running.read_until("}"))
    python = {"python_version": named_base()[0], "python_full_version": f"{named_base()[0]}.0"}
    wanted = locked("gateway", python)
    found = {str(canonicalize_name(name)): version for name, version in there.items()}
    assert found.pop("scamp-gateway") == image.config["Labels"]["org.opencontainers.image.version"]
    assert found == wanted


def test_its_python_is_the_one_that_is_named(image: Image) -> None:
    assert (image.root / f"opt/scamp-gateway/lib/python{named_base()[0]}").is_dir()


def test_it_is_small_and_nothing_in_it_is_writable(image: Image) -> None:
    size = 0
    for path in sorted((image.root / "opt").rglob("*")):
        about = path.lstat()
        size += about.st_size if stat.S_ISREG(about.st_mode) else 0
        assert (about.st_uid, about.st_gid) == (0, 0), path
        if not stat.S_ISLNK(about.st_mode):
            assert not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID), path
            assert about.st_mode & stat.S_IROTH, path
    assert 20 << 20 < size < LARGEST
    assert [path.name for path in (image.root / "opt").iterdir()] == ["scamp-gateway"]
    assert not (image.root / "src").exists()
    run = (image.root / "run/scamp").stat()
    assert (run.st_uid, run.st_gid, run.st_mode & 0o777) == (USER, USER, 0o755)


def test_a_second_build_has_the_same_files(image: Image) -> None:
    """Nothing of the time or the order of things is in them, also not in what Python compiled."""
    again = image.again()
    for path in sorted((image.root / "opt").rglob("*")):
        other = again / path.relative_to(image.root)
        assert path.lstat().st_mode == other.lstat().st_mode, path
        if path.is_symlink():
            assert path.readlink() == other.readlink()
        elif path.is_file():
            assert path.read_bytes() == other.read_bytes(), path
    assert len(list((again / "opt").rglob("*"))) == len(list((image.root / "opt").rglob("*")))


def test_it_says_what_it_is(image: Image) -> None:
    labels = image.config["Labels"]
    named = {
        name.rpartition(".")[2]: is_ for name, is_ in labels.items() if "opencontainers" in name
    }
    assert named["title"] == "scamp-gateway"
    assert named["revision"] == "4f2a"
    assert set(image.config["ExposedPorts"]) == {f"{one.port}/tcp" for one in (PUBLIC, ADMIN)}
    assert image.config["User"] == f"{USER}:{USER}"
