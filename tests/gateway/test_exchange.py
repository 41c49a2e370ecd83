"""How a client that takes nothing is told from one that is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.exchange import Exchange, Serving
from gateway.metrics import ActionSeries


class Buffer:
    """A transport whose write buffer has one size after another."""

    def __init__(self, sizes: Iterator[int]) -> None:
        self.sizes = sizes
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return next(self.sizes)

    def abort(self) -> None:
        self.aborted = True


class Loop:
    """A loop that runs the one timer at once when told to."""

    def __init__(self) -> None:
        self.timer: tuple[Any, ...] | None = None
        self.delays: list[float] = []

    def call_later(self, delay: float, *call: Any) -> None:
        self.delays.append(delay)
        self.timer = call

    def run(self) -> None:
        call, self.timer = self.timer, None
        assert call is not None
        call[0](*call[1:])


def watched(*sizes: int) -> tuple[Exchange, Buffer, Loop]:
    request = cast(web.BaseRequest, make_mocked_request("POST", "/"))
    exchange = Exchange(request, Serving(60.0), ActionSeries("_none"), 0.0, 0.0)
    buffer, loop = Buffer(iter(sizes)), Loop()
    exchange._watch(cast(asyncio.AbstractEventLoop, loop), cast(asyncio.Transport, buffer), None)
    return exchange, buffer, loop


async def test_a_client_that_took_something_gets_the_same_time_again() -> None:
    exchange, buffer, loop = watched(100, 99, 50)
    loop.run()
    loop.run()
    assert loop.delays == [60.0, 60.0, 60.0]
    assert not buffer.aborted
    assert exchange.cause is None


async def test_a_client_that_took_nothing_is_given_up() -> None:
    exchange, buffer, loop = watched(100, 99, 99)
    loop.run()
    loop.run()
    assert loop.timer is None
    assert buffer.aborted
    assert exchange.cause == "client_stalled"
