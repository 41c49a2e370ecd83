"""Lines for whoever reads our output, without an event loop that waits for him."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Final, TextIO

_READER_GONE: Final = "whoever read the output has gone"


class Lines:
    """Lines on `file`, such as standard output, written as soon as it takes them.

    A pipe or a terminal that takes no more is waited for by the event loop, so that somebody who
    stopped reading holds up neither what is watched nor the signal that ends us. At most `limit`
    bytes wait meanwhile, or one line. What comes beyond that is left out, until all that waits is
    read; there stands then the line that ``gap(count)`` gives. Files take everything at once.

    `on_error` is called once, when nothing can be written any more, and `error` says why. That a
    pipe's reader has gone shows when it goes, not only at the next line.

    Make it while the loop runs, and `close` it. All methods belong to that loop.
    """

    def __init__(
        self,
        file: TextIO,
        limit: int,
        gap: Callable[[int], str],
        on_error: Callable[[], None],
    ) -> None:
        self._file = file
        self._limit = limit
        self._gap = gap
        self._on_error = on_error
        self._encoding = file.encoding or "utf-8"
        self._waiting = bytearray()
        self._left_out = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._fd = self._find_descriptor()
        self.error: OSError | None = None
        """Why nothing can be written any more."""

    def write(self, line: str) -> None:
        """A line, without its end. Never waits and raises nothing; once closed, does nothing."""
        if self._closed:
            return
        data = self._encoded(line)
        if self._fd is None:
            self._write_through(data)
        elif not self._waiting or not self._is_too_much(data):
            self._put(data)
        else:
            self._left_out += 1

    async def drain(self) -> None:
        """Wait until all is written, or cannot be, or it is closed. May be cancelled."""
        await self._empty.wait()

    def close(self) -> None:
        """Write what can be without waiting, and forget the rest. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._fd is not None:
            poller = select.poll()
            poller.register(self._fd, select.POLLOUT)
            while self._waiting and poller.poll(0):
                self._write_some()
        self._end()

    # -- steps --------------------------------------------------------------------------

    def _find_descriptor(self) -> int | None:
        """That of the file, if the loop can wait for it."""
        self._file.flush()
        try:
            fd = self._file.fileno()
            self._loop.add_writer(fd, self._write_some)
        except (OSError, ValueError):
            return None  # a regular file, or none at all: a test's
        self._loop.remove_writer(fd)
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            # The end that is written to has nothing to read, but wakes up when the other closes.
            self._loop.add_reader(fd, self._look_for_reader, fd)
        return fd

    def _encoded(self, line: str) -> bytes:
        return f"{line}\n".encode(self._encoding, "replace")

    def _is_too_much(self, data: bytes) -> bool:
        """Beside what waits. Behind a line that is left out so are all: there is one gap."""
        return bool(self._left_out) or len(self._waiting) + len(data) > self._limit

    def _put(self, data: bytes) -> None:
        self._waiting += data
        if self._empty.is_set() and self._fd is not None:
            self._empty.clear()
            self._loop.add_writer(self._fd, self._write_some)

    def _write_through(self, data: bytes) -> None:
        try:
            self._file.buffer.write(data)
            self._file.flush()
        except OSError as exc:
            self._fail(exc)

    def _write_some(self) -> None:
        if self._fd is None:  # pragma: no cover - the loop was about to call
            return
        try:
            # What takes more at all takes so much without waiting.
            written = os.write(self._fd, self._waiting[: select.PIPE_BUF])
        except BlockingIOError:  # pragma: no cover - somebody made it so, and another was faster
            return
        except OSError as exc:
            self._fail(exc)
            return
        del self._waiting[:written]
        if not self._waiting and self._left_out:
            count, self._left_out = self._left_out, 0
            self._waiting += self._encoded(self._gap(count))
        elif not self._waiting:
            self._empty.set()
            self._loop.remove_writer(self._fd)

    def _look_for_reader(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, 0)
        if any(found & select.POLLERR for _, found in poller.poll(0)):
            self._fail(BrokenPipeError(errno.EPIPE, _READER_GONE))
        else:  # opened for both: what is in it is no sign
            self._loop.remove_reader(fd)

    def _fail(self, error: OSError) -> None:
        if self._closed:  # what is lost by it was not waited for
            self._waiting.clear()
            return
        self._closed = True
        self.error = error
        self._end()
        self._on_error()

    def _end(self) -> None:
        fd, self._fd = self._fd, None
        self._waiting.clear()
        self._empty.set()
        if fd is not None:
            self._loop.remove_writer(fd)
            self._loop.remove_reader(fd)
