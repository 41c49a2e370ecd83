"""Listening, and ending it while another TLS context is being taken."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from gateway.listener import (
    Listener,
    Sockets,
    _accept_rest,
    open_for_workers,
    open_sockets,
    tls_context,
)
from gateway.setting_types import Address
from gateway.settings import Settings
from gateway.takeover import acquire
from scamp.errors import ConfigError
from scamp.testing import make_identity


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


def test_a_client_cannot_ask_for_a_new_handshake(tmp_path: Path) -> None:
    identity = make_identity(1)
    files = {"tls_certificate": tmp_path / "certificate", "tls_key": tmp_path / "key"}
    files["tls_certificate"].write_bytes(identity.certificate)
    files["tls_key"].write_bytes(identity.key)
    context = tls_context(Settings.model_validate(files))
    assert context is not None
    assert context.options & ssl.OP_NO_RENEGOTIATION


async def test_what_cannot_listen_leaves_no_socket_behind() -> None:
    """The port is another's, from between binding and listening."""
    runner = web.ServerRunner(web.Server(unused))
    await runner.setup()
    (other,) = open_sockets(Address("127.0.0.1", 0))
    listener = Listener(runner, open_sockets(Address("127.0.0.1", other.getsockname()[1])))
    other.listen()
    with pytest.raises(ConfigError, match="cannot listen on"):
        await listener.start()
    await listener.close()
    other.close()
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


async def test_who_comes_at_the_last_moment_is_refused_and_not_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing can have been sent then, so it may go elsewhere with anything."""
    accept_rest = _accept_rest
    client = socket.socket()
    client.setblocking(False)

    def come_late(sock: socket.socket) -> list[tuple[socket.socket, str]]:
        found = accept_rest(sock)
        client.connect_ex(("127.0.0.1", listener.port))
        return found

    monkeypatch.setattr("gateway.listener._accept_rest", come_late)
    runner = web.ServerRunner(web.Server(unused))
    await runner.setup()
    listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)), own=True)
    await listener.start()
    await listener.stop(serve_rest=True)
    decided = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_writer(client, decided.set)
    with client:
        await decided.wait()
        loop.remove_writer(client)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    await runner.cleanup()


def test_only_sockets_that_were_opened_here_are_closed_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What systemd or another gateway passes has to take connections after us."""
    settings = Settings(bind="127.0.0.1:0", admin_bind="127.0.0.1:0")
    opened = acquire(settings)
    assert opened.sockets.own
    assert opened.sockets.part(0, 1).own
    passed = opened.sockets.public
    monkeypatch.setattr("gateway.takeover.passed_sockets", lambda: {"public": passed})
    found = acquire(settings)
    assert not found.sockets.own
    found.close()
    opened.close()


async def test_what_may_be_passed_on_is_never_made_deaf(tmp_path: Path) -> None:
    """Who takes over serves on alone, also if the old one was told to stop meanwhile."""
    settings = Settings(
        bind="127.0.0.1:0", admin_bind="127.0.0.1:0", takeover_socket=tmp_path / "takeover"
    )
    sockets = Sockets.opened(settings)
    assert not sockets.own
    passed_on = [one.dup() for one in sockets.public]
    runner = web.ServerRunner(web.Server(unused))
    await runner.setup()
    listener = Listener(runner, sockets.public, own=sockets.own)
    await listener.start()
    await listener.stop(serve_rest=True)
    _, writer = await asyncio.open_connection(*passed_on[0].getsockname())
    writer.close()
    await writer.wait_closed()
    for one in (*passed_on, *sockets.admin):
        one.close()
    await runner.cleanup()


async def answer_of(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bool:
    try:
        return b"served" in await loop.sock_recv(client, 1000)
    except ConnectionResetError:
        return False


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


@pytest.mark.parametrize(("there", "workers"), [(1, 2), (3, 2), (2, 2), (2, 5), (4, 1)])
def test_sockets_of_any_number_all_have_somebody_who_accepts(there: int, workers: int) -> None:
    public = open_for_workers(Address("127.0.0.1", 0), there)
    sockets = Sockets(public, [])
    try:
        parts = [sockets.part(index, workers) for index in range(workers)]
        assert {id(sock) for part in parts for sock in part.public} == set(map(id, public))
        numbers = {(len(part.public), part.crowded) for part in parts}
        each, shared = divmod(there, workers)
        assert numbers == {(each + shared, shared > 0)}, "an even share of each"
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
