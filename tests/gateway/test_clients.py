"""What those who connect may do: how many, how slowly, and what becomes of more."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from fronted import Fronted, Wire
from gateway import connection, public
from gateway.accepting import MAX_LINGERING, PAUSE
from gateway.assembly import ADMIN_CLIENTS
from gateway.clients import ClientLimits, Clients
from gateway.connection import MAX_HEAD, READ_AHEAD, SMALL_HEAD
from gateway.front import FrontOptions
from gateway.lifecycle import running
from scamp.client import ClientOptions
from scamp.testing import Manners, PeerRequest, ScriptedPeer, make_identity, until
from scamp.testing.scripts import echo, first, silent
from stand import Stand, stand

ECHO = "/api/Test.echo"
ROOT = Path(__file__).parents[2]


async def connect(gateway: Fronted, address: str) -> Wire:
    """One more connection, from another address of this machine."""
    return Wire(*await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(address, 0)))


async def asked(wire: Wire, body: bytes = b"{}") -> int:
    wire.send("POST", ECHO, body=body)
    return (await wire.answer()).status


async def another_moment() -> None:
    """Until the loop's clock has moved, so that no two are idle since the same moment: uvloop's
    counts milliseconds."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    await until(lambda: loop.time() > now)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is idle as soon as it has no request."""
    monkeypatch.setattr(public, "MIN_IDLE", 0.0)
    monkeypatch.setattr(public, "_LOOK_AGAIN", 0.0)


# -- who is counted ---------------------------------------------------------------------


def test_what_is_kept_for_an_address_goes_with_its_last_connection() -> None:
    clients = Clients(ClientLimits(connections=1 << 30, per_address=2))
    keys = [clients.key(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(50_000)]
    for key in keys:
        clients.enter(key)
        clients.enter(key)
        assert clients.refusal(key) == "address"
    assert (clients.open, clients.addresses) == (100_000, 50_000)
    for key in keys:
        clients.leave(key)
        assert clients.refusal(key) is None
        clients.leave(key)
    assert (clients.open, clients.addresses) == (0, 0)


def test_a_peak_between_two_looks_is_told_once() -> None:
    clients = Clients()
    keys = [clients.key("192.0.2.1")] * 3
    for key in keys:
        clients.enter(key)
    for key in keys[1:]:
        clients.leave(key)
    assert [clients.load(), clients.load()] == [(1, 3), (1, 1)]


def test_of_ipv6_a_64_counts_as_one_and_proxies_do_not_count() -> None:
    clients = Clients(ClientLimits(exempt=(ip_network("10.0.0.0/8"), ip_network("fd00::/8"))))
    assert clients.key("2001:db8::1") == clients.key("2001:db8::ffff:1")
    assert clients.key("2001:db8::1") != clients.key("2001:db8:0:1::1")
    assert clients.key("::ffff:192.0.2.1") == clients.key("192.0.2.1")
    assert (
        clients.key("::ffff:10.0.0.1") is clients.key("10.0.0.1") is clients.key("fd00::1") is None
    )
    assert clients.key("fe80::1%eth0") is not None
    assert Clients(ClientLimits(per_address=None)).key("192.0.2.1") is None


async def test_one_address_has_its_number_and_others_are_let_in() -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(per_address=2)) as gateway:
        first, second = await gateway.connect(), await gateway.connect()
        assert await asked(first) == await asked(second) == 200
        refused = await (await gateway.connect()).answer()
        assert (refused.status, refused.json()["code"]) == (503, "too_many_connections")
        assert refused.headers["Connection"] == "close"
        other = await connect(gateway, "127.0.0.2")
        assert await asked(other) == 200
        await other.close()
        await second.close()
        await until(lambda: gateway.clients.open == 1)
        assert await asked(await gateway.connect()) == 200
        assert gateway.clients.refused == {"address": 1}
        text = gateway.scrape()
        refused_total = "scamp_gateway_client_connections_refused_total"
        assert f'{refused_total}{{listener="public",reason="address"}} 1.0' in text
        assert 'scamp_gateway_client_connections{listener="public"} 2.0' in text


