"""Gateways behind a real HAProxy, restarted one after another. See tests/soak/rolling.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from soaking import Options, Outcome
from tests.soak.rolling import SHORT, replace_gateways


@pytest.mark.timeout(120)
async def test_no_request_fails_while_gateways_are_restarted_behind_haproxy(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    outcome = Outcome()
    options = Options(tmp_path, minutes=0.25, full=False, seed=1)
    await replace_gateways(options, outcome, SHORT, tool("haproxy"))
    print(outcome.line("rolling"))  # noqa: T201 - shown when it fails
    assert outcome.wrong == []
    assert outcome.counts["gateway_restarts"] == SHORT
