"""Bodies that stream, either way: whole, bounded, and given up in the right way."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from scamp.client import ClientOptions, Reply
from scamp.client.connection import ClientConnection
from scamp.errors import (
    ConnectionLost,
    IdleTimeout,
    LocalProtocolError,
    ReplyFailed,
    ReplyTimeout,
)
from scamp.limits import MAX_INFLIGHT, READ_PAUSE, WRITE_HIGH
from scamp.server import Request, Service
from scamp.testing import (
    ECHOING,
    GO,
    AtHeader,
    Manners,
    Mesh,
    PeerRequest,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.manners import nothing
from scamp.testing.scripts import begun, by_body, echo, endless, oversized, txerr

ONCE = ClientOptions(retries=0)
SIZES = [0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 1_000_000]


async def in_pieces(body: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("manners", [ECHOING, GO, Manners(late_ack=True)])
@pytest.mark.parametrize("size", SIZES)
async def test_bodies_of_any_size_there_and_back(size: int, manners: Manners) -> None:
    body = os.urandom(size)
    async with Mesh(ScriptedPeer(manners=manners), options=ONCE) as mesh:
        for sent in (body, in_pieces(body)):
            reply = await mesh.requester.request("Test.echo", sent)
            assert await reply.read_all() == body
            assert (reply.bytes_sent, reply.bytes_received) == (size, size)
        await mesh.settled()


async def test_a_whole_reply_in_one_packet_however_large() -> None:
    async with Mesh(ScriptedPeer(oversized(3_000_000)), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo")
        assert await reply.read_all() == bytes(3_000_000)


async def test_a_slow_reader_holds_a_peer_that_ignores_acks() -> None:
    """Such a peer is held by TCP; what has arrived and was not read is bounded."""
    peer = ScriptedPeer(endless(bytes(1 << 20)), manners=GO)
    async with Mesh(peer, options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo")
        most = 0
        for _ in range(50):
            most = max(most, reply._message.unread)
            await asyncio.sleep(0)
            assert await reply.read()
        await until(lambda: reply._message.unread > READ_PAUSE)
        for _ in range(50):
            await asyncio.sleep(0)
            most = max(most, reply._message.unread)
        assert most <= READ_PAUSE + 256 * 1024  # what one read of the socket may bring
        reply.abandon()
        await peer.until(lambda: not peer.connections)


async def test_a_slow_reader_holds_a_peer_that_keeps_to_the_window() -> None:
    peer = ScriptedPeer(endless(bytes(50_000)))
    async with Mesh(peer, options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo")
        for _ in range(20):
            for _ in range(20):
                await asyncio.sleep(0)
            assert reply._message.unread <= MAX_INFLIGHT
            assert await reply.read()
        reply.abandon()


async def test_others_go_on_while_one_reader_is_slow() -> None:
    peer = ScriptedPeer(by_body({b"big": endless(bytes(50_000))}))
    async with Mesh(peer, options=ONCE) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        big = await mesh.requester.request("Test.echo", b"big")
        for number in range(5):
            reply = await mesh.requester.request("Test.echo", b"%d" % number)
            assert await reply.read_all() == b"%d" % number
        assert peer.accepted == 1
        big.abandon()


async def test_a_slow_service_holds_the_source_of_an_upload() -> None:
    go = asyncio.Event()
    produced = consumed = most = 0
    identity = make_identity()
    service = Service("shop", key=identity.key, certificate=identity.certificate)

    @service.action("Test.echo", flags="noauth")
    async def handle(request: Request) -> bytes:
        nonlocal consumed, most
        digest = hashlib.sha256()
        await go.wait()
        while data := await request.read():
            consumed += len(data)
            digest.update(data)
            most = max(most, produced - consumed)
            await asyncio.sleep(0)
        return digest.hexdigest().encode()

    piece = os.urandom(30_000)
    count = 150

    async def source() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(count):
            produced += len(piece)
            yield piece

    await service.start(port=0)
    async with Mesh(service, options=ONCE) as mesh:
        call = asyncio.create_task(mesh.requester.request("Test.echo", source()))
        await until(lambda: produced >= MAX_INFLIGHT)
        for _ in range(200):
            await asyncio.sleep(0)
        assert produced <= MAX_INFLIGHT + len(piece)
        go.set()
        reply = await call
        assert await reply.read_all() == hashlib.sha256(piece * count).hexdigest().encode()
        assert most <= 2 * MAX_INFLIGHT + WRITE_HIGH
    await service.stop(0)


async def test_a_slow_reader_holds_the_source_of_a_reply() -> None:
    produced = 0
    identity = make_identity()
    service = Service("shop", key=identity.key, certificate=identity.certificate)

    @service.action("Test.echo", flags="noauth")
    async def handle(request: Request) -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(100):
            produced += 30_000
            yield bytes(30_000)

    await service.start(port=0)
    async with Mesh(service, options=ONCE) as mesh:
        async with await mesh.requester.request("Test.echo") as reply:
            read = 0
            while data := await reply.read():
                read += len(data)
                for _ in range(10):
                    await asyncio.sleep(0)
                assert produced - read <= 2 * MAX_INFLIGHT + 30_000
        assert read == 3_000_000
    await service.stop(0)


# -- given up ---------------------------------------------------------------------------


class SourceError(Exception):
    """The body could not be had."""


@pytest.mark.parametrize("before", [0, 1000, 200_000])
@pytest.mark.parametrize("manners", [ECHOING, GO])
async def test_a_source_that_fails_fails_the_request_and_nothing_is_executed(
    manners: Manners, before: int
) -> None:
    """With a peer that acts on TXERR half a body would be executed: the connection closes."""
    closed = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            if before:
                yield bytes(before)
            raise SourceError
        finally:
            closed = True

    peer = ScriptedPeer(manners=manners)
    async with Mesh(peer, options=ONCE) as mesh:
        with pytest.raises(SourceError):
            await mesh.requester.request("Test.echo", source())
        await mesh.settled()
        await until(lambda: not peer.connections)
        assert closed
        assert peer.requests == 0
        assert peer.aborted == 0
        assert mesh.views()[0].state == "up"


async def test_a_source_that_stops_moving_is_given_up() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with Mesh(ScriptedPeer(), options=ClientOptions(retries=0, body_idle=0.05)) as mesh:
        with pytest.raises(IdleTimeout):
            await mesh.requester.request("Test.echo", source(), timeout=0.02)
        await mesh.settled()
        assert closed.is_set()


async def test_a_service_that_takes_nothing_is_given_up() -> None:
    peer = ScriptedPeer(manners=Manners(acks=nothing))
    async with Mesh(peer, options=ClientOptions(retries=0, body_idle=0.05)) as mesh:
        with pytest.raises(IdleTimeout):
            await mesh.requester.request("Test.echo", bytes(1_000_000))
        await mesh.settled()
        assert peer.requests == 0


async def skip_first(reply: Reply) -> AsyncIterator[bytes]:
    assert await reply.read() == b"piece"
    yield await reply.read()


@pytest.mark.parametrize("whole", [False, True])
async def test_a_reply_that_stops_moving_is_given_up_as_the_options_say(whole: bool) -> None:
    async with Mesh(
        ScriptedPeer(begun(b"piece", asyncio.Event())),
        options=ClientOptions(retries=0, body_idle=0.05),
    ) as mesh:
        reply = await mesh.requester.request("Test.echo")
        async with asyncio.timeout(5):
            with pytest.raises(IdleTimeout):
                await (reply.read_all() if whole else anext(skip_first(reply)))
        await until(lambda: mesh.views()[0].connections == 0)  # the service is suspect


async def test_the_deadline_stands_still_while_a_body_moves() -> None:
    go = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.3)  # longer than the deadline
        yield b"b"

    async with Mesh(ScriptedPeer(), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo", source(), timeout=0.25)
        assert await reply.read_all() == b"ab"
        go.set()


async def test_the_deadline_runs_once_the_body_is_there() -> None:
    async def never(request: PeerRequest) -> None:
        return None

    async with Mesh(ScriptedPeer(never), options=ONCE) as mesh:
        with pytest.raises(ReplyTimeout):
            await mesh.requester.request("Test.echo", in_pieces(bytes(100_000)), timeout=0.05)
        await mesh.settled()


async def test_a_reply_that_ends_first_ends_the_upload() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def enough(request: PeerRequest) -> None:
        await request.reply(b"enough")

    peer = ScriptedPeer(AtHeader(enough))
    async with Mesh(peer, options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo", source())
        assert await reply.read_all() == b"enough"
        await closed.wait()
        await mesh.settled()
        await peer.until(lambda: not peer.connections)
        assert peer.requests == 0
        stats = mesh.requester.stats
        assert (stats.bytes_sent, stats.bytes_received) == (len(b"some"), len(b"enough"))


async def test_an_upload_and_its_reply_lost_together_leave_nothing() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    go = asyncio.Event()

    async def half(request: PeerRequest) -> None:
        await request.open().write(b"half")
        await go.wait()
        request.connection.cut()

    async with Mesh(ScriptedPeer(AtHeader(half)), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo", source())
        assert await reply.read() == b"half"
        go.set()
        with pytest.raises(ConnectionLost):
            await reply.read()
        await mesh.settled()  # without abandon: the loss has ended it
        reply.abandon()
        await closed.wait()


async def test_two_uploads_never_share_a_connection() -> None:
    go = asyncio.Event()

    async def source(body: bytes) -> AsyncIterator[bytes]:
        yield body
        await go.wait()
        yield body

    peer = ScriptedPeer()
    async with Mesh(peer, options=ONCE) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        calls = [
            asyncio.create_task(mesh.requester.request("Test.echo", source(b"%d" % number)))
            for number in range(3)
        ]
        await peer.until(lambda: len(peer.headers) == 4)
        small = await mesh.requester.request("Test.echo", b"small")
        assert await small.read_all() == b"small"
        assert len(peer.connections) == 4
        go.set()
        for number, call in enumerate(calls):
            assert await (await call).read_all() == b"%d%d" % (number, number)


async def test_txerr_in_the_middle_of_a_reply() -> None:
    async with Mesh(ScriptedPeer(txerr("why", after=bytes(100_000))), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo")
        with pytest.raises(ReplyFailed, match="why"):
            await reply.read_all()
        assert mesh.in_flight == 0
        with pytest.raises(ReplyFailed, match="why"):
            await reply.read()


async def test_a_reply_that_stops_moving() -> None:
    peer = ScriptedPeer(by_body({b"x": begun(b"half", asyncio.Event())}))
    async with Mesh(peer, options=ONCE) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        reply = await mesh.requester.request("Test.echo", b"x")
        assert await reply.read() == b"half"
        with pytest.raises(IdleTimeout):
            await reply.read(0.02)
        assert mesh.in_flight == 0
        again = await mesh.requester.request("Test.echo")
        await again.read_all()
        assert peer.accepted == 2


async def test_a_reply_that_never_ends_given_up_on_a_shared_connection() -> None:
    go = asyncio.Event()
    stop = False

    async def slow(request: PeerRequest) -> None:
        await go.wait()
        await echo(request)

    scripts = {b"big": endless(bytes(60_000), lambda: stop), b"slow": slow}
    peer = ScriptedPeer(by_body(scripts))
    async with Mesh(peer, options=ONCE) as mesh:
        await (await mesh.requester.request("Test.echo")).read_all()
        other = asyncio.create_task(mesh.requester.request("Test.echo", b"slow"))
        await peer.until(lambda: peer.requests == 2)
        async with await mesh.requester.request("Test.echo", b"big") as reply:
            assert await reply.read()
        # Some of the rest is thrown away, then the connection is retired; the other one lives.
        (view,) = mesh.views()
        assert view.in_flight == 1
        await until(lambda: all(c.room == 0 for c in _connections(mesh)))
        go.set()
        assert await (await other).read_all() == b"slow"
        await peer.until(lambda: not peer.connections)
        stop = True


def _connections(mesh: Mesh) -> list[ClientConnection]:
    return [
        connection
        for instance in mesh.requester._router._instances.values()
        for connection in instance.connections
    ]


async def test_a_reply_longer_than_its_reader_allows() -> None:
    async with Mesh(ScriptedPeer(oversized(100_000)), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo")
        with pytest.raises(LocalProtocolError):
            await reply.read_all(limit=1000)
        await mesh.settled()


async def test_a_reply_that_is_not_json() -> None:
    async with Mesh(ScriptedPeer(), options=ONCE) as mesh:
        reply = await mesh.requester.request("Test.echo", b"[1, 2]")
        assert await reply.json() == [1, 2]
        reply = await mesh.requester.request("Test.echo", b"not")
        with pytest.raises(ReplyFailed):
            await reply.json()


async def test_a_source_that_is_cancelled_within_itself_fails_the_request_at_once() -> None:
    gone = asyncio.get_running_loop().create_future()

    async def source() -> AsyncIterator[bytes]:
        yield b"some"
        gone.cancel()
        await gone

    peer = ScriptedPeer()
    async with Mesh(peer) as mesh:
        with pytest.raises(LocalProtocolError, match="source"):
            async with asyncio.timeout(5):
                await mesh.requester.request("Test.echo", source())
        await peer.until(lambda: not peer.connections)
        assert (peer.requests, peer.aborted) == (0, 0)


async def test_a_source_that_fails_in_cleaning_up_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> bytes:
            return bytes(MAX_INFLIGHT)

        async def aclose(self) -> None:
            raise ValueError("not closed")

    strays: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    async with Mesh(ScriptedPeer()) as mesh:
        task = asyncio.create_task(mesh.requester.request("Test.echo", Source()))
        await until(lambda: mesh.requester._uploads)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: not mesh.requester._uploads)
    gc.collect()
    assert not strays
    assert "ValueError: not closed" in caplog.text
