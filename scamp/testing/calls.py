"""What a mock mesh has received: kept in order, for the assertions at the end of a test."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from scamp.client import parse_action
from scamp.wire import RequestHeader

MAX_CALLS: Final = 10_000
"""Calls that a mesh remembers; above it the oldest are forgotten."""

MAX_CALL_BYTES: Final = 256 * 1024 * 1024
"""Bytes of bodies that a mesh remembers; above it the oldest calls are forgotten."""

MAX_FAILURES: Final = 100
"""Failed assertions that a mesh remembers."""


@dataclass(frozen=True, slots=True)
class MockCall:
    """One request that reached a mock, with its whole body.

    `action` is the registered spelling, `sector` the action's, `peer` the caller's HOST:PORT,
    `service` the name of the mock service that got it, `instance` counts its instances from 0.
    """

    action: str
    sector: str
    header: RequestHeader = field(repr=False)
    body: bytes
    service: str
    instance: int
    peer: str = field(repr=False)

    @property
    def json(self) -> Any:
        """The body decoded; an empty one is ``{}``. Raises ValueError when it is not JSON."""
        return orjson.loads(self.body) if self.body.strip() else {}

    @property
    def version(self) -> int:
        """The version of the action that was asked for."""
        return self.header.version

    @property
    def envelope(self) -> str:
        """The envelope of the request."""
        return self.header.envelope

    @property
    def ticket(self) -> str | None:
        """The ticket as it came; None without one."""
        return self.header.ticket

    @property
    def client_id(self) -> int | None:
        """The ``client_id`` of the request; None without one."""
        return self.header.client_id


@dataclass(frozen=True, slots=True)
class UnexpectedCall:
    """A request for what no test registered, and how it was refused.

    `action` has the form ``Namespace.name``, after ``SECTOR:`` when it was looked up, not sent.
    """

    action: str
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which calls ``[SECTOR:]Namespace.name[~VERSION]`` means; any sector and version if left out.

    `parse` raises ValueError for what is no action.
    """

    sector: str | None
    action: str
    version: int | None

    @classmethod
    def parse(cls, text: str) -> CallFilter:
        """From the text."""
        sector, action, version = parse_action(text)
        return cls(
            sector.lower() if ":" in text else None,
            action.lower(),
            version if "~" in text else None,
        )

    def fits(self, sector: str, action: str, version: int) -> bool:
        """Whether this sector, spelling and version are meant; names are compared without case."""
        return (
            action.lower() == self.action
            and self.sector in (None, sector.lower())
            and self.version in (None, version)
        )


class Recorder:
    """The calls of one mesh, the newest `max_calls` of them and at most `max_bytes` of bodies."""

    def __init__(self, max_calls: int = MAX_CALLS, max_bytes: int = MAX_CALL_BYTES) -> None:
        self._calls: deque[MockCall] = deque()
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._bytes = 0
        self._moved = asyncio.Event()
        self.unexpected: deque[UnexpectedCall] = deque(maxlen=max_calls)
        self.failures: list[BaseException] = []
        """Assertions that failed in handlers of mocks; at most MAX_FAILURES."""
        self.forgotten: int = 0
        """Calls that are no longer remembered, because there were too many."""

    def add(self, call: MockCall) -> None:
        """A request has come, with all of its body."""
        self._calls.append(call)
        self._bytes += len(call.body)
        while len(self._calls) > self._max_calls or self._bytes > self._max_bytes:
            self._bytes -= len(self._calls.popleft().body)
            self.forgotten += 1
        self._moved.set()

    def failed(self, failure: BaseException) -> None:
        """An assertion of the test has failed where the test does not see it."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(failure)

    def calls(self, wanted: CallFilter | None = None) -> list[MockCall]:
        """Those that are wanted, oldest first."""
        return [
            call
            for call in self._calls
            if wanted is None or wanted.fits(call.sector, call.action, call.version)
        ]

    def clear(self) -> None:
        """Forget everything."""
        self._calls.clear()
        self.unexpected.clear()
        self._bytes = 0

    async def until(self, condition: Callable[[], object], timeout: float) -> None:
        """Wait until `condition` holds; it is looked at whenever a call has come.

        Raises TimeoutError after `timeout` seconds. Safe to cancel.
        """
        async with asyncio.timeout(timeout):
            while not condition():
                self._moved.clear()
                await self._moved.wait()
