"""Every scenario by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from soaking import Scenario
from tests.soak import dying_workers, faults

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "faults": faults.echoing,
    "faults-renumbering": faults.renumbering,
    "workers": dying_workers.scenario,
}
