"""Other editions of SCAMP, as commands from the environment, and files and processes for them.

What the commands must do stands in ``tests/interop/README.md``.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from multicast import LOOPBACK, free_group

from scamp.config import ScampConf
from scamp.discovery import Announcement, parse_announcement, split_records
from scamp.testing import TestIdentity

CLIENTS: Final = "SCAMP_INTEROP_CLIENTS"
SERVICES: Final = "SCAMP_INTEROP_SERVICES"
CACHE: Final = "SCAMP_INTEROP_CACHE"
CAPTURES: Final = "SCAMP_INTEROP_CAPTURES"
INTERFACES: Final = "SCAMP_INTEROP_INTERFACES"

LACKS: Final[dict[str, dict[str, str]]] = {
    "go": {
        "own sector": "Go sees only actions that have the sector and envelopes of their service",
        "error_data": "Go knows no error_data",
        "both ways": "Go reads no reply as long as it sends, and we hold no body that is not read",
        "fingerprint": "Go does not check whose certificate it is",
    },
}
"""What editions are known not to do, by their names."""

PATIENCE: Final = 30.0
"""Seconds that a command may take for what it is asked for."""


@dataclass(frozen=True, slots=True)
class Edition:
    """A command of another edition."""

    name: str
    command: tuple[str, ...]

    def needs(self, feature: str) -> None:
        """Skip the test when this edition is known not to have `feature`."""
        if reason := LACKS.get(self.name, {}).get(feature):
            pytest.skip(reason)


def editions(variable: str) -> list[Edition]:
    """The commands in an environment variable: ``NAME=COMMAND;NAME=COMMAND``."""
    found = []
    for one in os.environ.get(variable, "").split(";"):
        if one.strip():
            name, _, command = one.strip().partition("=")
            found.append(Edition(name.strip(), tuple(shlex.split(command))))
    return found


def not_set(*variables: str) -> pytest.MarkDecorator:
    """The mark of tests that have nothing to run against."""
    names = " or ".join(variables)
    return pytest.mark.skip(reason=f"{names} is not set, see tests/interop/README.md")


def interfaces() -> tuple[str, ...]:
    """The addresses that multicast goes by."""
    return tuple(os.environ.get(INTERFACES, LOOPBACK).replace(" ", "").split(","))


@dataclass(frozen=True, slots=True)
class Said:
    """How a client command ended."""

    code: int
    reply: bytes
    error: str

    def good(self) -> bytes:
        """The reply. Fails the test with the command's own words when there was none."""
        assert self.code == 0, self.error[-2000:]
        return self.reply


class Place:
    """A mesh of its own: files, all in one directory, and a multicast group that nobody else uses.

    Services and clients of any edition can be started with `config_file`.
    """

    def __init__(self, folder: Path, identity: TestIdentity) -> None:
        self.folder = folder
        self.config_file: Path = folder / "scamp.conf"
        self.cache_file: Path = folder / "cache"
        self.key: Path = folder / "interop.key"
        self.certificate: Path = folder / "interop.crt"
        authorized = folder / "authorized_services"
        running = folder / "running"
        running.mkdir()
        self.group = free_group(*interfaces())
        self.key.write_bytes(identity.key)
        self.certificate.write_bytes(identity.certificate)
        authorized.write_text(f"{identity.fingerprint} main:ALL, background:ALL\n")
        self.config_file.write_text(
            f"bus.address = {self.group.interfaces[0]}\n"
            f"discovery.address = {', '.join(self.group.interfaces)}\n"
            f"discovery.multicast_address = {self.group.address}\n"
            f"discovery.port = {self.group.port}\n"
            f"discovery.cache_path = {self.cache_file}\n"
            f"bus.authorized_services = {authorized}\n"
            f"interop.key = {self.key}\n"
            f"interop.cert = {self.certificate}\n"
            f"interop.soa_key = {self.key}\n"
            f"interop.soa_cert = {self.certificate}\n"
            f"service.running_service_file_dir_path = {running}\n"
        )

    def config(self) -> ScampConf:
        """The configuration, read."""
        return ScampConf.load(self.config_file)

    @contextmanager
    def cache(self) -> Iterator[None]:
        """``scamp cache`` in a process of its own, which writes `cache_file`."""
        command = (sys.executable, "-m", "scamp.cli", "cache", "--renew-interval", "0.1")
        with self.process((*command, "--config", str(self.config_file)), "cache.log") as process:
            said = self.folder / "cache.log"
            wait_for(lambda: b"writing" in said.read_bytes(), lambda: _alive(process, said))
            yield

    @contextmanager
    def process(
        self, command: tuple[str, ...], log: str, patience: float = PATIENCE
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A process until the end of the block; then it is told to stop, and has to."""
        with (
            (self.folder / log).open("wb") as file,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            ) as process,
        ):
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                process.wait(patience)
            finally:
                process.kill()

    def cached(self) -> list[Announcement]:
        """The services in `cache_file`; all of its records are good."""
        with suppress(FileNotFoundError):
            return [parse_announcement(raw) for raw in split_records(self.cache_file.read_bytes())]
        return []

    async def call(
        self, client: Edition, action: str, body: bytes, *, lines: bool = False, ticket: str = ""
    ) -> Said:
        """What the client command makes of one action; others may run meanwhile."""
        command = (*client.command, str(self.config_file), action, *(("lines",) if lines else ()))
        own = {name: value for name, value in os.environ.items() if not name.startswith("SCAMP")}
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            input=body,
            env={**own, **({"SCAMP_TICKET": ticket} if ticket else {})},
            capture_output=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def _alive(process: subprocess.Popen[bytes], said: Path) -> None:
    assert process.poll() is None, said.read_text()


def wait_for(
    condition: Callable[[], bool],
    check: Callable[[], None] = lambda: None,
    patience: float = PATIENCE,
) -> None:
    """Until `condition`; `check` may give up before. For tests without a loop, and fixtures."""
    end = time.monotonic() + patience
    while not condition():
        check()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def running(edition: Edition, place: Place) -> Iterator[Announcement]:
    """A real service in the mesh of `place`, from when ``scamp cache`` has heard it."""
    with (
        place.cache(),
        place.process((*edition.command, str(place.config_file)), "service.log") as process,
    ):
        wait_for(
            lambda: bool(place.cached()), lambda: _alive(process, place.folder / "service.log")
        )
        (service,) = place.cached()
        yield service
