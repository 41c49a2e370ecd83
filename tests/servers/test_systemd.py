"""The units of deploy/systemd, looked at by systemd's own tools, and started as systemd would."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from scamp.testing import make_identity

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
UNITS: Final = sorted(
    path for path in (DEPLOY / "systemd").iterdir() if path.suffix in (".service", ".socket")
)
SERVICES: Final = [path for path in UNITS if path.suffix == ".service"]
OPT: Final = "/opt/scamp-gateway/bin"
HERE: Final = str(Path(sys.executable).parent)
PATIENCE: Final = 30.0

EXPOSURE: Final = 14
"""Tenths of systemd's measure from 0 (safe) to 100."""

OPEN: Final = {
    "RootDirectoryOrRootImage": "the package is in the machine's own tree",
    "RestrictAddressFamilies_AF_NETLINK": "names of interfaces, for multicast",
    "RestrictAddressFamilies_AF_UNIX": "the manager is told; takeover; Redis",
    "RestrictAddressFamilies_AF_INET_INET6": "it is a network service",
    "PrivateNetwork": "likewise",
    "ProcSubset": "metrics of the process are from /proc/stat",
    "DeviceAllow": "what ProtectClock= adds to read the clock",
    "IPAddressDeny": "only its operator knows the networks; it is there to be switched on",
    "NotifyAccess": "a process that takes over speaks for the service",
    "UMask": "a group reads the access log, everybody the discovery cache",
}
"""What systemd would close, too, and why it is not."""


def value(unit: Path, key: str) -> str:
    found = re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)
    assert len(found) == 1, f"{unit.name}: {key} is there {len(found)} times"
    return str(found[0])


