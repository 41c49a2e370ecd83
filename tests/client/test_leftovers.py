"""What is over is gone: nothing waits for a collection of garbage, which comes late or never."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from scamp.client import Call, ClientOptions, Deadline, Requester
from scamp.errors import ScampError
from scamp.limits import MAX_INFLIGHT
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer
from scamp.testing.peer_connection import Script
from scamp.testing.scripts import cut_midway, hang_up, silent, txerr


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def connections(requester: Requester) -> list[weakref.ref[object]]:
    """Every connection and its channel."""
    found: list[weakref.ref[object]] = []
    for instance in requester._router._instances.values():
        for connection in instance.connections:
            found += [weakref.ref(connection), weakref.ref(connection.channel)]
    return found


async def gone(left: list[weakref.ref[object]]) -> None:
    """Wait until there is none of them. Raises TimeoutError with those that stay."""
    try:
        async with asyncio.timeout(5):
            while any(ref() is not None for ref in left):  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"still there: {[ref() for ref in left]}") from None


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoes", "renumbers"])
async def test_a_connection_that_was_idle_for_too_long_leaves_nothing(manners: Manners) -> None:
    options = ClientOptions(idle_timeout=0.1)
    async with Mesh(ScriptedPeer(manners=manners), options=options) as mesh:
        await ask(mesh)
        left = connections(mesh.requester)
        assert left
        await gone(left)


@pytest.mark.usefixtures("no_collection")
async def test_a_connection_that_the_peer_ended_leaves_nothing() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer) as mesh:
        await ask(mesh)
        left = connections(mesh.requester)
        assert left
        await peer.cut()
        await gone(left)


async def ask(mesh: Mesh) -> None:
    """Five requests at once."""
    for reply in await asyncio.gather(
        *(mesh.requester.request("Test.echo", b"[%d]" % number) for number in range(5))
    ):
        await reply.read_all()


class Extra(dict[str, str]):
    """Header fields of a call, which can be watched."""


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("read", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("size", [2, 3 * MAX_INFLIGHT], ids=["held", "streamed"])
@pytest.mark.parametrize("script", [hang_up, silent, cut_midway(), txerr(after=b"{")])
async def test_a_request_that_failed_leaves_nothing(script: Script, size: int, read: bool) -> None:
    async with Mesh(ScriptedPeer(script)) as mesh:
        left = [await failed(mesh, bytes(size), read) for _ in range(3)]
        await gone(left)


@pytest.mark.usefixtures("no_collection")
async def test_requests_that_found_no_connection_leave_nothing() -> None:
    peer = ScriptedPeer()
    async with Mesh(peer) as mesh:
        await peer.stop()
        left = await asyncio.gather(*(failed(mesh, b"{}", read=True) for _ in range(5)))
        await gone(left)


async def failed(mesh: Mesh, body: bytes, read: bool) -> weakref.ref[object]:
    """What belonged to a request that failed."""
    extra = Extra()
    call = Call(
        offers=mesh.registry.find("main", "Test.echo", 1),
        body=body,
        deadline=Deadline.after(0.2),
        extra=extra,
        retry_safe=read,
    )
    try:  # not `pytest.raises`, which keeps the error
        await (await mesh.requester.send(call)).read_all()
    except ScampError:
        return weakref.ref(extra)
    raise AssertionError("it was answered")
