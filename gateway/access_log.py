"""One line per request, written by a thread so that a slow disk or pipe stops nobody.

Lines are made and handed over in batches: at once when it was quiet, else a few times a second.
What waits is bounded; beyond that lines are dropped and counted.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gateway.access_lines import Form, Taken, line_of, lines_of, taken

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.settings import Settings

log = logging.getLogger("gateway.access_log")

MAX_WAITING: Final = 8 * 1024 * 1024
"""Bytes that wait for the disk or pipe; more are dropped."""

BATCH_INTERVAL: Final = 0.05
"""Seconds between two batches while there is traffic."""

MAX_BATCH: Final = 256
"""Lines that are made at once: a quarter of a millisecond."""

SLOW: Final = 1.0
"""Seconds from which on a request has its line whatever the sample."""


class AccessLog:
    """Where the lines go: a path, ``-`` for stdout, or ``off``.

    `start` it within the event loop before the first request, `close` it after the last.
    """

    def __init__(
        self,
        target: str = "-",
        *,
        form: Form = "json",
        sample: float = 1.0,
        slow: float = SLOW,
        max_waiting: int = MAX_WAITING,
        worker: int | None = None,
        lock: Path | None = None,
    ) -> None:
        """Of requests that ended well and took less than `slow` seconds the share `sample` gets a
        line. At most `max_waiting` bytes wait to be written. Files are appended to. With several
        processes, `worker` is this one's number, and `lock` a file that they all have: who writes
        holds it, for in a pipe lines of two could mix."""
        self.enabled = target != "off"
        self._target = target
        self._form: Form = form
        self._sample = sample
        self._slow = slow
        self._max_waiting = max_waiting
        self._worker = worker
        self._lock = lock
        self._lock_fd = -1
        self._batch: list[Taken | bytes] = []
        self._scheduled = False
        self._dropped = 0
        self._unsampled = 0
        self._handed = 0  # bytes; set by the loop's thread only, as all of the above
        self._written = 0  # bytes; set by the writing thread only, as all below
        self._failed = 0
        self._failing = False
        self._fd = -1
        self._orders: queue.SimpleQueue[list[bytes] | Literal["reopen", "stop"]]
        self._orders = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that were not written: too many waited, or writing failed."""
        return self._dropped + self._failed

    @property
    def unsampled(self) -> int:
        """Lines that were left out on purpose."""
        return self._unsampled

    def start(self) -> None:
        """Open the file and start the thread that writes. Raises OSError."""
        if not self.enabled or self._thread is not None:
            return
        self._fd = self._open()
        if self._lock is not None:
            self._lock_fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    @classmethod
    def configured(
        cls, settings: Settings, *, worker: int | None = None, lock: Path | None = None
    ) -> AccessLog:
        """As `settings` say."""
        return cls(
            settings.access_log,
            form=settings.access_log_format,
            sample=settings.access_log_sample,
            slow=settings.access_log_slow,
            worker=worker,
            lock=lock,
        )

    def record(self, exchange: Exchange, total: float) -> None:
        """Take the line for one request, or leave it out; returns at once."""
        if self._loop is None:
            return
        weight = None
        if self._sample < 1.0:
            weight = self._weight(exchange, total)
            if not weight:
                self._unsampled += 1
                return
        line: Taken | bytes | None = None
        if self._form == "json":
            line = taken(exchange, total, weight)
        if line is None:
            line = line_of(exchange, total, self._worker, form=self._form, weight=weight)
        self._batch.append(line)
        if not self._scheduled:
            self._scheduled = True
            self._timer = self._loop.call_soon(self._hand_over)
        elif len(self._batch) >= MAX_BATCH:
            self._hand_over()

    def _weight(self, exchange: Exchange, total: float) -> float:
        """How many requests the line of this one stands for; 0 for no line. By chance, and not by
        an id: whoever chooses that would choose whether he is seen."""
        well = exchange.status < 400 and exchange.cause is None and not exchange.was_cut
        if not well or total >= self._slow:
            return 1
        if random.random() < self._sample:  # noqa: S311 - no secret
            return round(1 / self._sample, 6)
        return 0

    def reopen(self) -> None:
        """Open the file anew, after it was moved away. A failure leaves the old one in use."""
        if self._thread is not None and self._target != "-":
            self._hand_over()
            self._orders.put("reopen")

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most `timeout` seconds, and end. May be called twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._hand_over()
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        self._orders.put("stop")
        thread.join(timeout)

    def _hand_over(self) -> None:
        if self._loop is None or not self._batch:
            self._scheduled = False
            return
        batch, self._batch = self._batch, []
        if self._timer is not None:
            self._timer.cancel()
        self._scheduled = True
        self._timer = self._loop.call_later(BATCH_INTERVAL, self._hand_over)
        self._orders.put(self._admitted(lines_of(batch, self._worker)))

    def _admitted(self, lines: list[bytes]) -> list[bytes]:
        """Those that there is room for; the others are dropped."""
        size = sum(map(len, lines))
        room = self._max_waiting - (self._handed - self._written)
        if size > room:
            size, every, lines = 0, lines, []
            for line in every:
                if size + len(line) <= room:
                    lines.append(line)
                    size += len(line)
            self._dropped += len(every) - len(lines)
        self._handed += size
        return lines

    # -- the thread ---------------------------------------------------------------------

    def _open(self) -> int:
        if self._target == "-":
            return 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._target, flags, 0o640)

    def _write_all(self) -> None:
        while (order := self._orders.get()) != "stop":
            if order == "reopen":
                self._open_anew()
            elif isinstance(order, list):
                self._write(order)
            del order  # or it would stay as long as nothing comes
        if self._target != "-":
            os.close(self._fd)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)

    def _open_anew(self) -> None:
        try:
            fd = self._open()
        except OSError as exc:
            log.error("access log %s: %s; going on with the old file", self._target, exc.strerror)
            return
        os.close(self._fd)
        self._fd = fd

    def _write(self, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        size = len(data)
        try:
            with self._alone():
                while data:
                    data = data[os.write(self._fd, data) :]
        except OSError as exc:
            self._failed += len(lines)
            if not self._failing:
                log.error("access log %s: %s; lines are lost", self._target, exc.strerror)
            self._failing = True
        else:
            if self._failing:
                log.info("access log %s is written again; %d were lost", self._target, self._failed)
            self._failing = False
        self._written += size

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock_fd < 0:
            yield
            return
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)  # the kernel frees it when its holder dies
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)
