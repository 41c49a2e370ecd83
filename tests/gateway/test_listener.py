"""Listening, and ending it while another TLS context is being taken."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from gateway.listener import Listener, open_sockets
from gateway.setting_types import Address


async def unused(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError


async def test_a_reload_does_not_open_again_what_is_stopped_meanwhile() -> None:
    runner = web.ServerRunner(web.Server(unused))
    await runner.setup()
    listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)))
    await listener.start()
    reload = asyncio.create_task(listener.start())
    await asyncio.sleep(0)
    await listener.stop()
    await reload
    assert not listener.open
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", listener.port)
    await runner.cleanup()


async def test_a_start_that_is_cancelled_leaves_nothing_open() -> None:
    runner = web.ServerRunner(web.Server(unused))
    await runner.setup()
    for turns in range(6):
        listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)))
        starting = asyncio.create_task(listener.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled():
            assert not listener.open
        await listener.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)
    await runner.cleanup()
