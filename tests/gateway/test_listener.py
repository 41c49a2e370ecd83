"""Listening, and ending it while another TLS context is being taken."""

from __future__ import annotations

import asyncio
import contextlib
import socket

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


@pytest.mark.parametrize("rest", [True, False])
async def test_what_waits_to_be_accepted_is_served_when_it_is_wanted(rest: bool) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="served")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)))
    await listener.start()
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(20):  # without a turn of the loop, in which it would accept them
            client = stack.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.setblocking(False)
            clients.append(client)
        await listener.stop(serve_rest=rest)
        loop = asyncio.get_running_loop()
        answered = [await answer_of(loop, client) for client in clients]
    assert answered == [rest] * 20
    await runner.cleanup()


async def answer_of(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bool:
    try:
        return b"served" in await loop.sock_recv(client, 1000)
    except ConnectionResetError:
        return False
