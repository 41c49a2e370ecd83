"""The command as it is installed: process 1 of a container hears signals from the first moment."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from gateway import __main__ as entry

ROOT: Final = Path(__file__).parents[2]

TOLD: Final = """
import os, sys, types
real, pretended = os.getpid(), int(sys.argv[1])
os.getpid = lambda: pretended or real
from gateway.__main__ import main

class Slow(types.ModuleType):
    def main(self):
        import time
        os.kill(real, 15)
        time.sleep(30)

sys.modules["gateway.cli"] = Slow("gateway.cli")
main()
"""
"""The signal arrives before the gateway has any handler of its own."""


@pytest.mark.parametrize(("pretended", "status"), [(1, 128 + signal.SIGTERM), (0, -signal.SIGTERM)])
def test_what_is_told_to_end_while_it_starts_ends(pretended: int, status: int) -> None:
    """With the status that containers have; elsewhere as anything that has no handler."""
    command = (sys.executable, "-c", TOLD, str(pretended))
    assert subprocess.run(command, timeout=20, check=False).returncode == status


def test_it_is_what_is_installed_and_imports_nothing_before_it_listens() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["scamp-gateway"] == f"{entry.__name__}:main"
    listing = "import sys, gateway.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True)
    found = done.stdout.decode().split()
    ours = [name for name in found if name.partition(".")[0] in ("gateway", "scamp")]
    assert ours == ["gateway", "gateway.__main__"]
