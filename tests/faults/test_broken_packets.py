"""Peers that break the protocol: their connection ends, nobody is given a wrong answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from scamp.client import ClientOptions
from scamp.client import health as health_module
from scamp.errors import ConnectionLost, ReplyFailed
from scamp.testing import AtHeader, Manners, Mesh, PeerRequest, Script, ScriptedPeer, until
from scamp.testing.manners import beyond_sent, no_advance
from scamp.testing.scripts import (
    bad_line,
    bad_trailer,
    by_body,
    cut_midway,
    raw,
    txerr,
    when,
)
from scamp.wire import PacketType

ONCE = ClientOptions(retries=0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that is out may be tried again at once when there is no other."""
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)


async def ask(mesh: Mesh, body: bytes) -> bytes:
    reply = await mesh.requester.request("Test.echo", body)
    return await reply.read_all()


async def data_after_eof(request: PeerRequest) -> None:
    reply = request.open()
    await reply.write(bytes(request.body))
    reply.end()
    request.connection.packet(PacketType.DATA, reply.msgno, b"more")


async def wrong_order(request: PeerRequest) -> None:
    request.connection.packet(PacketType.HEADER, 7, b'{"type":"reply"}')


async def same_again(request: PeerRequest) -> None:
    reply = request.open()
    request.connection.packet(PacketType.HEADER, reply.msgno, b'{"type":"reply"}')


async def eof_with_body(request: PeerRequest) -> None:
    reply = request.open()
    request.connection.packet(PacketType.EOF, reply.msgno, b"{}")


async def large_header(request: PeerRequest) -> None:
    request.open(padding="x" * 140_000)


async def txerr_without_text(request: PeerRequest) -> None:
    request.connection.packet(PacketType.TXERR, request.open().msgno)


async def ack_of_nothing(request: PeerRequest) -> None:
    request.connection.packet(PacketType.ACK, 4000, b"1")


async def header_is_null(request: PeerRequest) -> None:
    request.connection.packet(PacketType.HEADER, 0, b"null")


def header_of(body: bytes) -> Script:
    async def script(request: PeerRequest) -> None:
        request.connection.packet(PacketType.HEADER, len(request.connection._outgoing), body)

    return script


BROKEN = {
    "bad trailer": bad_trailer,
    "unknown packet type": raw(b"HELLO 1 0\r\nEND\r\n"),
    "endless header line": raw(b"HEADER " + b"0" * 200),
    "bare line feed": raw(b"HEADER 0 2\n{}END\r\n"),
    "not packets at all": raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "negative size": raw(b"DATA 0 -1\r\nEND\r\n"),
    "message out of order": wrong_order,
    "the same message again": same_again,
    "eof with a body": eof_with_body,
    "header too large": large_header,
    "txerr without text": txerr_without_text,
    "ack of what was never sent": ack_of_nothing,
    "header is null": header_of(b"null"),
    "header is no json": header_of(b"{"),
    "header is a list": header_of(b"[]"),
    "id is a list": header_of(b'{"type":"reply","request_id":[1]}'),
}


@pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN)
async def test_a_peer_that_breaks_the_protocol(
    fault: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """All on its connection fail; the next request has a new one."""
    caplog.set_level(logging.ERROR)
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"wait": when(go), b"bad": fault}))
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh, b"first")
        bystander = asyncio.create_task(ask(mesh, b"wait"))
        await peer.until(lambda: peer.requests == 2)
        with pytest.raises(ConnectionLost) as caught:
            await ask(mesh, b"bad")
        assert caught.value.written
        with pytest.raises(ConnectionLost):
            await bystander
        assert mesh.requester.stats.protocol_errors == 1
        assert await ask(mesh, b"next") == b"next"
        assert mesh.in_flight == 0
        assert peer.protocol_errors == []


@pytest.mark.parametrize("fault", [bad_line, data_after_eof])
async def test_what_came_before_the_fault_counts(fault: Script) -> None:
    peer = ScriptedPeer(fault)
    async with Mesh(peer, options=ONCE) as mesh:
        assert await ask(mesh, b"good") == b"good"
        await peer.until(lambda: not peer.connections)
        await until(lambda: mesh.requester.stats.protocol_errors == 1)


@pytest.mark.parametrize("acks", [beyond_sent, no_advance])
async def test_a_wrong_ack_ends_the_connection(
    acks: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield bytes(10_000)
            await asyncio.sleep(0)

    peer = ScriptedPeer(manners=Manners(acks=acks))  # type: ignore[arg-type]
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(ConnectionLost, match="ACK"):
            await mesh.requester.request("Test.echo", pieces())
        await mesh.settled()
        assert mesh.requester.stats.protocol_errors == 1
        assert peer.requests == 0


async def test_a_late_ack_is_no_error() -> None:
    peer = ScriptedPeer(manners=Manners(late_ack=True))
    async with Mesh(peer, options=ONCE) as mesh:
        for number in range(5):
            assert await ask(mesh, b"%d" % number) == b"%d" % number
        assert peer.accepted == 1
        assert mesh.requester.stats.protocol_errors == 0


@pytest.mark.parametrize("size", [2, 1000, 400_000])
async def test_a_packet_cut_in_the_middle(size: int) -> None:
    peer = ScriptedPeer(by_body({b"cut": cut_midway(size)}))
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh, b"first")
        with pytest.raises(ConnectionLost):
            await ask(mesh, b"cut")
        await until(lambda: not mesh.views()[0].connections)
        assert mesh.in_flight == 0


async def test_txerr_at_once_costs_nothing_but_the_request() -> None:
    peer = ScriptedPeer(by_body({b"bad": txerr("because")}))
    async with Mesh(peer, options=ONCE) as mesh:
        await ask(mesh, b"first")
        with pytest.raises(ReplyFailed, match="because"):
            await ask(mesh, b"bad")
        assert await ask(mesh, b"next") == b"next"
        assert peer.accepted == 1


async def test_a_ping_is_answered_and_none_is_sent() -> None:
    async def ping(request: PeerRequest) -> None:
        request.connection.send(b"PING 5 0\r\nEND\r\n")
        await request.reply(bytes(request.body))

    peer = ScriptedPeer(ping)
    async with Mesh(peer, options=ONCE) as mesh:
        assert await ask(mesh, b"x") == b"x"
        assert await ask(mesh, b"y") == b"y"
        assert peer.pings == 0


async def test_a_peer_that_is_upset_by_much_is_never_upset() -> None:
    """A renumbering peer closes on what our client must not send: null ids, text, PING."""
    upset = frozenset(("ping", "null client_id", "envelope", "request_id", "type"))
    peer = ScriptedPeer(manners=Manners(echoes_ids=False, closes_on=upset))
    async with Mesh(peer, options=ONCE) as mesh:
        for client_id in (None, 7):
            reply = await mesh.requester.request("Test.echo", client_id=client_id, ticket=None)
            assert await reply.read_all() == b"{}"
        assert peer.upset == {}
        assert peer.accepted == 1


async def test_a_flood_of_replies_that_nobody_asked_for_is_bounded() -> None:
    """They are thrown away as they come; too many that never end, and the connection is over."""

    async def flood(request: PeerRequest) -> None:
        for number in range(5000):
            request.connection.open({"type": "reply", "request_id": number})
        await request.connection.writable()

    peer = ScriptedPeer(AtHeader(flood))
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(ConnectionLost):
            await ask(mesh, b"x")
        await until(lambda: not mesh.views()[0].connections)
