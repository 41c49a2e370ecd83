"""Each scenario at a size that fits here. `make soak` runs them in full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from soaking import Options
from tests.soak.scenarios import SCENARIOS

RUN = str(Path(__file__).with_name("run.py"))


def test_help_says_what_each_scenario_is() -> None:
    command = [sys.executable, RUN, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in SCENARIOS:
        assert f"\n  {name:<18}  " in shown
    assert "functools" not in shown


def test_wrong_usage_is_told() -> None:
    for arguments, message in (
        (("nonsense",), "there is no scenario 'nonsense', but faults"),
        (("overload", "--minutes", "-1"), "--minutes: invalid positive value: '-1'"),
    ):
        done = subprocess.run(
            [sys.executable, RUN, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_soak(name: str, tmp_path: Path) -> None:
    outcome = await SCENARIOS[name](Options(tmp_path, minutes=0.25, full=False, seed=1))
    print(outcome.line(name))  # noqa: T201 - shown when it fails
    assert outcome.wrong == []
