"""``scamp cache``, with real multicast on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from multicast import LOOPBACK, free_group, needs_multicast

from scamp import keys
from scamp.cli.common import Exit
from scamp.discovery import (
    Action,
    AnnouncementSpec,
    MulticastGroup,
    MulticastSender,
    build_announcement,
    encode_packet,
    parse_announcement,
    split_records,
)
from scamp.testing import TestIdentity, make_identity

pytestmark = needs_multicast

Run = Callable[..., Result]


def record(identity: TestIdentity, name: str = "shop", weight: int = 1) -> bytes:
    spec = AnnouncementSpec(
        identity=name,
        sector="main",
        weight=weight,
        interval=5.0,
        uri="beepish+tls://127.0.0.1:30100",
        envelopes=("json",),
        actions=(Action("main", "Shop", "sell", 1), Action("main", "Bank", "rob", 1)),
    )
    key = keys.load_private_key(identity.key)
    return build_announcement(spec, key, identity.certificate, timestamp=time.time())


class Announcing:
    """Sends a record again and again until the block ends."""

    def __init__(self, group: MulticastGroup, *records: bytes) -> None:
        self._packets = [encode_packet(one) for one in records]
        self._sender = MulticastSender(group)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._end.wait(0.02):
            for packet in self._packets:
                self._sender.send(packet)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._sender.close()


@pytest.fixture
def group() -> MulticastGroup:
    return free_group()


@pytest.fixture
def where(group: MulticastGroup) -> list[str]:
    return ["--group", group.address, "--port", str(group.port), "--interface", LOOPBACK]


@pytest.fixture(autouse=True)
def without_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "scamp.conf").write_text("")
    monkeypatch.setenv("SCAMP", str(tmp_path / "scamp.conf"))


def names(path: Path) -> list[str]:
    """Sorted: records stand in the file in the order of their fingerprints."""
    return sorted(parse_announcement(one).identity for one in split_records(path.read_bytes()))


def test_what_is_announced_gets_into_the_file(
    run: Run, tmp_path: Path, group: MulticastGroup, where: list[str]
) -> None:
    path = tmp_path / "cache"
    first, second = record(make_identity()), record(make_identity(1), "bank")
    with Announcing(group, first, second):
        result = run("cache", "--cache", path, *where, "--once", "0.5")
    assert result.exit_code == Exit.OK
    assert f"writing {path} from {group.address}:{group.port} on {LOOPBACK}" in result.stderr
    assert sorted(names(path)) == ["bank", "shop"]
    assert first in split_records(path.read_bytes())


def test_everything_can_come_from_the_configuration(
    run: Run, tmp_path: Path, group: MulticastGroup
) -> None:
    path, conf = tmp_path / "cache", tmp_path / "soa.conf"
    conf.write_text(
        f"discovery.multicast_address = {group.address}\ndiscovery.port = {group.port}\n"
        f"discovery.address = if:lo\ndiscovery.cache_path = {path}\n"
    )
    with Announcing(group, record(make_identity())):
        assert run("cache", "--config", conf, "--once", "0.4").exit_code == Exit.OK
    assert names(path) == ["shop"]


def test_who_is_not_authorized_is_told_and_stands_in_the_file_all_the_same(
    run: Run, tmp_path: Path, group: MulticastGroup, where: list[str]
) -> None:
    path, authorized = tmp_path / "cache", tmp_path / "authorized"
    authorized.write_text(f"{make_identity().fingerprint} Shop\n")
    with Announcing(group, record(make_identity())):
        options = (*where, "--authorized-services", authorized, "--once", "0.4")
        result = run("cache", "--cache", path, *options)
    assert names(path) == ["shop"]
    (told,) = [one for one in result.stderr.splitlines() if "not authorized" in one]
    assert "main:Bank.rob" in told
    assert "Shop.sell" not in told


def test_refused_packets_are_told_once(
    run: Run, tmp_path: Path, group: MulticastGroup, where: list[str]
) -> None:
    forged = record(make_identity()).replace(b"Shop", b"Sh0p")
    with Announcing(group, forged):
        result = run("cache", "--cache", tmp_path / "cache", *where, "--once", "0.4")
    (told,) = [one for one in result.stderr.splitlines() if "refused: {" in one]
    assert "signature" in told
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--interface", "192.0.2.77"], "192.0.2.77"),
        (["--interface", "if:nowhere0"], "nowhere0"),
        (["--interface", LOOPBACK, "--group", "10.0.0.1"], "not an IPv4 multicast address"),
    ],
)
def test_a_group_that_cannot_be_joined_is_wrong_usage(
    run: Run, tmp_path: Path, arguments: list[str], says: str
) -> None:
    result = run(
        "cache", "--cache", tmp_path / "cache", "--port", "40000", *arguments, "--once", "1"
    )
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert says in result.stderr


@pytest.fixture
def process(tmp_path: Path, where: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, once it listens."""
    command = [sys.executable, "-m", "scamp.cli", "cache", *where]
    command += ["--cache", str(tmp_path / "cache")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("writing")
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_the_file(
    tmp_path: Path, group: MulticastGroup, process: subprocess.Popen[str], number: signal.Signals
) -> None:
    path = tmp_path / "cache"
    with Announcing(group, record(make_identity())):
        end = time.monotonic() + 10
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(10) == 0
    assert names(path) == ["shop"]


def test_a_second_one_on_the_same_file_is_refused(
    run: Run, tmp_path: Path, where: list[str], process: subprocess.Popen[str]
) -> None:
    result = run("cache", "--cache", tmp_path / "cache", *where, "--once", "1")
    assert result.exit_code == Exit.USAGE
    assert f"process {process.pid}" in result.stderr
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