async def test_a_proxy_has_as_many_as_it_likes() -> None:
    limits = ClientLimits(per_address=1, exempt=(ip_network("127.0.0.1/32"),))
    async with Fronted(ScriptedPeer(), clients=limits) as gateway:
        wires = [await gateway.connect() for _ in range(5)]
        assert [await asked(wire) for wire in wires] == [200] * 5
        assert gateway.clients.addresses == 0


async def test_many_that_are_turned_away_leave_nothing_behind() -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(per_address=1)) as gateway:
        kept = await gateway.connect()
        many = 3 * MAX_LINGERING
        wires = [await gateway.connect() for _ in range(many)]
        await until(lambda: gateway.clients.refused["address"] == many)
        for wire in wires:
            await wire.reader.read()
            await wire.close()
        assert await asked(kept) == 200
        assert gateway.clients.open == 1


# -- in all -----------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
async def test_the_one_that_is_idle_for_longest_gives_way() -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(connections=3)) as gateway:
        wires = [await gateway.connect() for _ in range(3)]
        for number in (1, 2, 0):
            assert await asked(wires[number]) == 200
            await another_moment()
        newcomer = await gateway.connect()
        assert await asked(newcomer) == 200
        assert await wires[1].ended()
        assert await asked(wires[2]) == await asked(wires[0]) == 200
        assert gateway.clients.given_way == 1


@pytest.mark.usefixtures("at_once")
async def test_nobody_who_is_served_gives_way() -> None:
    peer = ScriptedPeer(silent)
    async with Fronted(peer, clients=ClientLimits(connections=2)) as gateway:
        busy, slow = await gateway.connect(), await gateway.connect()
        busy.send("POST", ECHO)
        slow.writer.write(b"POST /api/")
        await peer.until(lambda: peer.requests == 1)
        await until(lambda: all(one.idle_since is None for one in connections(gateway)))
        assert (await (await gateway.connect()).answer()).json()["code"] == "too_many_connections"
        assert gateway.clients.refused == {"total": 1}
        assert len(connections(gateway)) == 2


def connections(gateway: Fronted) -> list[Any]:
    assert gateway._server is not None
    return gateway._server.connections


@pytest.mark.usefixtures("at_once")
async def test_one_that_was_idle_and_has_a_request_again_stays() -> None:
    peer = ScriptedPeer(first(3, echo, silent))
    async with Fronted(peer, clients=ClientLimits(connections=3)) as gateway:
        wires = [await gateway.connect() for _ in range(3)]
        for wire in wires:
            assert await asked(wire) == 200
            await another_moment()
        newcomers = [await gateway.connect()]
        assert await wires[0].ended()
        wires[1].send("POST", ECHO)
        await peer.until(lambda: peer.requests == 4)
        newcomers.append(await gateway.connect())
        assert await wires[2].ended()
        assert gateway.clients.refused == {}
        assert len(connections(gateway)) == 3
        await until(lambda: gateway.front.in_flight == 1)


async def test_who_has_just_been_served_keeps_its_connection() -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(connections=1)) as gateway:
        wire = await gateway.connect()
        assert await asked(wire) == 200
        assert (await (await gateway.connect()).answer()).status == 503
        assert await asked(wire) == 200


# -- TLS --------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    identity = make_identity(3)
    (tmp_path / "key").write_bytes(identity.key)
    (tmp_path / "certificate").write_bytes(identity.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    return context


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_a_handshake_counts_and_has_its_time(tls: ssl.SSLContext) -> None:
    limits = ClientLimits(connections=1, handshake_timeout=0.2)
    async with Fronted(ScriptedPeer(), clients=limits, tls=tls) as gateway:
        wire = await gateway.connect()
        await until(lambda: gateway.clients.open == 1)
        assert await (await gateway.connect()).ended(), "there is no room for another"
        assert await wire.ended()
        await until(lambda: gateway.clients.open == 0)
        assert gateway.clients.timeouts == {"handshake": 1}
        assert gateway.clients.refused == {"total": 1}


async def test_what_is_no_tls_leaves_nothing_behind(tls: ssl.SSLContext) -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(connections=1), tls=tls) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO)
        await wire.reader.read()
        await until(lambda: gateway.clients.open == 0)
        async with aiohttp.ClientSession() as http:
            url = f"https://127.0.0.1:{gateway.port}{ECHO}"
            async with http.post(url, json={}, ssl=trusting()) as answer:
                assert answer.status == 200
                assert gateway.clients.open == 1
        await until(lambda: gateway.clients.open == 0)


