"""One large transfer beside many small calls: whoever stalls, stalls himself alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest

from fronted import Fronted, Wire
from scamp.client import ClientOptions, Reply
from scamp.limits import MAX_INFLIGHT, READ_PAUSE
from scamp.server import Request, Service
from scamp.testing import Manners, Mesh, ScriptedPeer, make_identity, until
from scamp.testing.scripts import begun, echo, endless

ONE: Final = ClientOptions(max_connections=1)
SMALL_CALLS: Final = 300
AT_ONCE: Final = 16
LARGE: Final = 64 * MAX_INFLIGHT

ACTIONS: Final = ("Test.echo", "Test.large")


async def small_calls(call: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Many of them, some at once; all are answered, each with its own body."""
    waiting = iter(range(SMALL_CALLS))

    async def caller() -> None:
        for number in waiting:
            body = b'{"number":%d}' % number
            assert await call(body) == body

    async with asyncio.timeout(20):
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


def through(gateway: Fronted) -> Callable[[bytes], Awaitable[bytes]]:
    async def call(body: bytes) -> bytes:
        answer = await gateway.request("POST", "/api/Test.echo", body=body)
        assert answer.status == 200, answer.body
        return answer.body

    return call


def by(mesh: Mesh) -> Callable[[bytes], Awaitable[bytes]]:
    async def call(body: bytes) -> bytes:
        return await (await mesh.requester.request("Test.echo", body)).read_all()

    return call


# -- through the gateway ------------------------------------------------------------------


async def test_beside_a_download_whose_client_has_stopped() -> None:
    """All on one connection: the stopped one keeps its window, and nothing more."""
    enough = asyncio.Event()
    peer = ScriptedPeer(
        {"Test.echo": echo, "Test.large": endless(bytes(20_000), enough.is_set)}, actions=ACTIONS
    )
    async with Fronted(peer, client=ONE) as gateway:
        await through(gateway)(b"[0]")
        stopped = await gateway.connect()
        stopped.reader._limit = 1  # type: ignore[attr-defined]
        stopped.send("POST", "/api/Test.large", body=b"{}")
        await stalled(peer)
        await small_calls(through(gateway))
        assert peer.accepted == 1
        enough.set()


async def stalled(peer: ScriptedPeer) -> None:
    """Wait until the peer's reply is held up by its window."""
    before = -1
    while True:
        (connection,) = peer.connections
        sent = connection._outgoing[-1].sent
        if sent == before:
            return
        before = sent
        await asyncio.sleep(0.2)


async def test_beside_an_upload_whose_client_has_stopped() -> None:
    peer = ScriptedPeer({"Test.echo": echo, "Test.large": echo}, actions=ACTIONS)
    async with Fronted(peer, client=ClientOptions(max_connections=2)) as gateway:
        await through(gateway)(b"[0]")
        stopped = await begin_upload(gateway)
        await peer.until(lambda: len(peer.headers) == 2)
        await small_calls(through(gateway))
        stopped.writer.write(bytes(LARGE - MAX_INFLIGHT * 3))
        assert (await stopped.answer()).body == bytes(LARGE)


async def begin_upload(gateway: Fronted) -> Wire:
    """Three windows of it."""
    wire = await gateway.connect()
    head = f"POST /api/Test.large HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n"
    wire.writer.write(head.encode() + bytes(3 * MAX_INFLIGHT))
    return wire


async def test_beside_as_many_uploads_that_have_stopped_as_there_are_connections() -> None:
    """Each takes a connection for itself; one is left to everybody else."""
    peer = ScriptedPeer({"Test.echo": echo, "Test.large": echo}, actions=ACTIONS)
    async with Fronted(peer, client=ClientOptions(max_connections=4)) as gateway:
        await through(gateway)(b"[0]")
        stopped = [await begin_upload(gateway) for _ in range(6)]
        await peer.until(lambda: len(peer.headers) == 4)
        await small_calls(through(gateway))
        assert len(peer.connections) == 4
        for wire in stopped:
            wire.writer.write(bytes(LARGE - MAX_INFLIGHT * 3))
        for wire in stopped:
            answer = await wire.answer()
            assert (answer.status, len(answer.body)) == (200, LARGE)


