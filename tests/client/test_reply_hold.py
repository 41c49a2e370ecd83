"""Reads whose reply is cut before anybody has had a byte of it: asked for again.

Where a test needs the hold to last, it is far longer than the test; where it must not, it is 0.
"""

from __future__ import annotations

import asyncio

import pytest

from scamp.client import ClientOptions
from scamp.client import health as health_module
from scamp.errors import ConnectionLost, ReplyFailed
from scamp.limits import MAX_INFLIGHT
from scamp.testing import ECHOING, GO, Manners, Mesh, PeerRequest, Script, ScriptedPeer
from scamp.testing.scripts import begun, cut_midway, endless, first, oversized, txerr

LONG = ClientOptions(reply_hold=60.0, retry_minimum=100)
NONE = ClientOptions(reply_hold=0.0, retry_minimum=100)
READ, WRITE = "noauth,read", "noauth,update"

kinds = pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that is out may be tried again at once when there is no other."""
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)


def broken_off(go_on: asyncio.Event, *, txerr: bool) -> Script:
    """A reply that has begun, and breaks once `go_on` is set."""

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(b"half of")
        await go_on.wait()
        if txerr:
            reply.fail("broken")
        else:
            request.connection.cut()

    return script


async def seen(mesh: Mesh) -> None:
    """Wait until the client has part of a reply."""
    async with asyncio.timeout(10):
        while not any(  # noqa: ASYNC110 - nothing announces it
            message.unread
            for one in mesh.requester._router._instances.values()
            for connection in one.connections
            if connection.channel is not None
            for message in connection.channel._incoming.values()
        ):
            await asyncio.sleep(0.001)


@kinds
@pytest.mark.parametrize("txerr", [False, True], ids=["cut", "txerr"])
async def test_a_read_that_breaks_while_it_is_held_is_asked_for_again(
    manners: Manners, txerr: bool
) -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(first(1, broken_off(go_on, txerr=txerr)), manners=manners, flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        asked = asyncio.create_task(mesh.requester.request("Test.echo", b"[1]"))
        await seen(mesh)
        go_on.set()
        reply = await asked
        assert await reply.read_all() == b"[1]"
        assert reply.attempts == 2
        assert mesh.requester.stats.retries == {"txerr" if txerr else "lost": 1}
        assert mesh.in_flight == 0


@kinds
@pytest.mark.parametrize("fault", [cut_midway(1000), txerr("no", after=b"half")])
async def test_so_is_one_that_breaks_in_the_read_that_brings_it(
    manners: Manners, fault: Script
) -> None:
    """Without any hold, too: that it broke is known before anything is handed on."""
    peer = ScriptedPeer(first(1, fault), manners=manners, flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        reply = await mesh.requester.request("Test.echo", b"[1]")
        assert await reply.read_all() == b"[1]"
        assert peer.requests == 2


@pytest.mark.parametrize(
    ("flags", "options"), [(WRITE, LONG), (READ, NONE)], ids=["an update", "no hold"]
)
async def test_what_may_not_be_asked_for_again_goes_out_at_its_first_byte(
    flags: str, options: ClientOptions
) -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(broken_off(go_on, txerr=True), flags=flags)
    async with Mesh(peer, options=options) as mesh:
        reply = await mesh.requester.request("Test.echo")
        assert await reply.read() == b"half of"
        go_on.set()
        with pytest.raises(ReplyFailed):
            await reply.read_all()
        assert peer.requests == 1


async def test_a_reply_that_is_complete_in_time_is_complete_at_once() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(begun(b"x" * 1000, go_on), flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        asked = asyncio.create_task(mesh.requester.request("Test.echo"))
        await seen(mesh)
        assert not asked.done()
        go_on.set()
        reply = await asked
        assert reply.complete
        assert reply.read_nowait() == b"x" * 2000


async def test_one_that_drips_is_late_by_no_more_than_the_hold() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(begun(b"x", go_on), flags=READ)
    async with Mesh(peer, options=ClientOptions(reply_hold=0.05)) as mesh:
        reply = await mesh.requester.request("Test.echo")
        assert not reply.complete
        assert await reply.read() == b"x"
        go_on.set()
        assert await reply.read_all() == b"x"


async def test_nor_than_the_deadline() -> None:
    go_on = asyncio.Event()
    peer = ScriptedPeer(begun(b"x", go_on), flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        reply = await mesh.requester.request("Test.echo", timeout=0.3)
        assert not reply.complete
        go_on.set()
        assert await reply.read_all() == b"xx"


@kinds
async def test_a_window_is_the_most_that_is_held(manners: Manners) -> None:
    """It goes out as soon as that is full: a peer that keeps to it would send no more."""
    enough = asyncio.Event()
    peer = ScriptedPeer(endless(bytes(10_000), enough.is_set), manners=manners, flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        reply = await mesh.requester.request("Test.echo")
        assert not reply.complete
        assert reply.bytes_received >= MAX_INFLIGHT
        assert peer.acks == 0, "nothing was acknowledged before"
        enough.set()
        await reply.read_all()


async def test_one_packet_larger_than_all_that_goes_out_too() -> None:
    size = 16 * MAX_INFLIGHT
    peer = ScriptedPeer(oversized(size), manners=GO, flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        reply = await mesh.requester.request("Test.echo")
        assert len(await reply.read_all()) == size


async def test_leaving_while_it_is_held_leaves_nothing() -> None:
    peer = ScriptedPeer(begun(b"x", asyncio.Event()), flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        asked = asyncio.create_task(mesh.requester.request("Test.echo"))
        await seen(mesh)
        asked.cancel()
        await asyncio.wait((asked,))
        assert asked.cancelled()
        assert mesh.in_flight == 0


async def test_when_it_breaks_every_time_the_caller_is_told_so() -> None:
    peer = ScriptedPeer(cut_midway(1000), flags=READ)
    async with Mesh(peer, options=LONG) as mesh:
        with pytest.raises(ConnectionLost) as caught:
            await mesh.requester.request("Test.echo")
        assert caught.value.attempts == 3
        assert mesh.in_flight == 0
