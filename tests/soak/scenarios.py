"""Every scenario by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soaking import Scenario
from tests.soak import dying_workers

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "workers": dying_workers.scenario,
}