# -- heads ------------------------------------------------------------------------------


async def trickle(wire: Wire, data: bytes, pause: float = 0.02) -> None:
    """Write `data` again and again, until the other side has had enough."""
    with suppress(ConnectionError):
        while not wire.reader.at_eof() and not wire.writer.is_closing():
            wire.writer.write(data)
            await wire.writer.drain()
            await asyncio.sleep(pause)


@pytest.mark.parametrize("served", [0, 2])
async def test_a_head_that_trickles_in_is_not_waited_for(served: int) -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(header_timeout=0.3)) as gateway:
        wire = await gateway.connect()
        for _ in range(served):
            assert await asked(wire) == 200
        wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\n")
        trickling = asyncio.create_task(trickle(wire, b"X-A: b\r\n"))
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (408, "header_timeout")
        assert answer.headers["Connection"] == "close"
        assert gateway.clients.timeouts == {"header": 1}
        await wire.close()
        await trickling
        assert gateway.log.lines[-1]["cause"] == "header_timeout"


async def test_who_says_nothing_at_first_is_not_waited_for() -> None:
    async with Fronted(ScriptedPeer(), clients=ClientLimits(header_timeout=0.05)) as gateway:
        assert await (await gateway.connect()).ended()
        assert gateway.clients.timeouts == {"header": 1}
        assert gateway.log.lines == []


async def test_between_requests_another_time_counts() -> None:
    limits = ClientLimits(header_timeout=0.05, keepalive=0.3)
    async with Fronted(ScriptedPeer(), clients=limits) as gateway:
        wire = await gateway.connect()
        assert await asked(wire) == 200
        assert await wire.ended()
        assert gateway.clients.timeouts == {"idle": 1}


async def test_a_head_under_way_is_not_idle() -> None:
    limits = ClientLimits(header_timeout=30.0, keepalive=0.2)
    async with Fronted(ScriptedPeer(), clients=limits) as gateway:
        wire = await gateway.connect()
        assert await asked(wire) == 200
        one = connections(gateway)[0]
        wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\n")
        await until(lambda: one.idle_since is None)
        await until(lambda: one._keepalive_handle is None)  # that time is over
        wire.writer.write(b"Host: test\r\nContent-Length: 0\r\n\r\n")
        assert (await wire.answer()).status == 200
        assert gateway.clients.timeouts == {}


async def test_a_request_may_take_longer_than_a_head() -> None:
    release = asyncio.Event()

    async def waiting(request: PeerRequest) -> None:
        await release.wait()
        await request.reply(b"{}")

    peer = ScriptedPeer(waiting)
    async with Fronted(peer, clients=ClientLimits(header_timeout=0.05)) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO)
        await peer.until(lambda: peer.requests == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(1), 0.2)
        release.set()
        assert (await wire.answer()).status == 200


async def test_a_head_behind_a_request_under_way_has_a_limit_too() -> None:
    release = asyncio.Event()

    async def waiting(request: PeerRequest) -> None:
        await release.wait()
        await request.reply(bytes(request.body))

    peer = ScriptedPeer(waiting)
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, body=bytes(2 * MAX_HEAD))
        await peer.until(lambda: peer.requests == 1)
        wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\n")
        field = b"X-A: " + bytes(8000).replace(b"\0", b"a") + b"\r\n"
        for _ in range(60):  # fewer than there may be
            wire.writer.write(field)
        await wire.writer.drain()
        one = connections(gateway)[0]
        await until(lambda: one._over)
        release.set()
        assert (await wire.answer()).status == 200
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (431, "header_too_large")


async def test_all_heads_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_HEADS", 100_000)
    piece = b"X-A: " + b"a" * 5000 + b"\r\n"
    async with Fronted(ScriptedPeer()) as gateway:
        wires = [await gateway.connect() for _ in range(3)]
        begun = b"POST /api/Test.echo HTTP/1.1\r\n" + 8 * piece
        for wire in wires[:2]:
            wire.writer.write(begun)
        await until(lambda: gateway.clients.heads == 2 * len(begun))
        wires[1].writer.write(4 * piece)
        answer = await wires[1].answer()
        assert (answer.status, answer.json()["code"]) == (431, "header_too_large")
        assert await asked(wires[2]) == 200
        wires[0].writer.write(b"Host: test\r\n\r\n")
        assert (await wires[0].answer()).status == 200
        await wires[1].close()
        await until(lambda: gateway.clients.heads == 0)


