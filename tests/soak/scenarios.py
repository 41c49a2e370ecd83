"""Every scenario by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soaking import Scenario
from tests.soak.rolling import rolling

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "rolling": rolling,
}
