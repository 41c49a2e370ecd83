"""Listening, and ending it while another TLS context is being taken."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from gateway.listener import Listener, Sockets, open_for_workers, open_sockets
from gateway.setting_types import Address
from gateway.settings import Settings
from scamp.errors import ConfigError


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


@pytest.mark.parametrize("host", ["127.0.0.1", None])
def test_each_worker_has_a_socket_of_its_own_on_every_address(host: str | None) -> None:
    settings = Settings(bind=Address(host, 0), admin_bind=Address("127.0.0.1", 0), workers=3)
    sockets = Sockets.opened(settings)
    try:
        parts = [sockets.part(index, 3) for index in range(3)]
        assert len({sock.getsockname()[1] for sock in sockets.public}) == 1
        assert sorted(id(sock) for part in parts for sock in part.public) == sorted(
            map(id, sockets.public)
        )
        addresses = [[sock.getsockname()[0] for sock in part.public] for part in parts]
        assert addresses == [addresses[0]] * 3
        assert all(part.admin == sockets.admin for part in parts)
    finally:
        sockets.close()


@pytest.mark.parametrize(("there", "workers"), [(1, 2), (3, 2), (2, 2), (2, 5)])
def test_sockets_of_any_number_all_have_somebody_who_accepts(there: int, workers: int) -> None:
    public = open_for_workers(Address("127.0.0.1", 0), there)
    sockets = Sockets(public, [])
    try:
        parts = [sockets.part(index, workers).public for index in range(workers)]
        assert {id(sock) for part in parts for sock in part} == set(map(id, public))
        assert all(parts)
    finally:
        sockets.close()


def test_a_port_that_is_taken_is_not_shared() -> None:
    taken = open_for_workers(Address("127.0.0.1", 0), 2)
    try:
        for sock in taken:
            sock.listen()
        with pytest.raises(ConfigError, match="Address already in use"):
            open_for_workers(Address("127.0.0.1", taken[0].getsockname()[1]), 2)
    finally:
        for sock in taken:
            sock.close()
