"""Tests that need a program which Python does not bring: promtool, curl, nginx, a browser.

Where it is not installed they are skipped, with its name as the reason. Where REQUIRE_SERVERS is
set, as in CI, a test of this directory that is skipped has failed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from benchmarks.mesh import Gateway, gateway

Tool = Callable[[str], str]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("REQUIRE_SERVERS"):
        reason = call.excinfo.value if call.excinfo else "skipped"
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_SERVERS is set, and {item.nodeid} was skipped: {reason}"
    return report


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Where a program is, also one of Python's environment; the test is skipped when it is
    nowhere."""

    def find(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
        if found is None:
            pytest.skip(f"needs {name}")
        return found

    return find


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The real command in front of a real service, each a process of its own."""
    folder: Path = tmp_path_factory.mktemp("mesh")
    with gateway(folder) as found:
        yield found
