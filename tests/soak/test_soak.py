"""Each scenario at a size that fits here. `make soak` runs them in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from soaking import Options
from tests.soak.scenarios import SCENARIOS


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_soak(name: str, tmp_path: Path) -> None:
    outcome = await SCENARIOS[name](Options(tmp_path, minutes=0.25, full=False, seed=1))
    print(outcome.line(name))  # noqa: T201 - shown when it fails
    assert outcome.wrong == []
