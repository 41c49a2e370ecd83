"""Sockets from systemd, and what it is told."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.activation import Notifier, passed_sockets
from gateway.settings import Settings
from gateway.takeover import acquire
from scamp.errors import ConfigError


@pytest.fixture
def passed() -> Iterator[tuple[int, list[int]]]:
    """Two listening sockets at descriptors that follow each other, and their ports."""
    first, ports = 700, []
    for number in range(2):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            ports.append(sock.getsockname()[1])
            os.dup2(sock.fileno(), first + number)
    yield first, ports
    for number in range(2):
        with contextlib.suppress(OSError):
            os.close(first + number)


def environment(names: str, count: int = 2, pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_FDS": str(count),
        "LISTEN_PID": str(os.getpid() if pid is None else pid),
        "LISTEN_FDNAMES": names,
        "OTHER": "x",
    }


def test_sockets_are_taken_by_name_and_the_variables_removed(
    passed: tuple[int, list[int]],
) -> None:
    first, ports = passed
    given = environment("admin:public")
    found = passed_sockets(given, first=first)
    try:
        assert [found[name][0].getsockname()[1] for name in ("admin", "public")] == ports
        assert not os.get_inheritable(found["public"][0].fileno())
        assert found["public"][0].getblocking() is False
        assert given == {"OTHER": "x"}
        assert passed_sockets(given, first=first) == {}
    finally:
        for sockets in found.values():
            sockets[0].close()


def test_sockets_for_another_process_are_not_touched(passed: tuple[int, list[int]]) -> None:
    first, _ = passed
    given = environment("admin:public", pid=1)
    assert passed_sockets(given, first=first) == {}
    assert given == {"OTHER": "x"}
    os.fstat(first)


@pytest.mark.parametrize(
    ("names", "count", "reason"),
    [
        ("public", 2, "each needs FileDescriptorName="),
        ("public:scamp-gateway.socket", 2, "FileDescriptorName=public or"),
        ("public:admin", 100_000, "is no number of sockets"),
        ("", 1, "FileDescriptorName"),
    ],
)
def test_what_is_named_badly_is_told(names: str, count: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        passed_sockets(environment(names, count))


def test_what_is_no_listening_socket_is_told(passed: tuple[int, list[int]]) -> None:
    first, _ = passed
    with socket.socket() as quiet:
        os.dup2(quiet.fileno(), first)
    with pytest.raises(ConfigError, match=r"700 \(public\) is no listening TCP socket"):
        passed_sockets(environment("public:admin"), first=first)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, first)
    os.close(null)
    with pytest.raises(ConfigError, match="is no socket"):
        passed_sockets(environment("public:admin"), first=first)


def test_a_gateway_listens_on_them_whatever_the_settings_say(
    passed: tuple[int, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, ports = passed
    monkeypatch.setattr("gateway.activation.FIRST", first)
    for name, value in environment("public:admin").items():
        monkeypatch.setenv(name, value)
    settings = Settings(bind="127.0.0.1:1", admin_bind="127.0.0.1:2")
    found = acquire(settings)
    try:
        assert [one.getsockname()[1] for one in found.sockets.public] == ports[:1]
        assert [one.getsockname()[1] for one in found.sockets.admin] == ports[1:]
    finally:
        found.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"\0scamp-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        given = {"NOTIFY_SOCKET": address.replace("\0", "@")}
        notifier = Notifier(given)
        assert given == {}, "children do not speak for us"
        notifier.ready()
        assert manager.recv(1000).decode() == f"READY=1\nMAINPID={os.getpid()}"
        notifier.reloading()
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        notifier.stopping()
        assert manager.recv(1000) == b"STOPPING=1"


def test_nobody_needs_to_listen(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    Notifier({"NOTIFY_SOCKET": "vsock:2:1"}).ready()


def test_the_manager_hears_in_time_that_nothing_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.activation.time.monotonic", lambda: now)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        given = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "30000000",
            "WATCHDOG_PID": "1",
        }
        notifier = Notifier(given)
        assert given == {}
        assert notifier.pause == 15.0
        notifier.alive()
        assert manager.recv(100) == b"WATCHDOG=1"
        now += 7.4
        notifier.alive()
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        now += 0.2
        notifier.alive()
        assert manager.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "²"])
def test_no_watchdog_hears_nothing(tmp_path: Path, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": text})
        assert notifier.pause is None
        notifier.alive()
        with pytest.raises(BlockingIOError):
            manager.recv(100)
