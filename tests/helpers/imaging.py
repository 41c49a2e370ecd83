"""The Dockerfile's steps, run where there is no container engine: buildah does without, on a base
that mmdebstrap makes of Debian. As root; everything lies in one directory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).parents[2]

BASE: Final = "localhost/python-of-debian"

_LIMIT: Final = 240.0
"""Seconds for one step; the test's own limit is not above it by much."""

_PLENTY: Final = 4 << 30
"""Bytes. It takes less than a quarter of it."""

# What nobody looks at here: a third of the files.
_LEFT_OUT: Final = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")

# As in the image that stands in the Dockerfile: python, venv, the commands of debian:…-slim.
_PACKAGES: Final = "python-is-python3,python3-venv,ca-certificates"

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """What was built: its files as a directory, and how it is to be started."""

    root: Path
    config: dict[str, Any]
    """As in OCI and Docker: ``Env``, ``User``, ``Entrypoint``, ``Cmd``, ``Healthcheck``, …"""
    again: Callable[[], Path]
    """Takes all steps once more, on the same base; its files."""

    @property
    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])


def named_base() -> tuple[str, str]:
    """Python's and Debian's version of the image that the Dockerfile begins with."""
    found = re.search(
        r"^ARG PYTHON=python:(\d+\.\d+)\.\d+-slim-(\w+)$",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    assert found is not None
    return found[1], found[2]


@contextmanager
def built_image(tool: Callable[[str], str], *arguments: str) -> Iterator[Image]:
    """Build it with these ``--build-arg``; takes a minute. Nothing of it is left afterwards: the
    vfs driver mounts nothing, and all files are in a directory of their own.

    Raises `AssertionError` with what was printed when a step fails.
    """
    with TemporaryDirectory(prefix="scamp-image-", dir=_quick_place()) as made:
        yield _build(Path(made), tool, arguments)


def _quick_place() -> Path | None:
    """Memory, if there is plenty: there are tens of thousands of files, each copied some times."""
    place = Path("/dev/shm")
    if not place.is_dir() or psutil.virtual_memory().available < _PLENTY:
        return None
    return place if shutil.disk_usage(place).free > _PLENTY else None


def _build(folder: Path, tool: Callable[[str], str], arguments: Sequence[str]) -> Image:
    apt = _apt_settings(folder)
    base = folder / "base.tar"
    run = partial(_run, folder=folder)
    run(
        tool("mmdebstrap"),
        *("--variant=minbase", f"--include={_PACKAGES}", f"--aptopt={apt}"),
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
        *(named_base()[1], str(base), *_mirror()),
    )
    buildah = _buildah(folder, tool)
    working = run(*buildah, "from", "scratch").strip()
    run(*buildah, "add", "--quiet", working, str(base), "/")
    base.unlink()
    run(*buildah, "config", "--env", f"PATH={_PATH}", working)
    run(*buildah, "commit", "--quiet", "--rm", working, BASE)
    steps = (
        *(*buildah, "bud", "--isolation", "chroot", "--format", "docker", "--layers=false"),
        *("--build-arg", f"PYTHON={BASE}"),
        *(word for argument in arguments for word in ("--build-arg", argument)),
        *("--volume", f"{apt}:/etc/apt/apt.conf.d/99build:ro"),
        *(word for path in _pip_settings(folder) for word in ("--volume", path)),
        *("--tag", "scamp-gateway", str(ROOT)),
    )

    def files() -> Path:
        run(*steps)
        working = run(*buildah, "from", "scamp-gateway").strip()
        return Path(run(*buildah, "mount", working).strip())

    root = files()
    described = json.loads(run(*buildah, "inspect", "--type", "image", "scamp-gateway"))
    return Image(root, described["Docker"]["config"], files)


def _buildah(folder: Path, tool: Callable[[str], str]) -> tuple[str, ...]:
    places = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))
    return (tool("buildah"), *places, "--storage-driver", "vfs")


def _run(*command: str, folder: Path | None = None) -> str:
    """What it prints; `folder` is for its temporary files."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)} if folder else None,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


# -- the way to the packages, as this machine has it ------------------------------------


def _apt_settings(folder: Path) -> Path:
    """What this machine's apt is told of proxies, certificates and dates."""
    told = _run("apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', "Acquire")
    ours = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes")
    path = folder / "apt.conf"
    path.write_text("".join(f"{one}\n" for one in told.splitlines() if not one.startswith(ours)))
    return path


def _mirror() -> Iterator[str]:
    """Where this machine has Debian from; nothing where that is not known."""
    asked = ("$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in _run("apt-get", "indextargets", "--format", *asked).splitlines():
        origin, label, component, address = line.split(" ", 3)
        if (origin, label, component) == ("Debian", "Debian", "main"):
            yield address
            return


def _pip_settings(folder: Path) -> Iterator[str]:
    """This machine's settings of pip, from its files and the environment, as volumes of a build."""
    told = _run(sys.executable, "-m", "pip", "config", "list")
    settings = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", told, re.MULTILINE))
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if variable in os.environ:
            settings.setdefault("cert", os.environ[variable])
    path = folder / "pip.conf"
    path.write_text("[global]\n" + "".join(f"{key} = {is_}\n" for key, is_ in settings.items()))
    yield f"{path}:/etc/pip.conf:ro"
    for value in settings.values():
        if value.startswith("/") and Path(value).is_file():
            yield f"{value}:{value}:ro"
