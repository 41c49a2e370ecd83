"""A caller may go at any moment: nothing is left behind, nobody gets what was meant for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from emptied import assert_tables_empty, quiet

from scamp.client import ClientOptions
from scamp.errors import ScampError
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer, until
from scamp.testing.scripts import by_body, when

OPTIONS = ClientOptions(retry_minimum=10_000, max_connections=4)
Work = Callable[[Mesh], Awaitable[object]]


async def whole(mesh: Mesh) -> None:
    reply = await mesh.requester.request("Test.echo", b"whole")
    assert await reply.read_all() == b"whole"


async def held_body(mesh: Mesh) -> None:
    """More than a window, so that it streams."""
    body = bytes(150_000)
    reply = await mesh.requester.request("Test.echo", body)
    assert await reply.read_all() == body


async def upload(mesh: Mesh) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(30_000)
            await asyncio.sleep(0)

    async with await mesh.requester.request("Test.echo", source()) as reply:
        size = 0
        async for piece in reply:
            size += len(piece)
    assert size == 120_000


async def many(mesh: Mesh) -> None:
    """Several at once, some of which wait for a connection."""
    await asyncio.gather(*(whole(mesh) for _ in range(8)), upload(mesh))


async def after(steps: int, task: asyncio.Task[object]) -> bool:
    """Let the loop turn so often; True when the task is still at work."""
    for _ in range(steps):
        if task.done():
            return False
        await asyncio.sleep(0)
    return not task.done()


async def run(work: Work, mesh: Mesh) -> object:
    return await work(mesh)


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, ScampError):
        await task


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("work", [whole, held_body, upload, many])
async def test_cancelled_at_every_step(work: Work, warm: bool, manners: Manners) -> None:
    """At the first turn of the loop, the second, … until the work is done before the cancel."""
    peer = ScriptedPeer(manners=manners)
    async with peer:
        steps = 0
        at_work = True
        while at_work:
            async with Mesh(options=OPTIONS) as mesh:
                mesh.announce(peer)
                if warm:
                    await whole(mesh)
                task = asyncio.create_task(run(work, mesh))
                at_work = await after(steps, task)
                await cancel(task)
                await mesh.settled()
                await whole(mesh)  # what is left can be used
                await until(lambda mesh=mesh: not mesh.requester._uploads)  # type: ignore[misc]
                await until(lambda mesh=mesh: quiet(mesh))  # type: ignore[misc]
                assert_tables_empty(mesh)
                assert mesh.requester.stats.stray_replies == 0
            steps += 1 if steps < 20 else 3
        assert steps > 3
    assert peer.protocol_errors == []
    assert peer.aborted == 0  # never TXERR: some peers would act on half a request


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
async def test_nobody_gets_what_a_cancelled_caller_asked_for(manners: Manners) -> None:
    peer = ScriptedPeer(manners=manners)
    async with Mesh(peer, options=OPTIONS) as mesh:

        async def one(number: int) -> None:
            body = b"%d" % number
            reply = await mesh.requester.request("Test.echo", body)
            assert await reply.read_all() == body

        for number in range(0, 200, 4):
            tasks = [asyncio.create_task(one(number + at)) for at in range(4)]
            for _ in range(number % 23):
                await asyncio.sleep(0)
            tasks[number % 3].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(
                result is None or isinstance(result, asyncio.CancelledError) for result in results
            )
        await mesh.settled()


async def test_cancelled_in_the_queue() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(when(go), manners=GO)
    async with Mesh(peer, options=ClientOptions(max_connections=1)) as mesh:
        first = asyncio.create_task(whole(mesh))
        await peer.until(lambda: peer.requests == 1)
        queued = asyncio.create_task(run(whole, mesh))
        await until(lambda: mesh.views()[0].waiting == 1)
        await cancel(queued)
        assert mesh.views()[0].waiting == 0
        assert mesh.views()[0].in_flight == 1
        go.set()
        await first
        assert peer.requests == 1


async def test_cancelled_while_the_service_works() -> None:
    go = asyncio.Event()
    peer = ScriptedPeer(by_body({b"x": when(go)}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await whole(mesh)
        task = asyncio.create_task(run(lambda m: m.requester.request("Test.echo", b"x"), mesh))
        await peer.until(lambda: peer.requests == 2)
        await cancel(task)
        assert mesh.in_flight == 0
        go.set()
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)
        assert peer.accepted == 1
        assert mesh.requester.stats.abandoned == {"discard": 1}


async def test_an_upload_that_is_cancelled_closes_its_source_and_its_connection() -> None:
    closed = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    peer = ScriptedPeer()
    async with Mesh(peer, options=OPTIONS) as mesh:
        call = run(lambda m: m.requester.request("Test.echo", source()), mesh)
        task = asyncio.create_task(call)
        await peer.until(lambda: peer.headers)
        await cancel(task)
        await closed.wait()
        await peer.until(lambda: not peer.connections)
        assert (peer.requests, peer.aborted) == (0, 0)
        assert_tables_empty(mesh)
        assert mesh.views()[0].state == "up"


async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    go = asyncio.Event()
    async with Mesh(ScriptedPeer(), options=OPTIONS) as mesh:

        async def source() -> AsyncIterator[bytes]:
            yield b"a"
            await go.wait()
            yield b"b"

        call = asyncio.create_task(mesh.requester.request("Test.echo", source()))
        for _ in range(5):
            await asyncio.sleep(0)
        go.set()
        reply = await call
        got = b""
        while len(got) < 2:
            reading = asyncio.create_task(reply.read())
            await asyncio.sleep(0)
            reading.cancel()
            with suppress(asyncio.CancelledError):
                got += await reading
            got += reply.read_nowait()
        assert got == b"ab"
        assert await reply.read() == b""
