"""Every scenario by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soaking import Scenario
from tests.soak.crowd import crowd

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "crowd": crowd,
}
