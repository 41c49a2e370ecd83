"""What every test is held to: it leaves no task, socket or thread behind."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from scamp import logs

PATIENCE = 3.0
"""Seconds that closing connections may take; only a test that leaks waits so long."""


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The event loop under the tests: asyncio's, or what TEST_LOOP says."""
    name = os.environ.get("TEST_LOOP", "asyncio")
    return {name: LOOPS[name]}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On another loop than the usual one only those tests are run that have it under them, and are
    not marked `one_loop`."""
    if os.environ.get("TEST_LOOP", "asyncio") == "asyncio":
        return
    there = [item for item in items if _on_our_loop(item)]
    left_out = [item for item in items if not _on_our_loop(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = there


def _on_our_loop(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    return inspect.iscoroutinefunction(function) and not item.get_closest_marker("one_loop")


def _open_sockets() -> set[str]:
    """The sockets of this process, told apart by inode."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith("socket:"):
            found.add(target)
    if found:
        # uvloop makes itself a pair of UNIX sockets each time that it runs; we make none.
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
        found -= {f"socket:[{line.split()[6]}]" for line in lines}
    return found


def _own_threads() -> set[threading.Thread]:
    # The loop's executor keeps its threads until the loop is closed.
    return {t for t in threading.enumerate() if not t.name.startswith(("asyncio_", "uvloop_"))}


@pytest.fixture
async def leaks_nothing_in_loop() -> AsyncIterator[None]:
    """Fails when tasks or sockets outlive the test and its fixtures."""
    sockets = _open_sockets()
    mine = asyncio.all_tasks()
    yield
    end = time.monotonic() + PATIENCE
    mine |= {task for task in (asyncio.current_task(),) if task is not None}
    while True:
        tasks = asyncio.all_tasks() - mine
        left = _open_sockets() - sockets
        if not tasks and not left:
            return
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.005)
    for task in tasks:
        task.cancel()
    pytest.fail(f"left behind: tasks {[str(task) for task in tasks]}, sockets {sorted(left)}")


@pytest.fixture(autouse=True)
def logs_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What strangers made other tests log does not count in this one."""
    monkeypatch.setattr(logs, "_strangers", logs.Flood())


@pytest.fixture(autouse=True)
def leaks_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails when sockets or threads outlive a test, and tasks if it is asynchronous."""
    asynchronous = inspect.iscoroutinefunction(getattr(request, "function", None))
    threads = _own_threads()
    sockets = set() if asynchronous else _open_sockets()
    if asynchronous:
        request.getfixturevalue("leaks_nothing_in_loop")
    yield
    end = time.monotonic() + PATIENCE
    while (left := _own_threads() - threads) and time.monotonic() < end:
        time.sleep(0.005)
    assert not left, f"threads left behind: {left}"
    if not asynchronous:
        assert not _open_sockets() - sockets, "sockets left behind"
