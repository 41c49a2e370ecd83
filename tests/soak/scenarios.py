"""Every scenario by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soaking import Scenario
from tests.soak import dying_workers, faults
from tests.soak.abuse import abuse
from tests.soak.crowd import crowd
from tests.soak.overload import overload
from tests.soak.rolling import rolling

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "faults": faults.echoing,
    "faults-renumbering": faults.renumbering,
    "overload": overload,
    "rolling": rolling,
    "abuse": abuse,
    "crowd": crowd,
    "workers": dying_workers.scenario,
}
