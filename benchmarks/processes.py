"""Processes of a benchmark: started, waited for, read from the operating system, ended."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

START_LIMIT: Final = 30.0
STOP_LIMIT: Final = 15.0

ROOT: Final = Path(__file__).parents[1]


class ProcessFailedError(Exception):
    """A process did not come up; the text has the end of what it logged."""


@dataclass(frozen=True, slots=True)
class Process:
    """One that said that it is ready, in one line on stdout: `said`."""

    popen: subprocess.Popen[bytes]
    said: str
    log: Path
    """What it says on stderr."""

    def ask(self, line: str) -> str:
        """Write a line to its stdin and return the one that it answers with."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(f"{line}\n".encode())
        self.popen.stdin.flush()
        answer = self.popen.stdout.readline()
        if not answer:
            raise ProcessFailedError(self.log.read_text(errors="replace")[-2000:])
        return answer.decode()

    def tree(self) -> list[psutil.Process]:
        """The process and its workers, if it has any."""
        top = psutil.Process(self.popen.pid)
        return [top, *top.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, to the nanosecond."""
        return sum(time.clock_gettime(_cpu_clock(one.pid)) for one in self.tree())

    def times(self) -> tuple[float, float]:
        """The same, user and system apart, in hundredths of a second."""
        found = [one.cpu_times() for one in self.tree()]
        return sum(one.user for one in found), sum(one.system for one in found)

    def resident(self) -> int:
        """Memory that is resident now, in bytes."""
        return sum(_kibibytes(one.pid, "VmRSS") * 1024 for one in self.tree())

    def descriptors(self) -> int:
        """File descriptors that are open now."""
        return sum(one.num_fds() for one in self.tree())

    def forget_peak(self) -> int:
        """Make the peak what is resident now, and return that, in bytes."""
        for one in self.tree():
            Path(f"/proc/{one.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        """Peak resident memory in bytes (VmHWM)."""
        return sum(_kibibytes(one.pid, "VmHWM") * 1024 for one in self.tree())


class Serving(Protocol):
    """A server that can be asked: what its process is, where, and with which headers."""

    @property
    def process(self) -> Process: ...

    @property
    def url(self) -> str:
        """Without a slash at the end."""

    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...


@dataclass(frozen=True, slots=True)
class Server:
    """One that needs no headers."""

    process: Process
    url: str
    headers: tuple[tuple[str, str], ...] = ()


def _cpu_clock(pid: int) -> int:
    """What clock_getcpuclockid(3) gives, which Python does not have for processes."""
    return ~pid << 3 | 2


def _kibibytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ProcessFailedError(f"/proc/{pid}/status has no {name}")


@contextmanager
def started(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    sockets: Sequence[int] = (),
) -> Iterator[Process]:
    """Run `command` in `folder` until the end of the block; begins with its first line on stdout.

    Its stderr goes to the file `log`. `sockets` are descriptors that it gets. Raises
    ProcessFailedError when no line comes.
    """
    with log.open("wb") as errors:
        popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            pass_fds=sockets,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Process(popen, _first_line(popen, log), log)
    finally:
        _end(popen)


def module(name: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs a module of ours with this interpreter."""
    return [sys.executable, "-m", name, *arguments]


def _first_line(popen: subprocess.Popen[bytes], log: Path) -> str:
    assert popen.stdout is not None
    descriptor, end, said = popen.stdout.fileno(), time.monotonic() + START_LIMIT, b""
    while b"\n" not in said:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
        piece = os.read(descriptor, 4096) if ready else b""
        if not piece:
            what = "ended" if ready else f"was not ready within {START_LIMIT:g} s"
            tail = log.read_text(errors="replace")[-2000:]
            raise ProcessFailedError(f"{popen.args!r} {what}:\n{tail}")
        said += piece
    return said.decode().splitlines()[0]


def _end(popen: subprocess.Popen[bytes]) -> None:
    popen.terminate()
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()
    try:
        popen.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