async def test_a_body_behind_a_request_under_way_is_no_head() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        size = 3 * MAX_HEAD
        for _ in range(3):
            wire.send("POST", ECHO, body=bytes(size))
        for _ in range(3):
            answer = await wire.answer()
            assert (answer.status, len(answer.body)) == (200, size)


async def test_the_last_piece_of_a_body_is_no_head() -> None:
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, [("Content-Length", "3")])
        wire.writer.write(b"[")
        await until(lambda: any(one._body.total_bytes for one in connections(gateway)))
        (one,) = connections(gateway)
        wire.writer.write(b"1]")
        assert (await wire.answer()).body == b"[1]"
        await until(lambda: one.idle_since is not None)
        assert (one._head, gateway.clients.heads) == (0, 0)


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_rest_of_a_body_is_no_head_though_it_comes_in_one_read(chunked: bool) -> None:
    """It is whole afterwards, and no request has come of these bytes."""
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        rest = bytes(2 * MAX_HEAD)
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(rest)
        wire.writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (ECHO.encode(), framing))
        await until(lambda: any(one._request_count for one in connections(gateway)))
        (connection,) = connections(gateway)
        connection.data_received(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest) if chunked else rest)
        answer = await wire.answer()
        assert (answer.status, len(answer.body)) == (200, len(rest))
        assert gateway.clients.heads == 0
        if not chunked:  # after one in chunks the connection may end
            assert await asked(wire) == 200


# -- bodies -----------------------------------------------------------------------------

SLOW = FrontOptions(body_idle=0.3)


@pytest.mark.parametrize("size", [1000, 1 << 20])
async def test_a_body_that_trickles_in_is_not_waited_for(size: int) -> None:
    async with Fronted(
        ScriptedPeer(), options=SLOW, clients=ClientLimits(min_body_rate=1000.0)
    ) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, [("Content-Length", str(size))])
        trickling = asyncio.create_task(trickle(wire, b"x"))
        answer = await wire.answer()
        assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
        assert "1000 bytes/s" in answer.json()["detail"]
        assert gateway.clients.timeouts == {"body_rate": 1}
        await wire.close()
        await trickling


@pytest.mark.parametrize("rate", [0.0, 10.0])
async def test_a_body_that_keeps_pace_may_take_long(rate: float) -> None:
    async with Fronted(
        ScriptedPeer(),
        options=FrontOptions(body_idle=1.0),
        clients=ClientLimits(min_body_rate=rate),
    ) as gateway:
        wire = await gateway.connect()
        wire.send("POST", ECHO, [("Content-Length", "60")])
        for _ in range(60):
            wire.writer.write(b"x")
            await asyncio.sleep(0.02)
        assert (await wire.answer()).body == b"x" * 60
        assert gateway.clients.timeouts == {}


async def test_a_slow_service_costs_the_client_nothing() -> None:
    held: list[PeerRequest] = []
    resumed = asyncio.Event()

    def late(request: PeerRequest) -> int | None:
        held[:] = [request]
        return len(request.body) if resumed.is_set() else None

    async with Fronted(
        ScriptedPeer(manners=Manners(acks=late)),
        options=SLOW,
        client=ClientOptions(body_idle=30.0),
        clients=ClientLimits(min_body_rate=1e9),
    ) as gateway:
        wire = await gateway.connect()
        size = 4 << 20
        wire.send("POST", ECHO, [("Content-Length", str(size))])
        wire.writer.write(bytes(size - 1))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(1), 4 * SLOW.body_idle)
        resumed.set()
        held[0].acknowledge(len(held[0].body))
        await until(lambda: held[0].received == size - 1)
        with pytest.raises(TimeoutError):  # now it is the client's turn
            await asyncio.wait_for(wire.reader.readexactly(1), SLOW.body_idle / 3)
        wire.writer.write(b"!")
        assert len((await wire.answer()).body) == size


# -- answers ----------------------------------------------------------------------------


