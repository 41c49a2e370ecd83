"""What operators copy agrees with what the gateway does."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
CLOSING = 5.0
"""Seconds that a stop may take beyond the drain."""


def test_systemd_waits_for_the_drain() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    found = re.search(r"^TimeoutStopSec=([0-9]+)$", unit, re.MULTILINE)
    assert found is not None
    fields = Settings.model_fields
    drain = fields["drain_delay"].default + fields["drain_limit"].default
    assert float(found[1]) >= drain + CLOSING
