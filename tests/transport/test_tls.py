"""Contexts: which peers can be talked to, and how a certificate is known."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization

from scamp import keys
from scamp.errors import ConfigError
from scamp.testing import make_identity
from scamp.transport import (
    client_context,
    offering,
    peer_fingerprint,
    resumable_session,
    server_context,
)

OLD_GO = "AES128-GCM-SHA256"


async def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Connect once; the fingerprint that the client sees."""
    listener = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", 0, ssl=server)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        seen = peer_fingerprint(writer.get_extra_info("ssl_object"))
        writer.close()
        await writer.wait_closed()
    return seen


def test_key_and_certificate_must_belong_together() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        server_context(make_identity(0).certificate, make_identity(1).key)


def test_rubbish_is_no_certificate() -> None:
    with pytest.raises(ConfigError):
        server_context(b"rubbish", b"rubbish")


def test_an_encrypted_key_is_refused_and_no_terminal_is_asked_for_its_password() -> None:
    identity = make_identity()
    plain = serialization.load_pem_private_key(identity.key, None)
    encrypted = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    code = (
        "from scamp.errors import ConfigError\n"
        "from scamp.transport import server_context\n"
        f"try: server_context({identity.certificate!r}, {encrypted!r})\n"
        "except ConfigError: print('refused')\n"
    )
    terminal, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=theirs,
            capture_output=True,
            timeout=30,
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert done.stdout == b"refused\n"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_show_the_announced_fingerprint(
    version: ssl.TLSVersion,
) -> None:
    identity = make_identity()
    server = server_context(identity.certificate, identity.key)
    server.minimum_version = server.maximum_version = version
    seen = await shake_hands(server, client_context())
    assert seen == identity.fingerprint == keys.fingerprint(identity.certificate)


def test_no_certificate_gives_no_fingerprint() -> None:
    assert peer_fingerprint(None) == ""


def old_go_server() -> ssl.SSLContext:
    identity = make_identity()
    context = server_context(identity.certificate, identity.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{OLD_GO}:@SECLEVEL=0")
    return context


async def test_a_server_with_rsa_key_exchange_only_is_refused_by_default() -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake_hands(old_go_server(), client_context())


async def test_a_server_with_rsa_key_exchange_only_can_be_allowed() -> None:
    seen = await shake_hands(old_go_server(), client_context(legacy_rsa=True))
    assert seen == make_identity().fingerprint


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    identity = make_identity()
    for context in (client_context(), server_context(identity.certificate, identity.key)):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


# -- sessions ---------------------------------------------------------------------------

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def speaking(version: ssl.TLSVersion, number: int = 0) -> ssl.SSLContext:
    identity = make_identity(number)
    server = server_context(identity.certificate, identity.key)
    server.minimum_version = server.maximum_version = version
    return server


async def greet(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Connect, be told something, close; what became of TLS."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome\n")
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0, ssl=server) as listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        assert await reader.readline() == b"welcome\n"
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        writer.close()
        await writer.wait_closed()
    return tls


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_resumed_session_shows_the_same_certificate(version: ssl.TLSVersion) -> None:
    server, client = speaking(version), client_context()
    first = await greet(server, client)
    assert not first.session_reused
    with offering(resumable_session(first)):
        second = await greet(server, client)
    assert second.session_reused
    assert second.version() == first.version()
    assert peer_fingerprint(second) == make_identity().fingerprint
    with offering(resumable_session(second)):
        assert (await greet(server, client)).session_reused


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_does_not_know_the_session_shows_its_own_certificate(
    version: ssl.TLSVersion,
) -> None:
    client = client_context()
    first = await greet(speaking(version), client)
    with offering(resumable_session(first)):
        second = await greet(speaking(version, 1), client)
    assert not second.session_reused
    assert peer_fingerprint(second) == make_identity(1).fingerprint


async def test_an_offered_session_is_for_one_handshake() -> None:
    """What runs on a connection inherits the dial's context, and must not offer the same again."""
    server, client = speaking(ssl.TLSVersion.TLSv1_3), client_context()
    with offering(resumable_session(await greet(server, client))):
        assert (await greet(server, client)).session_reused
        assert not (await greet(server, client)).session_reused


async def test_a_server_without_tickets_leaves_nothing_to_resume() -> None:
    server = speaking(ssl.TLSVersion.TLSv1_3)
    server.num_tickets = 0
    assert resumable_session(await greet(server, client_context())) is None
    assert resumable_session(None) is None