async def unread(gateway: Fronted) -> Wire:
    """A connection whose machine holds little of what is not read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    cast(asyncio.Transport, writer.transport).pause_reading()
    return Wire(reader, writer)


async def large(request: PeerRequest) -> None:
    await request.reply(bytes(180_000))


@pytest.mark.parametrize("fields", [[("Connection", "close")], []])
async def test_an_answer_that_is_not_taken_at_the_end_holds_no_connection(
    fields: list[tuple[str, str]],
) -> None:
    """What waits is less than that writing would be paused: nobody but the end waits for it."""
    limits = ClientLimits(keepalive=0.1)
    async with Fronted(
        ScriptedPeer(large), options=FrontOptions(body_idle=0.3), clients=limits
    ) as gateway:
        wire = await unread(gateway)
        wire.send("POST", ECHO, fields)
        await gateway.log.until(1)
        await until(lambda: gateway.clients.open == 0)
        assert gateway.clients.timeouts["reader"] == 1
        await wire.close()


async def test_who_reads_no_answers_gets_no_more_of_them() -> None:
    peer = ScriptedPeer(large)
    async with Fronted(peer, options=FrontOptions(body_idle=0.5)) as gateway:
        wire = await unread(gateway)
        for _ in range(2000):
            wire.send("POST", ECHO)
        await until(lambda: gateway.clients.timeouts["reader"] == 1)
        assert peer.requests < 10
        await wire.close()


async def test_requests_behind_one_another_wait_in_the_kernel() -> None:
    """aiohttp takes so many of them, and stops reading."""
    peer = ScriptedPeer(silent)
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n\r\n" * 5000)
        await peer.until(lambda: peer.requests == 1)
        one = connections(gateway)[0]
        await until(lambda: one._buffer_paused)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wire.reader.readexactly(1), 0.2)
        assert one._request_count <= READ_AHEAD + 1


async def test_large_requests_behind_one_another_wait_in_the_kernel() -> None:
    """By their size, not by their number: and all that was sent is served in the end."""
    release = asyncio.Event()

    async def waiting(request: PeerRequest) -> None:
        await release.wait()
        await request.reply(b"{}")

    peer = ScriptedPeer(waiting)
    field = b"X-A: " + b"a" * 10_000 + b"\r\n"
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.writer.write(b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n\r\n")
        await peer.until(lambda: peer.requests == 1)
        wire.writer.write(
            50 * (b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n" + field + b"\r\n")
        )
        one = connections(gateway)[0]
        await until(lambda: one._buffer_paused)
        assert one._request_count <= READ_AHEAD + 1
        assert gateway.clients.heads == one._ahead > SMALL_HEAD
        release.set()
        for _ in range(51):
            assert (await wire.answer()).status == 200
        await wire.close()
        await until(lambda: gateway.clients.heads == 0)


async def test_requests_that_wait_have_the_limit_of_all_heads_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MAX_HEADS", 30_000)
    release = asyncio.Event()

    async def waiting(request: PeerRequest) -> None:
        await release.wait()
        await request.reply(b"{}")

    peer = ScriptedPeer(waiting)
    head = b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n"
    large = head + 2 * (b"X-A: " + b"a" * 10_000 + b"\r\n") + b"\r\n"
    async with Fronted(peer) as gateway:
        wires = [await gateway.connect() for _ in range(2)]
        for number, wire in enumerate(wires):
            wire.writer.write(head + b"\r\n")
            await peer.until(lambda: peer.requests == number + 1)  # noqa: B023 - awaited here
        wires[0].writer.write(large)
        await until(lambda: gateway.clients.heads > 20_000)
        wires[1].writer.write(large)
        await until(lambda: any(one._over for one in connections(gateway)))
        release.set()
        assert [(await wires[0].answer()).status for _ in range(2)] == [200, 200]
        assert [(await wires[1].answer()).status for _ in range(2)] == [200, 431]
        await wires[0].close()
        await wires[1].close()
        await until(lambda: gateway.clients.heads == 0)


async def test_what_comes_behind_an_upgrade_is_not_kept() -> None:
    peer = ScriptedPeer(silent)
    async with Fronted(peer) as gateway:
        wire = await gateway.connect()
        wire.writer.write(
            b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n"
            + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            + bytes(10_000)
        )
        await peer.until(lambda: peer.requests == 1)
        one = connections(gateway)[0]
        one.data_received(bytes(10_000))
        assert one._upgraded
        assert not one._message_tail


@pytest.mark.parametrize("number", [1, 2, 9])
async def test_a_head_in_the_same_bytes_as_requests_counts(number: int) -> None:
    """One read brings up to 256 KiB: small requests, and more than a head may have."""
    head = b"POST /api/Test.echo HTTP/1.1\r\nHost: test\r\n"
    rest = head + 20 * (b"X-A: " + b"a" * 10_000 + b"\r\n")
    async with Fronted(ScriptedPeer()) as gateway:
        wire = await gateway.connect()
        one = connections(gateway)[0]
        one.data_received(number * (head + b"Content-Length: 4\r\n\r\n1234") + rest)
        for _ in range(number):
            assert (await wire.answer()).status == 200
        assert (await wire.answer()).status == 431


# -- descriptors ------------------------------------------------------------------------

SCARCE = """
import asyncio, json, resource, socket, sys
import uvloop
from aiohttp import web
from gateway.accepting import Gate
from gateway.clients import ClientLimits, Clients
from gateway.listener import Listener, open_sockets
from gateway.setting_types import Address

