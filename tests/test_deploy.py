"""What operators copy agrees with what the gateway does."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.settings import Settings
from tests.soak.crowd import SHIPPED

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CLOSING = 5.0
"""Seconds that a stop may take beyond the drain."""


def test_systemd_waits_for_the_drain() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    found = re.search(r"^TimeoutStopSec=([0-9]+)$", unit, re.MULTILINE)
    assert found is not None
    fields = Settings.model_fields
    drain = fields["drain_delay"].default + fields["drain_limit"].default
    assert float(found[1]) >= drain + CLOSING


def test_the_allocator_of_the_soak_is_the_one_that_is_shipped() -> None:
    unit = (DEPLOY / "systemd" / "scamp-gateway.service").read_text()
    image = (ROOT / "Dockerfile").read_text()
    for name, value in SHIPPED.items():
        assert f"\nEnvironment={name}={value}\n" in unit
        assert f"\n    {name}={value} \\\n" in image
    assert "libjemalloc2" in image
