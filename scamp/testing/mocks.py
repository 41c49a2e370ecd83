"""Actions that answer as a test says, on a service that is real in all else."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Final, Protocol, TypeAlias, TypedDict, Unpack

import orjson

from scamp.discovery import Action
from scamp.errors import ConfigError, ServiceError
from scamp.server import Request
from scamp.server.actions import ActionTable, ServedAction
from scamp.testing.calls import MockCall, Recorder, UnexpectedCall
from scamp.wire import RequestHeader

MockHandler: TypeAlias = Callable[[MockCall], object]
"""A function or coroutine function; what it returns is the reply, as with `Answer.returns`."""

MAX_ONCE: Final = 10_000
"""Answers that one action may have waiting for their turn."""

_ENDLESS: Final = 1e9  # a service's own limit, in seconds: mocks answer late when they are told to
_OUTCOMES: Final = ("raises", "handler", "never", "txerr", "lose_connection")


class AnswerFields(TypedDict, total=False):
    """What can be said of an answer; see `Answer`."""

    returns: object
    raises: Exception | None
    handler: MockHandler | None
    delay: float
    never: bool
    txerr: str | None
    lose_connection: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a call. One outcome at most; without any the reply is ``{}``.

    Raises ConfigError when two outcomes are given, or a TXERR without a text.
    """

    returns: object = dataclasses.field(default_factory=dict)
    """The reply's body: bytes as they are, an async iterator of bytes piece by piece, all else
    as JSON."""
    raises: Exception | None = None
    """A `ServiceError` becomes an error reply; any other a reply with the code ``internal``."""
    handler: MockHandler | None = None
    """Called with the `MockCall`; what it returns or raises counts. An assertion that fails in it
    is also raised at the end of the mesh, for the caller sees nothing but ``internal``."""
    delay: float = 0.0
    """Seconds before anything happens."""
    never: bool = False
    """No reply, for as long as the caller cares to wait."""
    txerr: str | None = None
    """The reply breaks off with this text, after the bytes of `returns` if those are given."""
    lose_connection: bool = False
    """The caller's connection is cut instead."""

    def __post_init__(self) -> None:
        given = [name for name in _OUTCOMES if getattr(self, name) not in (None, False)]
        if len(given) > 1:
            raise ConfigError(f"an action cannot have both {given[0]} and {given[1]}")
        if self.txerr in ("", "0"):
            raise ConfigError("txerr needs a text")


class Place(Protocol):
    """The instance that a request has come to."""

    @property
    def service_name(self) -> str:
        """Of the mock service."""

    @property
    def number(self) -> int:
        """Of the instance within it, from 0."""

    def cut(self, peer: str | None = None) -> None:
        """Cut the connection of the caller at this address."""


class MockAction:
    """One registered action; made by `MockMesh.action`."""

    def __init__(self, action: Action, recorder: Recorder, **answer: Unpack[AnswerFields]) -> None:
        self.action = action
        """As announced."""
        self._recorder = recorder
        self._answer = Answer(**answer)
        self._next: deque[Answer] = deque()

    def once(self, **answer: Unpack[AnswerFields]) -> MockAction:
        """Answer the next call so, and only that; calls of `once` queue up. Returns the action.

        ``mesh.action("A.b", returns=1).once(raises=ServiceError("busy"))`` fails the first time.
        Raises ConfigError like `Answer`, and for more than `MAX_ONCE` in the queue.
        """
        if len(self._next) >= MAX_ONCE:
            raise ConfigError(f"{self.action.spelling}: more than {MAX_ONCE} answers in the queue")
        self._next.append(Answer(**answer))
        return self

    def then(self, **answer: Unpack[AnswerFields]) -> MockAction:
        """Answer so from now on, once the queue of `once` is empty. Returns the action."""
        self._answer = Answer(**answer)
        return self

    async def serve(self, place: Place, request: Request) -> object:
        """Answer one request; called by the service."""
        call = MockCall(
            action=self.action.spelling,
            sector=self.action.sector,
            header=request.header,
            body=await request.read_all(),
            service=place.service_name,
            instance=place.number,
            peer=request.peer,
        )
        answer = self._next.popleft() if self._next else self._answer
        self._recorder.add(call)
        if answer.delay > 0:
            await asyncio.sleep(answer.delay)
        try:
            return await _play(answer, call, place)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # `pytest.fail` raises one that is no Exception
            if isinstance(exc, Exception) and not isinstance(exc, AssertionError):
                raise
            self._recorder.failed(exc)
            raise AssertionError(str(exc)) from exc


async def _play(answer: Answer, call: MockCall, place: Place) -> object:
    if answer.raises is not None:
        raise answer.raises.with_traceback(None)
    if answer.handler is not None:
        result = answer.handler(call)
        return await result if isawaitable(result) else result
    if answer.lose_connection:
        place.cut(call.peer)
    if answer.never or answer.lose_connection:
        await asyncio.get_running_loop().create_future()  # until the connection ends
    if answer.txerr is not None:
        return _breaking_off(_first_bytes(answer.returns), answer.txerr)
    return answer.returns


def _first_bytes(result: object) -> bytes:
    if isinstance(result, bytes):
        return result
    return orjson.dumps(result) if result != {} else b""


async def _breaking_off(first: bytes, text: str) -> AsyncIterator[bytes]:
    yield first  # opens the reply even if it is empty
    raise ServiceError("", text)


class MockTable(ActionTable):
    """Actions of a mock service: may change while it runs; what it lacks is noted."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def replace(self, action: Action, handler: Callable[[Request], Awaitable[object]]) -> None:
        """Register an action, in place of one with this name and version."""
        self._served.pop((action.spelling.lower(), action.version), None)
        self.add(action, handler, _ENDLESS)

    def find(self, header: RequestHeader) -> ServedAction:
        """As every service does. The action's own limit is left to the caller to keep."""
        try:
            served = super().find(header)
        except ServiceError as exc:
            self._recorder.unexpected.append(
                UnexpectedCall(header.action, header.version, exc.message)
            )
            raise
        return dataclasses.replace(served, timeout=_ENDLESS)