async def answer(request):
    return web.Response(text="ok")

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    clients = Clients(ClientLimits(per_address=None))
    listener = Listener(runner, open_sockets(Address("127.0.0.1", 0)), Gate(clients))
    await listener.start()
    print(listener.port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps([clients.open, clients.refused["descriptors"]]), flush=True)
    await listener.close()
    await runner.cleanup()

loop = uvloop.new_event_loop if sys.argv[1] == "uvloop" else asyncio.new_event_loop
with asyncio.Runner(loop_factory=loop) as runner:
    runner.run(main())
"""


@pytest.mark.one_loop
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_without_descriptors_it_neither_spins_nor_ends(loop: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCARCE, loop, cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    reader, writer = process.stdout, process.stdin
    assert reader is not None
    assert writer is not None
    port = int(await reader.readline())

    async def counts() -> tuple[int, int]:
        writer.write(b"\n")
        opened, refused = (await reader.readline()).strip(b"[]\n").split(b",")
        return int(opened), int(refused)

    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    while (await counts())[1] == 0:
        pass
    began, before = time.monotonic(), (await counts())[1]
    await asyncio.sleep(2 * PAUSE)
    after = (await counts())[1]
    assert after - before <= (time.monotonic() - began) / PAUSE + 1, "it does not wait"
    for sock in socks:
        sock.close()
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/") as answer:
        assert await answer.text() == "ok"
    writer.close()
    assert await process.wait() == 0


# -- the real thing ---------------------------------------------------------------------


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as made:
        yield made


async def test_the_admin_listener_is_there_when_the_public_one_is_full(mesh: Stand) -> None:
    loaded = mesh.loaded(max_connections=2, max_connections_per_address=0)
    async with running(loaded) as gateway, aiohttp.ClientSession() as http:
        url = f"{gateway.public.url}/api/Test.Gate.wait"
        waiting = [asyncio.create_task(http.get(url)) for _ in range(2)]
        await until(lambda: mesh.waiting == 2)
        async with http.get(url) as answer:
            assert answer.status == 503
            assert (await answer.json())["code"] == "too_many_connections"
        async with http.get(f"{gateway.admin.url}/metrics") as answer:
            text = await answer.text()
        assert "scamp_gateway_client_connections_limit 2.0" in text
        assert 'connections_refused_total{listener="public",reason="total"} 1.0' in text
        mesh.gate.set()
        for task in waiting:
            (await task).close()


async def test_the_admin_listener_has_a_limit_of_its_own(mesh: Stand) -> None:
    async with running(mesh.loaded()) as gateway:
        port = gateway.admin.port
        wires = [
            Wire(*await asyncio.open_connection("127.0.0.1", port))
            for _ in range(ADMIN_CLIENTS.connections + 1)
        ]
        assert (await wires[-1].answer()).status == 503
        wires[0].send("GET", "/livez")
        assert (await wires[0].answer()).status == 200
        url = f"{gateway.public.url}/api/Test.Gate.open"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            assert answer.status == 200
        for wire in wires:
            await wire.close()
