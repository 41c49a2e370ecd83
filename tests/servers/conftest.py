"""Tests that need a program which Python does not bring: promtool, curl, nginx, a browser.

Where it is not installed they are skipped, with its name as the reason. Where REQUIRE_SERVERS is
set, as in CI, a test of this directory that is skipped has failed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mesh import Gateway, gateway
from browser import Browse, Browser, browsing
from explored import Explored, explored
from gateway.demo.folder import Folder
from gateway.demo.supervisor import SERVICES, USERS

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


# -- the explorer -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The demo's keys and tickets: making them takes longer than a test."""
    made = Folder(tmp_path_factory.mktemp("demo"))
    made.prepare(SERVICES, USERS)
    return made


@pytest.fixture
async def site(folder: Folder) -> AsyncIterator[Explored]:
    """The explorer in front of the demo's services."""
    async with explored(folder) as up:
        yield up


@pytest.fixture
def browse(tool: Tool) -> Browse:
    """Opens a browser for an `Explored`. Whatever a test does in it: nothing goes elsewhere and
    nothing is complained of."""
    chromium = tool("chromium")

    @asynccontextmanager
    async def open_one(site: Explored, **options: Any) -> AsyncIterator[Browser]:
        async with browsing(chromium, site.origin, **options) as browser:
            yield browser
            assert browser.strangers == []
            assert browser.complaints == []

    return open_one