async def test_beside_more_uploads_than_may_wait() -> None:
    """They take three quarters of the queue: one that they filled would turn everybody away."""
    peer = ScriptedPeer({"Test.echo": echo, "Test.large": echo}, actions=ACTIONS)
    options = ClientOptions(max_connections=4, max_waiters=64)
    async with Fronted(peer, client=options) as gateway:
        await through(gateway)(b"[0]")
        stopped = [await begin_upload(gateway) for _ in range(60)]
        await gateway.log.until(1 + 60 - 3 - 48)  # those that may not even wait
        await small_calls(through(gateway))
        for wire in stopped:
            await wire.close()


async def test_those_that_wait_for_a_connection_that_stood_still_go_on_with_it() -> None:
    """A peer that ignores the window fills ours; that holds the socket until we have read on. They
    need not wait for the end of it."""
    go_on = asyncio.Event()
    manners = Manners(heeds_acks=False)
    peer = ScriptedPeer(
        {"Test.echo": echo, "Test.large": begun(bytes(2 * READ_PAUSE), go_on)},
        actions=ACTIONS,
        manners=manners,
    )
    async with Mesh(peer, options=ONE) as mesh:
        await by(mesh)(b"[0]")
        reply = await mesh.requester.request("Test.large")
        (instance,) = mesh.requester._router._instances.values()
        (connection,) = instance.connections
        assert connection.channel is not None
        await until(lambda: connection.channel is not None and connection.channel.stalled)
        waiting = asyncio.ensure_future(by(mesh)(b"[1]"))
        await until(lambda: instance.waiting == 1)
        read = 0
        while read < 2 * READ_PAUSE:
            read += len(await reply.read())
        assert await waiting == b"[1]"
        assert not reply.complete
        go_on.set()
        assert len(await reply.read_all()) == 2 * READ_PAUSE
        assert peer.accepted == 1


# -- a service ----------------------------------------------------------------------------


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(LARGE // 10_000):
        yield bytes(10_000)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Mesh, asyncio.Event]]:
    """A service and a client with one connection to it; what `Test.large` waits for."""
    identity = make_identity()
    service = Service(
        "test", key=identity.key, certificate=identity.certificate, require_tickets=False
    )
    go_on = asyncio.Event()

    @service.action("Test.echo")
    async def small(request: Request) -> object:
        return await request.read_all()

    @service.action("Test.large")
    async def large(request: Request) -> object:
        return pieces()

    @service.action("Test.take")
    async def take(request: Request) -> object:
        await go_on.wait()
        return b"%d" % len(await request.read_all())

    await service.start("127.0.0.1", 0)
    try:
        async with Mesh(service, options=ONE) as mesh:
            await by(mesh)(b"[0]")
            yield mesh, go_on
    finally:
        await service.stop(0.0)


async def test_a_service_answers_beside_replies_that_nobody_reads() -> None:
    async with serving() as (mesh, _):
        replies = [await mesh.requester.request("Test.large") for _ in range(20)]
        await small_calls(by(mesh))
        for reply in replies:
            assert len(await reply.read_all(LARGE)) == LARGE // 10_000 * 10_000
        assert mesh.requester.stats.connects == 1


@pytest.mark.parametrize("count", [1, 30])
async def test_a_service_answers_beside_replies_that_take_all_they_can(count: int) -> None:
    """A short answer does not wait until the long ones are out."""
    async with serving() as (mesh, _):
        replies = [await mesh.requester.request("Test.large") for _ in range(count)]
        over = 0

        async def read(reply: Reply) -> None:
            nonlocal over
            while await reply.read():
                pass
            over += 1

        readers = [asyncio.create_task(read(reply)) for reply in replies]
        done_before = []
        for number in range(20):
            assert await by(mesh)(b"[%d]" % number) == b"[%d]" % number
            done_before.append(over)
        await asyncio.gather(*readers)
        assert done_before[0] == 0, "a short answer does not wait for a long one to be over"
        assert mesh.requester.stats.connects == 1


async def test_a_service_answers_beside_a_request_that_it_does_not_read() -> None:
    async with serving() as (mesh, go_on):
        body = bytes(MAX_INFLIGHT)
        slow = [asyncio.create_task(mesh.requester.request("Test.take", body)) for _ in range(20)]
        await asyncio.sleep(0)
        await small_calls(by(mesh))
        go_on.set()
        for one in slow:
            assert await (await one).read_all() == b"%d" % MAX_INFLIGHT
        assert mesh.requester.stats.connects == 1
