"""Every public name of `scamp` has its types, as a type checker of its users sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
BIN: Final = Path(sys.executable).parent


@pytest.mark.timeout(180)
def test_a_type_checker_knows_the_type_of_every_public_name() -> None:
    """pyright's own measure: of all that a user can reach, nothing is unknown or ambiguous."""
    checker = shutil.which("basedpyright", path=f"{BIN}:{os.environ['PATH']}")
    if checker is None:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail("basedpyright is not installed")
        pytest.skip("basedpyright is not installed")
    done = subprocess.run(
        [checker, "--verifytypes", "scamp", "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        # It asks the first `python` of the path where packages are.
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    assert report["packageName"] == "scamp"
    assert report["exportedSymbolCounts"]["withKnownType"] > 1000, "it looked elsewhere"
    found = [
        f"{one['file']}:{one['range']['start']['line'] + 1}: {one['message']}"
        for symbol in report["symbols"]
        for one in symbol.get("diagnostics", [])
        if one["severity"] == "error"
    ]
    assert not found, "\n" + "\n".join(sorted(set(found)))
    assert report["completenessScore"] == 1.0


def test_every_package_carries_the_mark_of_typed_ones() -> None:
    for package in ("scamp", "gateway"):
        assert (ROOT / package / "py.typed").exists()
