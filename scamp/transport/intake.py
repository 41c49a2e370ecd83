"""Whole messages, in the order in which they were begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from scamp.errors import LocalProtocolError, RemoteProtocolError, ScampError
from scamp.limits import MESSAGE_COST
from scamp.transport.message import IncomingMessage

Deliver: TypeAlias = Callable[[IncomingMessage, bytes | ScampError], None]


class _Entry:
    __slots__ = ("body", "cost", "message", "result")

    def __init__(self, message: IncomingMessage) -> None:
        self.message = message
        self.body = bytearray()
        self.cost = MESSAGE_COST
        self.result: bytes | ScampError | None = None


class Intake:
    """Collects bodies as they come and delivers them in the order of their HEADERs.

    Messages of one connection interleave, and a short one overtakes a long one that waits for its
    window. Who cares for order, as with events, puts them through here.

    `deliver` gets each message with its body, or with what is wrong with it: TXERR, a lost
    connection, or LocalProtocolError for a body above `limit` bytes, whose rest is discarded. More
    than `total` bytes held, MESSAGE_COST for each message included, call `overflow`, once; then
    nothing more is delivered. Runs in callbacks, without a task.
    """

    __slots__ = ("_deliver", "_entries", "_held", "_limit", "_overflow", "_stopped", "_total")

    def __init__(
        self, deliver: Deliver, overflow: Callable[[], None], *, limit: int, total: int
    ) -> None:
        self._deliver = deliver
        self._overflow = overflow
        self._limit = limit
        self._total = total
        self._entries: deque[_Entry] = deque()
        self._held = 0
        self._stopped = False

    @property
    def held(self) -> int:
        """Bytes held now, MESSAGE_COST for each message included."""
        return self._held

    def stop(self) -> None:
        """Deliver nothing more, and let go of what is held."""
        self._stopped = True
        self._entries.clear()
        self._held = 0

    def add(self, message: IncomingMessage) -> None:
        """Take a message whose HEADER has just come."""
        if self._stopped:
            return
        entry = _Entry(message)
        self._entries.append(entry)
        self._held += entry.cost
        message.when_ready(lambda: self._on_ready(entry))
        self._check_total()

    def _on_ready(self, entry: _Entry) -> None:
        message = entry.message
        if self._stopped or entry.result is not None:
            return
        data = message.read_nowait()
        entry.body += data
        entry.cost += len(data)
        self._held += len(data)
        if entry.cost - MESSAGE_COST > self._limit:
            self._end(entry, LocalProtocolError(f"body longer than {self._limit} bytes"))
            message.discard(self._total, self._overflow_once)
        elif message.error is not None:
            self._end(entry, message.error)
        elif message.ended:
            self._end(entry, bytes(entry.body))
        else:
            message.when_ready(lambda: self._on_ready(entry))
        self._check_total()

    def _end(self, entry: _Entry, result: bytes | ScampError) -> None:
        entry.result = result
        entry.body = bytearray()
        if not isinstance(result, bytes):
            self._held -= entry.cost - MESSAGE_COST
            entry.cost = MESSAGE_COST
        while not self._stopped and self._entries and self._entries[0].result is not None:
            first = self._entries.popleft()
            self._held -= first.cost
            assert first.result is not None  # noqa: S101 - for the type checker
            self._deliver(first.message, first.result)

    def _check_total(self) -> None:
        if self._held > self._total:
            self._overflow_once()

    def _overflow_once(self) -> None:
        if not self._stopped:
            self.stop()
            self._overflow()


def whole(body: bytes | ScampError) -> bytes:
    """A delivered body. Raises RemoteProtocolError for what is wrong with it instead."""
    if isinstance(body, bytes):
        return body
    raise RemoteProtocolError(str(body))
