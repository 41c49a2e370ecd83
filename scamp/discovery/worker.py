"""A worker thread of one's own, for what would keep the event loop waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Worker:
    """Runs one piece of work after another in one thread, which begins with the first of them.

    Methods belong to the event loop's thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """What ``work(*args)`` gives, after what the thread does now. When it is cancelled the
        work is done all the same, and nobody sees what it gives."""
        return await asyncio.get_running_loop().run_in_executor(self._ready(), work, *args)

    def submit(self, work: Callable[[], object]) -> None:
        """Have it done some time; nobody waits for it."""
        self._ready().submit(work)

    async def stop(self) -> None:
        """End the thread, behind whatever it still does, without blocking the loop. May be called
        twice. When it is cancelled the thread ends all the same, a little later."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(executor, _nothing)
        finally:
            executor.shutdown(wait=False)

    def _ready(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        return self._executor


def _nothing() -> None:
    """The last piece of work of a thread."""
