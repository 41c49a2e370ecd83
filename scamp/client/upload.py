"""The body of a request that goes up piece by piece, as fast as the service takes it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from scamp.client.call import Call
from scamp.client.exchange import Exchange
from scamp.errors import ConnectionLost, IdleTimeout, LocalProtocolError
from scamp.transport import OutgoingMessage

log: logging.Logger = logging.getLogger("scamp.client")


async def upload_body(
    call: Call, exchange: Exchange, source: AsyncIterator[bytes], idle: float
) -> None:
    """Send a body piece by piece. Runs as a task; its failure becomes the exchange's. `idle` is the
    longest pause in seconds, either way."""
    request = exchange.request
    assert isinstance(request, OutgoingMessage)  # noqa: S101 - for the type checker
    call.touched = True  # before the first piece: waiting for it, too, may use the source up
    try:
        pieces = aiter(source)
        while (piece := await _next_piece(pieces, idle)) is not None:
            try:
                await request.write(piece, idle)
            except ConnectionLost as exc:
                exchange.fail(exc)  # when the connection has not done so itself
                return
        request.end()
        exchange.connection.request_ended(exchange)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Not this is cancelled but something that the source waits for.
        exchange.fail(LocalProtocolError("the source of the body was cancelled"))
        exchange.abandon()
    except Exception as exc:
        exchange.fail(exc)  # for whoever waits for the reply
        exchange.abandon()
    finally:
        await _close(source)


async def _next_piece(source: AsyncIterator[bytes], idle: float) -> bytes | None:
    """The next piece of a body, None at its end. Raises IdleTimeout after `idle` seconds."""
    limit = asyncio.timeout(idle)
    try:
        async with limit:
            return await anext(source, None)
    except TimeoutError as exc:
        if limit.expired():
            raise IdleTimeout(idle) from exc
        raise  # the source's own


async def _close(source: AsyncIterator[bytes]) -> None:
    """Let the source of a body clean up. Nobody waits any more for what it raises."""
    close = getattr(source, "aclose", None)
    if close is not None:
        try:
            await close()
        except Exception:
            log.exception("the source of a body failed in cleaning up")


async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
    """A body that is held, as one that streams."""
    yield body  # cut into windows, without a copy, where it is sent
