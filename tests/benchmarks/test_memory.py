"""Large bodies go through the real command in real processes without being held in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import ARGUMENTS, MOVES, measure
from benchmarks.mesh import gateway
from scamp.limits import MIB

SIZE = 64 * MIB
ALLOWED = 16 * MIB
"""A body that piled up would move the peak by four times as much."""


@pytest.mark.parametrize("name", MOVES)
def test_a_body_moves_the_peak_by_much_less_than_its_size(name: str, tmp_path: Path) -> None:
    with gateway(tmp_path, arguments=ARGUMENTS) as front:
        moved = measure(front, name, SIZE)
    assert moved.growth < ALLOWED, moved
