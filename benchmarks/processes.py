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
from typing import Final

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

    def tree(self) -> list[psutil.Process]:
        """The process and its workers, if it has any."""
        top = psutil.Process(self.popen.pid)
        return [top, *top.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system."""
        return sum(sum(one.cpu_times()[:2]) for one in self.tree())

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
) -> Iterator[Process]:
    """Run `command` in `folder` until the end of the block; begins with its first line on stdout.

    Its stderr goes to the file `log`. Raises ProcessFailedError when no line comes.
    """
    with log.open("wb") as errors:
        popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield Process(popen, _first_line(popen, log))
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
