"""The wheel as users install it: an environment of its own, what it needs from the index."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)  # it downloads some twenty packages
def test_pipx_installs_both_commands(tmp_path: Path, tool: Callable[[str], str]) -> None:
    pipx = tool("pipx")
    build = ("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    subprocess.run([sys.executable, *build], capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    environ = {
        **os.environ,
        "PIPX_HOME": str(tmp_path / "home"),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PIPX_MAN_DIR": str(tmp_path / "man"),
    }
    done = subprocess.run(
        [pipx, "install", f"{wheel}[all]"],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"scamp", "scamp-gateway"}
    for command in ("scamp", "scamp-gateway"):
        shown = subprocess.run(
            [tmp_path / "bin" / command, "--version"], capture_output=True, text=True, check=True
        )
        assert shown.stdout.startswith(f"{command}, version ")
