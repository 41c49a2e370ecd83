"""Where, when and with what: without it a figure cannot be compared with another."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks.processes import ROOT

PACKAGES: Final = ("scamp-gateway", "aiohttp", "uvloop", "orjson", "cryptography")
PROGRAMS: Final = {"wrk": r"wrk (\S+)", "nginx": r"nginx/(\S+)"}
"""What they say to ``-v``."""


def environment() -> dict[str, Any]:
    """Of this run. Programs that are not installed are left out."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {
            **{package: version(package) for package in PACKAGES},
            **{name: said for name in PROGRAMS if (said := program(name)) is not None},
        },
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def program(name: str) -> str | None:
    """The version of `wrk` or `nginx`; None where it is not installed."""
    if shutil.which(name) is None:
        return None
    found = subprocess.run([name, "-v"], check=False, capture_output=True, text=True)
    said = re.search(PROGRAMS[name], found.stdout + found.stderr)
    return said[1] if said else "of unknown version"


def _commit() -> str:
    """Of the clone, with a ``+`` where files differ from it; empty where this is no clone."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--short") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown"
