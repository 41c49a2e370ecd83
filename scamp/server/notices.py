"""Messages of type ``notify``: clients tell the service something, and expect no answer."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from scamp import logs
from scamp.limits import MAX_NOTICES, MAX_NOTICES_PER_CONNECTION
from scamp.server.reply import being_cancelled

log: logs.Sparing = logs.Sparing(logging.getLogger("scamp.server"))

NotifyHandler: TypeAlias = Callable[[str, Any], object]
"""Given the client's address and the data, parsed JSON. May be a coroutine function."""


class _Line:
    __slots__ = ("task", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, Any]] = deque()
        self.task: asyncio.Task[None] | None = None


class Notices:
    """Gives notices to the handler: those of one connection one after another, connections side by
    side. A connection that ends leaves its notices to be handled.

    What is too much is dropped, counted and logged. `on_idle` is called when nothing is left.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._lines: dict[object, _Line] = {}
        self._held = 0
        self.handler: NotifyHandler | None = None
        self.dropped: int = 0
        """Notices that no handler saw to the end: there is none, there were too many, or the
        service has stopped."""

    @property
    def held(self) -> int:
        """Notices that are waiting or being handled."""
        return self._held

    def add(self, connection: object, peer: str, data: Any) -> None:
        """Have `data` handled, after what `connection` sent before."""
        if self.handler is None:
            self.dropped += 1
            log.error("%s sent a notify message, and the service has no on_notify", peer)
            return
        line = self._lines.get(connection)
        full = line is not None and len(line.waiting) >= MAX_NOTICES_PER_CONNECTION
        if full or self._held >= MAX_NOTICES:
            self.dropped += 1
            log.error("too many notify messages, dropped one of %s", peer)
            return
        if line is None:
            line = self._lines[connection] = _Line()
        line.waiting.append((peer, data))
        self._held += 1
        if line.task is None:
            self._start(connection, line)

    def _start(self, connection: object, line: _Line) -> None:
        line.task = asyncio.create_task(self._handle(line), name="scamp notify")
        line.task.add_done_callback(lambda task: self._on_done(connection, line, task))

    def _on_done(self, connection: object, line: _Line, task: asyncio.Task[None]) -> None:
        if line.waiting and not task.cancelled():
            self._start(connection, line)  # one came just as the task ended
            return
        del self._lines[connection]
        if left := len(line.waiting):
            self._held -= left
            self.dropped += left
            peer, _ = line.waiting[0]
            log.error("%d notify messages of %s were not handled to the end", left, peer)
            line.waiting.clear()
        if not self._held:
            self._on_idle()

    async def _handle(self, line: _Line) -> None:
        while line.waiting:
            peer, data = line.waiting[0]
            try:
                outcome = self.handler(peer, data) if self.handler is not None else None
                if inspect.isawaitable(outcome):
                    await outcome
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                log.exception("on_notify failed: what it waited for was cancelled")
            except Exception:
                log.exception("on_notify failed")
            line.waiting.popleft()
            self._held -= 1

    def cancel(self) -> list[asyncio.Task[None]]:
        """Stop every handler; the tasks that are to be waited for."""
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        for task in tasks:
            task.cancel()
        return tasks
