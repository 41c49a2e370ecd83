"""A container of an `Image` without a container engine: namespaces of its own, a root file system
that is read-only, /tmp in memory, no capabilities. As root, with util-linux and iproute2.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from imaging import Image

LIMIT: Final = 30.0
"""Seconds for whatever is waited for."""

# $1: the files, $2: whether the network is new, then volumes up to --: SOURCE DESTINATION.
_ENTER: Final = """
root=$1 new=$2; shift 2
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
  case $2 in /tmp/*) mkdir -p "$root$2" ;; esac
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount -o remount,bind,ro "$root"
[ "$new" = no ] || ip link set lo up
exec chroot "$root" "$@"
"""


class Container:
    """One that runs, as Docker would run it with ``--read-only --tmpfs /tmp --cap-drop ALL``."""

    def __init__(self, image: Image, process: subprocess.Popen[str], environ: Mapping[str, str]):
        self.image = image
        self.process = process
        self.environ = environ

    @property
    def pid(self) -> int:
        """The number that its process 1 has outside."""
        (first,) = psutil.Process(self.process.pid).children()
        return first.pid

    def read_until(self, words: str) -> str:
        """What it prints on stdout, up to the line that has `words`."""
        printed = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            printed += line
            if words in line:
                return printed
        raise AssertionError(f"{printed}\nended with {self.process.wait()}: {self.complaints()}")

    def complaints(self) -> str:
        """What it has printed on stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something beside it in the same container, as ``docker exec`` does."""
        there = ("--mount", "--pid", "--net", "--ipc", "--root", "--wd=/")
        return self._enter(*there, "--", *_as_user(self.image, self.environ), *command)

    def beside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something of this machine in the container's network."""
        return self._enter("--net", "--", *command)

    def _enter(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", "--target", str(self.pid), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def terminate(self) -> int:
        """End it as Docker does; its exit status."""
        os.kill(self.pid, getattr(signal, self.image.config["StopSignal"]))
        return self.process.wait(LIMIT)


@contextmanager
def container(
    image: Image,
    *command: str,
    entrypoint: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    volumes: Mapping[Path, str] | None = None,
    network: Container | None = None,
) -> Iterator[Container]:
    """Start one; nothing of it is left afterwards, mounts neither.

    `command` instead of the image's, `volumes` by what is mounted where (at something that the
    image has, or below /tmp), `network` is that of another container instead of a new one.
    """
    known = {**image.environment, **(environ or {})}
    words = [
        *(image.config["Entrypoint"] if entrypoint is None else entrypoint),
        *(command or image.config["Cmd"]),
    ]
    mounted = [word for pair in (volumes or {}).items() for word in map(str, pair)]
    joined = ["nsenter", f"--net=/proc/{network.pid}/ns/net", "--"] if network else []
    new = ["--mount", "--pid", "--ipc", "--uts", *([] if network else ["--net"])]
    process = subprocess.Popen(
        [
            *(*joined, "unshare", *new, "--fork", "--", "sh", "-euc", _ENTER, "enter"),
            *(str(image.root), "no" if network else "yes", *mounted, "--"),
            *(*_as_user(image, known), *words),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            _wait_until_inside(process, image)
            yield Container(image, process, known)
        finally:
            _kill(process)


def _as_user(image: Image, environ: Mapping[str, str]) -> list[str]:
    user, _, group = image.config["User"].partition(":")
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--bounding-set=-all"),
        *("env", "-i", *(f"{name}={value}" for name, value in environ.items())),
    ]


def _wait_until_inside(process: subprocess.Popen[str], image: Image) -> None:
    """Until it sees the image's files alone, after all else was made; or has ended already."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            for first in psutil.Process(process.pid).children():
                if os.readlink(f"/proc/{first.pid}/root") == str(image.root):
                    return
        time.sleep(0.01)  # between two looks


def _kill(process: subprocess.Popen[str]) -> None:
    """Its process 1 takes everything else of the container along."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        for first in psutil.Process(process.pid).children():
            first.kill()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
