"""Sending what a handler made: bytes, JSON or a stream, and errors at every stage of that."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from decimal import Decimal
from typing import TypeVar

import orjson

from scamp.errors import (
    IdleTimeout,
    LocalProtocolError,
    ScampError,
    ServiceError,
    TransportError,
)
from scamp.limits import BODY_IDLE, MAX_FAILURE_TEXT
from scamp.transport import Channel, OutgoingMessage, SentMessage
from scamp.wire import EncodedHeader, ReplyHeader, RequestId, encode_header

log: logging.Logger = logging.getLogger("scamp.server")

_ERROR_BODY = b"{}"
"""The body of an error. Some clients decode the body before they look at the header, and an empty
one is not JSON: it would hide the error."""

_T = TypeVar("_T")

INTERNAL = "the service failed; its log says why"


def being_cancelled() -> bool:
    """Whether somebody cancelled the current task, and not just what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """The result of a handler's `work`, or ServiceError ``timeout`` after `seconds`.

    A TimeoutError of the handler's own making passes through as what it is: a failure of its. So
    does a CancelledError that nobody asked for, such as that of a task which the handler waited
    for; it comes as RuntimeError.
    """
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await work
    except asyncio.CancelledError as exc:
        if being_cancelled():
            raise
        raise RuntimeError("what the handler waited for was cancelled") from exc
    except TimeoutError:
        if scope.expired():
            raise ServiceError("timeout", f"the action took longer than {seconds:g} s") from None
        raise


def _plain(value: object) -> object:
    """What orjson does not know and a typed reply may hold: models of pydantic, sets, decimals,
    named tuples.

    Raises TypeError for all else.
    """
    known = isinstance(value, set | frozenset | Decimal | tuple)
    if not known and not hasattr(type(value), "__pydantic_serializer__"):
        raise TypeError(f"{type(value).__name__} is not JSON")
    from pydantic_core import to_jsonable_python  # rarely needed

    return to_jsonable_python(value, by_alias=True)


def _dumps(result: object) -> bytes:
    try:
        return orjson.dumps(result, default=_plain)
    except orjson.JSONEncodeError:  # perhaps for keys such as those of ``dict[int, str]``
        return orjson.dumps(result, default=_plain, option=orjson.OPT_NON_STR_KEYS)


class Reply:
    """The one reply to one request. Nothing is sent before the first byte of a body is there."""

    def __init__(self, channel: Channel, request_id: RequestId | None) -> None:
        self._channel = channel
        self._request_id = request_id
        self._message: OutgoingMessage | SentMessage | None = None

    @property
    def started(self) -> bool:
        """True when a HEADER is out: an error can then only be a TXERR."""
        return self._message is not None

    @property
    def finished(self) -> bool:
        """True after EOF or TXERR."""
        return self._message is not None and self._message.closed

    async def send(self, result: object, timeout: float) -> None:
        """Send a handler's result; `timeout` is the longest wait for one piece of a stream.

        Raises ConnectionLost, IdleTimeout when the peer takes nothing for BODY_IDLE seconds,
        ServiceError ``timeout``, TypeError for what is not JSON, and whatever a stream raises.
        When cancelled, the reply can only be failed.
        """
        if isinstance(result, AsyncIterable):
            await self._send_stream(aiter(result), timeout)
            return
        if isinstance(result, bytes | bytearray | memoryview):
            body = bytes(result)
        else:
            body = _dumps(result)
        await self._send_whole(ReplyHeader(self._request_id), body)

    async def _send_whole(self, header: ReplyHeader | EncodedHeader, body: bytes) -> None:
        if self._channel.takes(len(body)):
            self._message = self._channel.send_whole(header, body)
            return
        self._message = message = self._channel.open_message(header)
        await message.write(body, BODY_IDLE)
        message.end()

    async def _send_stream(self, pieces: AsyncIterator[object], timeout: float) -> None:
        message: OutgoingMessage | None = None
        try:
            while True:
                try:
                    piece = await within(timeout, anext(pieces))
                except StopAsyncIteration:
                    break
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise TypeError(f"a stream gives bytes, not {type(piece).__name__}")
                if message is None:
                    message = self._open()
                await message.write(bytes(piece), BODY_IDLE)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        if message is None:
            message = self._open()
        message.end()

    def _open(self) -> OutgoingMessage:
        self._message = message = self._channel.open_message(ReplyHeader(self._request_id))
        return message

    async def send_error(self, error: ServiceError) -> None:
        """Say that the action failed: an error reply, or TXERR when the body has begun.

        Never raises for a lost connection: there is nobody left to tell.
        """
        if self._message is not None:
            self.fail(str(error) or INTERNAL)
            return
        try:
            header = encode_header(self._error_header(error))
        except LocalProtocolError as exc:
            log.error("error %r cannot be sent: %s", str(error.code)[:64], exc)
            header = encode_header(
                ReplyHeader(self._request_id, error=INTERNAL, error_code="internal")
            )
        try:
            await self._send_whole(header, _ERROR_BODY)
        except IdleTimeout as exc:
            self.fail(str(exc))
        except TransportError:
            return

    def send_error_nowait(self, error: ServiceError) -> None:
        """As `send_error`, for when nothing may be awaited; the body is left out if need be."""
        if self._message is not None:
            self.fail(str(error) or INTERNAL)
            return
        with contextlib.suppress(ScampError):
            self._message = message = self._channel.open_message(self._error_header(error))
            message.write_nowait(_ERROR_BODY)
            message.end()

    def fail(self, text: str) -> None:
        """TXERR: whatever was sent is not an answer. Opens the reply if it must."""
        text = text[:MAX_FAILURE_TEXT]  # some of it may be the peer's, and a HEADER has an end
        with contextlib.suppress(ScampError):
            if self._message is None:
                header = ReplyHeader(self._request_id, error=text, error_code="aborted")
                self._message = self._channel.open_message(header)
            self._message.fail(text if text not in ("", "0") else INTERNAL)

    def _error_header(self, error: ServiceError) -> ReplyHeader:
        """Raises LocalProtocolError when the error's data are no JSON object."""
        if error.data is not None and not isinstance(error.data, dict):
            raise LocalProtocolError(f"its data are a {type(error.data).__name__} and no dict")
        # Some clients look at error_code alone, some at error alone: neither is ever empty. A code
        # such as 404 and an exception as the message are told, whatever the annotations say.
        code = str(error.code or "error")
        return ReplyHeader(
            self._request_id,
            error=str(error.message or code),
            error_code=code,
            error_data=error.data,
        )
