"""What is over is gone: nothing waits for a collection of garbage, which comes late or never."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from scamp.client import ClientOptions, Requester
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer


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
