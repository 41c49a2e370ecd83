"""How a client that takes nothing is told from one that is slow."""

from __future__ import annotations

import asyncio
from asyncio.sslproto import _SSLProtocolTransport
from collections.abc import Iterator
from typing import Any, cast

from aiohttp import web

from gateway.clients import ClientLimits, Clients
from gateway.connection import Connection


class Buffer:
    """A transport whose write buffer has one size after another."""

    def __init__(self, sizes: Iterator[int]) -> None:
        self.sizes = sizes
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return next(self.sizes)

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True


class Loop:
    """A loop that runs the one timer at once when told to."""

    def __init__(self) -> None:
        self.timer: tuple[Any, ...] | None = None
        self.delays: list[float] = []
        self.cancelled = 0

    def call_later(self, delay: float, *call: Any) -> Loop:
        self.delays.append(delay)
        self.timer = call
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def run(self) -> None:
        call, self.timer = self.timer, None
        assert call is not None
        call[0](*call[1:])


def watched(*sizes: int, rate: float = 0.0) -> tuple[Connection, Buffer, Loop]:
    connection = Connection(
        web.Server(unused),
        idle=60.0,
        clients=Clients(ClientLimits(min_body_rate=rate)),
        loop=asyncio.get_running_loop(),
    )
    buffer, loop = Buffer(iter(sizes)), Loop()
    connection.transport = connection._wire = cast(asyncio.Transport, buffer)
    connection._loop = cast(asyncio.AbstractEventLoop, loop)
    connection.pause_writing()
    return connection, buffer, loop


async def unused(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError


async def test_a_client_that_took_something_gets_the_same_time_again() -> None:
    connection, buffer, loop = watched(100, 99, 50)
    loop.run()
    loop.run()
    assert loop.delays == [60.0, 60.0, 60.0]
    assert not buffer.aborted
    assert not connection.stalled


async def test_a_client_that_took_nothing_is_given_up() -> None:
    connection, buffer, loop = watched(100, 99, 99)
    loop.run()
    loop.run()
    assert loop.timer is None
    assert buffer.aborted
    assert connection.stalled
    assert connection._clients.timeouts == {"reader": 1}


async def test_a_client_has_to_take_as_much_as_the_rate_says_however_it_is_spread() -> None:
    connection, buffer, loop = watched(10_000, 9_400, 8_801, rate=10.0)
    loop.run()
    assert not buffer.aborted
    loop.run()
    assert buffer.aborted
    assert connection.stalled


async def test_the_last_bytes_may_be_fewer_than_the_rate_asks_for() -> None:
    _, buffer, loop = watched(10, 0, 0, rate=10.0)
    loop.run()
    assert not buffer.aborted


async def test_a_client_that_took_enough_is_not_watched_any_more() -> None:
    connection, buffer, loop = watched(100)
    connection.resume_writing()
    assert loop.cancelled == 1
    assert not buffer.aborted


async def test_what_was_closed_twice_has_nothing_to_send() -> None:
    """asyncio's transport for TLS has forgotten all then, and raises."""
    wire = _SSLProtocolTransport(asyncio.get_running_loop(), cast(Any, None))
    wire._closed = True
    wire.close()
    assert Connection._unsent(wire) == 0
