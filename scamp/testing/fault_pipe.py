"""One direction of a connection through a `FaultProxy`: bytes in, the same bytes out, unless told
otherwise."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

CHUNK: Final = 64 * 1024
"""Bytes that are taken at once."""

MAX_HELD: Final = 1024 * 1024
"""Bytes that a pipe holds, late or not taken by the other side; it takes no more until some have
gone. A link of 1 s then still carries 1 MiB/s."""

_SLICES: Final = 50
"""Into so many pieces a second goes what is limited by a rate: small enough to look even."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a direction is like. Without arguments: as if there were no proxy."""

    delay: float = 0.0
    """Seconds from when bytes come to when they go on. Order is kept: what is on its way when this
    is changed is not overtaken."""
    rate: float | None = None
    """Bytes per second; None is no limit."""
    stalled: bool = False
    """Nothing is taken and nothing goes on, until that is changed: then it goes on where it was."""
    drops: bool = False
    """All that comes is thrown away, and so is the news that the connection has ended: a black
    hole. It is for good once a byte is lost: no stream goes on with a hole in it."""

    def __post_init__(self) -> None:
        if self.delay < 0 or (self.rate is not None and self.rate <= 0):
            raise ValueError("delay from 0 upwards, rate above 0")


class Ends(Protocol):
    """What a pipe tells the connection that it belongs to."""

    def reset(self) -> None:
        """Both sides are to see a reset."""

    def close(self) -> None:
        """Both sides are to see an end."""

    def pipe_ended(self) -> None:
        """One pipe has nothing more to do."""


_END: Final = b""
_RESET: Final = None
_Item = memoryview | bytes | None


class Pipe:
    """Carries bytes from one socket to another. Made by `ProxyConnection`."""

    def __init__(
        self,
        owner: Ends,
        source: socket.socket,
        sink: socket.socket,
        carried: Callable[[int], None],
    ) -> None:
        """`carried` is told of bytes that went on."""
        self._owner = owner
        self._source = source
        self._sink = sink
        self._carried = carried
        self._loop = asyncio.get_running_loop()
        self._link = Link()
        self._queue: deque[tuple[float, _Item]] = deque()
        self._held = 0
        self._due = 0.0  # of what came last
        self._free_at = 0.0  # when the rate allows for more
        self._timer: asyncio.TimerHandle | None = None
        self._reading = self._writing = self._blocked = False
        self.started: bool = False
        self._stopped = False
        self._source_open = self._sink_open = True
        self._left: int | None = None
        self._cut_by_reset = False
        self._opposite: Pipe | None = None
        self.forwarded: int = 0
        """Bytes that went on."""
        self.dropped: int = 0
        """Bytes that were thrown away."""

    # -- what tests do ------------------------------------------------------------------

    @property
    def link(self) -> Link:
        """What the direction is like; replace it at any time."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self._advance()

    def cut_after(self, size: int, *, reset: bool = False) -> None:
        """Let `size` more bytes through, then end the whole connection, mid-packet or not.

        Both sides see its end, or a reset.
        """
        self._left, self._cut_by_reset = size, reset
        if not size:
            self._cut()

    def end(self) -> None:
        """End this direction only: the receiver sees the end after what it has been given, and what
        its sender still sends is thrown away. The other direction goes on."""
        if self._stopped or not self._sink_open:
            return
        self._close_sink()
        self._advance()

    @property
    def ended(self) -> bool:
        """True when nothing more will come of it."""
        return self._stopped or (not self._source_open and not self._queue)

    # -- for the connection -------------------------------------------------------------

    def start(self, opposite: Pipe | None) -> None:
        """Begin. Without an `opposite`, and so without a receiver, all is thrown away."""
        self._opposite = opposite
        self.started = True
        self._sink_open = self._sink_open and opposite is not None
        self._advance()

    def stop(self) -> None:
        """Leave the sockets alone from now on; whoever has them closes them."""
        self._stopped = True
        self._queue.clear()
        self._held = 0
        self._watch()
        self._wake_at(None)

    def source_failed(self) -> None:
        """The sender has reset the connection: pass that on, after what it had sent."""
        if not self._stopped:
            self._take(_RESET)

    # -- in -----------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data = self._source.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._take(_RESET)
        else:
            self._take(memoryview(data) if data else _END)

    def _take(self, item: _Item) -> None:
        if item:
            self._held += len(item)
        else:
            self._source_open = False
        self._due = max(self._due, self._loop.time() + self._link.delay)
        self._queue.append((self._due, item))
        self._advance()

    # -- out ----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let everything go on that may; then wait for what comes next."""
        if self._stopped or not self.started:
            return
        wait = self._forward_due()
        if self._stopped:
            return
        self._wake_at(wait)
        self._watch()
        if self.ended:
            self._owner.pipe_ended()

    def _forward_due(self) -> float | None:
        """Returns when to be called again, None when something else will tell."""
        while self._queue and not self._link.stalled and not self._stopped:
            due, item = self._queue[0]
            at = max(due, self._free_at)
            if at > self._loop.time():
                self._blocked = False
                return at
            if not item:
                self._queue.popleft()
                self._pass_end(item)
            elif self._lost:
                self._queue.popleft()
                self._held -= len(item)
                self.dropped += len(item)
            elif not self._send(due, memoryview(item)):
                self._blocked = True
                return None
        self._blocked = False
        return None

    @property
    def _lost(self) -> bool:
        return self._link.drops or self.dropped > 0 or not self._sink_open

    def _send(self, due: float, data: memoryview) -> bool:
        """Send some of what is first in the queue. False when the receiver takes nothing now."""
        rate = self._link.rate
        size = len(data)
        if rate is not None:
            size = min(size, max(1, int(rate / _SLICES)))
        if self._left is not None:
            size = min(size, self._left)
        try:
            sent = self._sink.send(data[:size])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._sink_open = False
            if self._opposite is not None:
                self._opposite.source_failed()
            return True
        self._held -= sent
        if sent < len(data):
            self._queue[0] = (due, data[sent:])
        else:
            self._queue.popleft()
        self.forwarded += sent
        self._carried(sent)
        if rate is not None:
            self._free_at = self._loop.time() + sent / rate
        if self._left is not None:
            self._left -= sent
            if not self._left:
                self._cut()
        return True

    def _cut(self) -> None:
        if self._cut_by_reset:
            self._owner.reset()
        else:
            self._owner.close()

    def _pass_end(self, item: _Item) -> None:
        if self._link.drops or self.dropped:
            return
        if item is _RESET:
            self._owner.reset()
        elif self._sink_open:
            self._close_sink()

    def _close_sink(self) -> None:
        self._sink_open = False
        with suppress(OSError):  # it has gone already
            self._sink.shutdown(socket.SHUT_WR)

    # -- waiting ------------------------------------------------------------------------

    def _wake_at(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = self._loop.call_at(at, self._advance)

    def _watch(self) -> None:
        """Have the loop tell what is worth to know."""
        going = not self._stopped and not self._link.stalled
        reading = going and self._source_open and self._held < MAX_HELD
        if reading and not self._reading:
            self._loop.add_reader(self._source, self._on_readable)
        elif self._reading and not reading:
            self._loop.remove_reader(self._source)
        writing = going and self._blocked
        if writing and not self._writing:
            self._loop.add_writer(self._sink, self._advance)
        elif self._writing and not writing:
            self._loop.remove_writer(self._sink)
        self._reading, self._writing = reading, writing
