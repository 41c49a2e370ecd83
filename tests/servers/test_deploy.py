"""The files in deploy/, tried by the programs that will read them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_promtool_takes_the_scrape_configuration(tool: Callable[[str], str]) -> None:
    command = [tool("promtool"), "check", "config", str(DEPLOY / "prometheus" / "scrape.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
