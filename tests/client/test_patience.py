"""The rest of a small reply is waited for when it comes at once, and not for long."""

from __future__ import annotations

import asyncio

import pytest
from emptied import assert_tables_empty, quiet
from launching import BODY, OPTIONS, Launched, ask, make

from scamp.client import patience
from scamp.client.patience import HOLD, LITTLE
from scamp.errors import ConnectionLost, ReplyFailed
from scamp.testing import Mesh, ScriptedPeer, until
from scamp.testing.peer_connection import PeerRequest
from scamp.testing.scripts import begun, by_body, cut_midway, endless, txerr


async def in_three(request: PeerRequest) -> None:
    """HEADER, DATA and EOF each on their own, as Go sends them."""
    reply = request.open()
    for _ in range(3):
        await asyncio.sleep(0)
    await reply.write(bytes(request.body[:3]))
    for _ in range(3):
        await asyncio.sleep(0)
    await reply.write(bytes(request.body[3:]))
    for _ in range(3):
        await asyncio.sleep(0)
    reply.end()


async def test_a_reply_in_three_packets_is_whole() -> None:
    async with Mesh(ScriptedPeer(in_three), options=OPTIONS) as mesh:
        await ask(mesh)
        for _ in range(5):
            one = Launched(mesh, make(mesh))
            await one.news()
            reply = one.launch.reply()
            assert reply is not None
            assert reply.read_nowait() == BODY
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)


async def test_of_a_slow_one_the_beginning_is_told() -> None:
    more = asyncio.Event()
    peer = ScriptedPeer(by_body({b"slow": begun(b"[1]", more)}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        loop = asyncio.get_running_loop()
        one, began = Launched(mesh, make(mesh, b"slow")), loop.time()
        await one.news()
        assert loop.time() - began >= HOLD - 0.001  # not before
        assert one.launch.reply() is None
        reply = await mesh.requester.resume(one.launch)
        assert await reply.read() == b"[1]"
        more.set()
        assert await reply.read_all() == b"[1]"


async def test_of_a_large_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: nothing more would come before it is read."""
    monkeypatch.setattr(patience, "HOLD", 60.0)
    over = False
    peer = ScriptedPeer(by_body({b"large": endless(b"x" * LITTLE, lambda: over)}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        one = Launched(mesh, make(mesh, b"large"))
        await one.news()
        reply = await mesh.requester.resume(one.launch)
        assert len(await reply.read()) >= LITTLE
        over = True
        reply.abandon()
        await until(lambda: quiet(mesh))


@pytest.mark.parametrize(
    ("script", "error"), [(txerr(after=b"[1,"), ReplyFailed), (cut_midway(10), ConnectionLost)]
)
async def test_what_fails_meanwhile_is_told_as_a_failure(script: object, error: type) -> None:
    peer = ScriptedPeer(by_body({b"fails": script}))  # type: ignore[dict-item]
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        one = Launched(mesh, make(mesh, b"fails"))
        await one.news()
        assert one.launch.reply() is None
        with pytest.raises(error):
            await (await mesh.requester.resume(one.launch)).read_all()
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)


async def test_the_deadline_is_for_the_first_byte() -> None:
    more = asyncio.Event()
    peer = ScriptedPeer(by_body({b"slow": begun(b"[1]", more)}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        call = make(mesh, b"slow")
        one = Launched(mesh, call)
        await until(lambda: one.launch.exchange.begun or one.told)
        one.launch.expire()  # within the moment that the rest is waited for
        await one.news()
        more.set()
        reply = await mesh.requester.resume(one.launch)
        assert await reply.read_all() == b"[1][1]"


async def test_who_leaves_meanwhile_is_told_nothing() -> None:
    more = asyncio.Event()
    peer = ScriptedPeer(by_body({b"slow": begun(b"[1]", more)}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        one = Launched(mesh, make(mesh, b"slow"))
        await until(lambda: one.launch.exchange.begun)
        one.launch.abandon()
        more.set()
        assert await ask(mesh) == BODY
        await asyncio.sleep(2 * HOLD)
        assert one.told == 0
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)


async def test_a_requester_that_is_closed_waits_for_nobody() -> None:
    peer = ScriptedPeer(by_body({b"slow": begun(b"[1]", asyncio.Event())}))
    async with Mesh(peer, options=OPTIONS) as mesh:
        await ask(mesh)
        one = Launched(mesh, make(mesh, b"slow"))
        await until(lambda: one.launch.exchange.begun)
        await mesh.requester.close()
        await one.news()
        assert one.launch.reply() is None