def test_the_units_are_units(tool: Callable[[str], str], tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace(OPT, HERE)
        (tmp_path / unit.name).write_text(text)
    units = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "scamp" in line]
    assert done.returncode == 0, done.stderr
    assert said == []


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_may_do_what_it_has_to_and_little_else(
    unit: Path, tool: Callable[[str], str]
) -> None:
    command = [tool("systemd-analyze"), "security", "--offline=yes", "--json=short"]
    done = subprocess.run(
        [*command, f"--threshold={EXPOSURE}", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {one["json_field"] for one in json.loads(done.stdout) if one.get("exposure")}
    assert found <= OPEN.keys()


def test_the_users_of_the_services_are_made(tool: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users = DEPLOY / "systemd" / "scamp-gateway.sysusers.conf"
    subprocess.run(
        [tool("systemd-sysusers"), f"--root={tmp_path}", users], check=True, capture_output=True
    )
    made = {line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    groups = {line.split(":")[0] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    for unit in SERVICES:
        assert value(unit, "User") in made
        assert value(unit, "Group") in groups


# -- as systemd starts them -------------------------------------------------------------

AS_SYSTEMD: Final = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
descriptors, *command = sys.argv[1:]
for number, one in enumerate(descriptors.split(",")):
    os.dup2(int(one), 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


def command_of(unit: Path, others: dict[str, str]) -> list[str]:
    """ExecStart, with what the machine of a test has in other places. All are there."""
    text = value(unit, "ExecStart").replace(OPT, HERE)
    for old, new in others.items():
        assert old in text
        text = text.replace(old, new)
    return shlex.split(text)


@contextmanager
def listening(*units: str) -> Iterator[tuple[list[int], list[str]]]:
    """The sockets of these units on free ports: descriptors above those that they will have."""
    with ExitStack() as stack:
        found, names = [], []
        for unit in units:
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            high = stack.enter_context(socket.socket(fileno=os.dup(sock.fileno())))
            found.append(high.fileno())
            names.append(value(DEPLOY / "systemd" / unit, "FileDescriptorName"))
        yield found, names


class Manager:
    """Hears what a service says to systemd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(PATIENCE)

    def next(self, *, alive: bool = False) -> str:
        """The first line of the next message; those of the watchdog only if `alive`."""
        while True:
            said = self.sock.recv(1000).decode().splitlines()[0]
            if alive or said != "WATCHDOG=1":
                return said


@contextmanager
def started_as_systemd_does(
    command: Sequence[str], sockets: tuple[list[int], list[str]], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Manager]]:
    descriptors, names = sockets
    manager = Manager(folder / "notify")
    given = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "200000",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
    }
    with manager.sock, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, ",".join(map(str, descriptors)), *command],
            env={**os.environ, **given},
            pass_fds=descriptors,
            stdout=log,
            stderr=log,
        )
        try:
            yield process, manager
        finally:
            process.kill()
            process.wait()


def settled(folder: Path, workers: int = 1) -> list[str]:
    """What starts the gateway with the shipped settings, in which only places are others."""
    settings = (DEPLOY / "gateway.example.toml").read_text()
    for old in ("/run/scamp", "/etc/scamp/auth", "/etc/scamp", "/var/log/scamp-gateway"):
        assert f'"{old}/' in settings
        settings = settings.replace(f'"{old}/', f'"{folder}/')
    settings = settings.replace("workers = 1", f"workers = {workers}")
    settings = settings.replace("drain_delay = 5", "drain_delay = 0")
    (folder / "gateway.toml").write_text(settings)
    (folder / "ticket_verify_public_key.pem").write_bytes(make_identity().certificate)
    (folder / "authorized_services").write_text("")
    (folder / "discovery").write_text("")
    unit = DEPLOY / "systemd" / "scamp-gateway.service"
    return command_of(unit, {"/etc/scamp-gateway/gateway.toml": f"{folder}/gateway.toml"})


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gateway_gets_its_sockets_and_says_how_it_is(tmp_path: Path, workers: int) -> None:
    command = settled(tmp_path, workers)
    with (
        listening("scamp-gateway.socket", "scamp-gateway-admin.socket") as sockets,
        started_as_systemd_does(command, sockets, tmp_path) as (process, manager),
    ):
        try:
            assert manager.next() == "READY=1"
        except TimeoutError:
            pytest.fail((tmp_path / "log").read_text())
        for descriptor, path in zip(sockets[0], ("/nowhere", "/livez"), strict=True):
            with socket.socket(fileno=os.dup(descriptor)) as listener:
                address = listener.getsockname()
            with socket.create_connection(address) as sock:
                sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                status = b"404" if path == "/nowhere" else b"200"
                assert sock.recv(100).split()[1] in (status, b"503")
        assert [manager.next(alive=True) for _ in range(3)] == ["WATCHDOG=1"] * 3
        process.send_signal(signal.SIGHUP)
        assert manager.next() == "RELOADING=1"
        assert manager.next() == "READY=1"
        process.terminate()
        assert manager.next() == "STOPPING=1"
        assert process.wait(PATIENCE) == 0
    (ready,) = re.findall(r"scamp-gateway ready: (.*)", (tmp_path / "log").read_text())
    assert ready


def test_one_that_hangs_says_where(tmp_path: Path) -> None:
    """What the watchdog of systemd does to it."""
    with (
        listening("scamp-gateway.socket") as sockets,
        started_as_systemd_does(
            [*settled(tmp_path), "--admin-bind", "127.0.0.1:0"], sockets, tmp_path
        ) as (process, manager),
    ):
        assert manager.next() == "READY=1"
        process.send_signal(signal.SIGABRT)
        assert process.wait(PATIENCE) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in (tmp_path / "log").read_text()


def test_the_cache_is_kept_where_the_gateway_reads_it(tmp_path: Path) -> None:
    unit = DEPLOY / "systemd" / "scamp-cache.service"
    place = f"/run/{value(unit, 'RuntimeDirectory')}/discovery"
    assert f'\ndiscovery_cache = "{place}"\n' in (DEPLOY / "gateway.example.toml").read_text()
    command = command_of(unit, {place: f"{tmp_path}/discovery"})
    group = ["--group", "239.63.248.199", "--port", "5"]  # nobody's
    done = subprocess.run(
        [*command, *group, "--interface", "127.0.0.1", "--once", "0.1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "discovery.lock").exists()
