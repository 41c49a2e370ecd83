"""Signals before a command has begun, while what it needs is being imported."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

# Sends itself the signal of Ctrl-C in the middle of its imports.
_INTERRUPTED: Final = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from gateway.entry import {command}
sys.argv[1:] = ["--version"]
{command}()
"""


def _run(command: str, before: str = "") -> subprocess.CompletedProcess[str]:
    script = before + _INTERRUPTED.format(command=command)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", ["scamp", "scamp_gateway"])
def test_ctrl_c_during_imports_ends_it_without_a_traceback(command: str) -> None:
    done = _run(command)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("command", ["scamp", "scamp_gateway"])
def test_who_ignores_it_goes_on(command: str) -> None:
    done = _run(command, "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    assert done.returncode == 0, done.stderr
    assert "version" in done.stdout


_TOLD: Final = """
import os
real = os.getpid()
os.getpid = lambda: {pretended} or real
os.kill = lambda pid, number, kill=os.kill: kill(real, {number})
"""


@pytest.mark.parametrize("command", ["scamp", "scamp_gateway"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_1_of_a_container_hears_it_too(command: str, number: int) -> None:
    """The kernel keeps from it what it has no handler for; containers end with this status."""
    done = _run(command, _TOLD.format(pretended=1, number=int(number)))
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")
    done = _run(command, _TOLD.format(pretended=0, number=int(number)))
    assert done.returncode == -number
