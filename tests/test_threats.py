"""The threat model names settings and tests that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

from gateway.catalogue import CATALOGUE
from gateway.clients import TIMEOUTS
from gateway.settings import Settings

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "THREAT_MODEL.md"
HEADER: Final = "| threat | what happens | defence | setting | test |"


def rows() -> Iterator[list[str]]:
    inside = False
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            inside = False
        elif line == HEADER:
            inside = True
        elif inside and not line.startswith("|--"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


ROWS: Final = [*rows()]


@lru_cache
def names_in(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:60] for row in ROWS])
def test_each_threat_has_what_happens_a_defence_a_setting_and_a_test(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    *_, setting, test = row
    assert setting == "none" or setting.strip("`") in Settings.model_fields
    path, _, name = test.strip("`").partition("::")
    assert name in names_in(ROOT / path), test


def test_every_kind_of_attacker_has_threats() -> None:
    text = PAGE.read_text()
    assert len(ROWS) >= 70
    assert text.count(HEADER) == text.count("\n### ")


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/limits.md"])
def test_settings_that_pages_on_security_name_exist(page: str) -> None:
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", (ROOT / page).read_text()))
    assert named
    metrics = {name for name in named if name.startswith("scamp_gateway_")}
    assert named - metrics <= {*Settings.model_fields, *CATALOGUE, *TIMEOUTS}
