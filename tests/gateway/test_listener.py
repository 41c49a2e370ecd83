"""Listening, and ending it while another TLS context is being taken."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from gateway.listener import Listener, open_sockets, tls_context
from gateway.setting_types import Address
from gateway.settings import Settings
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
