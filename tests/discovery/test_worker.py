"""A thread of one's own: it ends whatever happens."""

from __future__ import annotations

import asyncio
import threading

import pytest

from scamp.discovery.worker import Worker
from scamp.testing import until


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


async def test_work_is_done_in_one_thread_which_ends() -> None:
    worker = Worker("one-thread")
    first = await worker.run(threading.get_ident)
    assert first == await worker.run(threading.get_ident) != threading.get_ident()
    await worker.stop()
    await worker.stop()
    await until(lambda: not threads("one-thread"))


async def test_a_stop_that_is_cancelled_leaves_no_thread() -> None:
    worker = Worker("cut-short")
    go_on = threading.Event()
    busy = asyncio.ensure_future(worker.run(go_on.wait))
    await asyncio.sleep(0)
    stop = asyncio.create_task(worker.stop())
    await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    go_on.set()
    assert await busy
    await until(lambda: not threads("cut-short"))
