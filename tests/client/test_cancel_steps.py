"""A caller that goes at any suspension of its own, or at any of a task that works for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from emptied import assert_tables_empty, quiet
from stepping import HOWS, How, every_step, in_any_task

from scamp.authz import AuthzSource
from scamp.client import ClientOptions, authz_fetcher, health
from scamp.errors import ReplyTimeout
from scamp.testing import ECHOING, GO, Manners, Mesh, ScriptedPeer, make_identity, until
from scamp.testing.events import Publisher
from scamp.testing.peer_connection import PeerRequest, Script
from scamp.testing.scripts import by_body, dispatch_failure, echo, first, hang_up, silent

OPTIONS: Final = ClientOptions(retry_minimum=100_000, max_connections=4)
LARGE: Final = bytes(150_000)


@dataclass(frozen=True)
class Case:
    """One kind of work; `at_least` suspensions are its own."""

    work: Callable[[Mesh], Coroutine[Any, Any, object]]
    at_least: int
    script: Callable[[], Script] = lambda: echo
    manners: Manners = ECHOING
    flags: str = "noauth,read"
    warm: bool = False
    """A connection is open before."""
    one_connection: bool = False
    gone: bool = False
    """There is another instance, which is chosen first and cannot be reached."""


async def call(mesh: Mesh, body: bytes = b"[1]") -> None:
    reply = await mesh.requester.request("Test.echo", body)
    assert await reply.read_all() == body


async def large(mesh: Mesh) -> None:
    await call(mesh, LARGE)


async def upload(mesh: Mesh) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(30_000)
            await asyncio.sleep(0)

    async with await mesh.requester.request("Test.echo", source()) as reply:
        assert len(await reply.read_all()) == 120_000


async def pieces(mesh: Mesh) -> None:
    """Read as it comes, with a limit between two pieces."""
    async with await mesh.requester.request("Test.echo", LARGE) as reply:
        size = 0
        while piece := await reply.read(5.0):
            size += len(piece)
    assert size == len(LARGE)


async def queued(mesh: Mesh) -> None:
    """Behind another one, which is not to be hurt."""
    other = asyncio.create_task(call(mesh, b"[other]"))
    try:
        await call(mesh)
    finally:
        await other


async def unanswered(mesh: Mesh) -> None:
    """What is given up is not over by itself."""
    with pytest.raises(ReplyTimeout):
        await mesh.requester.request("Test.echo", b"[0]", timeout=0.05)


async def subscription(mesh: Mesh) -> None:
    async with mesh.requester.subscribe("peer", ["price"]) as prices:
        assert prices.value("price", "a") == 1
        change = await anext(prices)
        assert (change.key, change.value) == ("a", 1)
        await prices.notify({"seen": 1})


async def privileges(mesh: Mesh) -> None:
    source = AuthzSource(authz_fetcher(mesh.requester, action="main:Test.echo~1"))
    other = asyncio.create_task(source.get())
    try:
        table = await source.get()
        assert table.required("test.echo") == frozenset((1,))
    finally:
        assert len(await other) == 1  # whoever else waits gets it
        await source.close()


def table() -> Script:
    async def script(request: PeerRequest) -> None:
        await request.reply(b'{"test.echo": [1]}')

    return script


CASES: Final[dict[str, Case]] = {
    "cold": Case(call, 2),
    "warm": Case(call, 1, warm=True),
    "renumbering": Case(call, 2, manners=GO),
    "large": Case(large, 4),
    "large renumbering": Case(large, 3, manners=GO, warm=True),
    "upload": Case(upload, 3),
    "upload renumbering": Case(upload, 3, manners=GO),
    "pieces": Case(pieces, 3, warm=True),
    "lost and sent again": Case(call, 4, script=lambda: first(1, hang_up)),
    "not dispatched": Case(call, 4, script=lambda: first(2, dispatch_failure), flags="noauth"),
    "unreachable": Case(call, 3, gone=True),
    "queued": Case(queued, 2, manners=GO, one_connection=True),
    "unanswered": Case(unanswered, 2, lambda: by_body({b"[0]": silent}), GO),
    "subscription": Case(subscription, 2, script=lambda: Publisher({"price": {"a": 1}})),
    "privileges": Case(privileges, 2, script=table),
}


@asynccontextmanager
async def standing(case: Case) -> AsyncIterator[tuple[Mesh, ScriptedPeer]]:
    """A client and what it calls, each time anew: nothing was learned before."""
    peer = ScriptedPeer(case.script(), manners=case.manners, flags=case.flags)
    connections = 1 if case.one_connection else OPTIONS.max_connections
    async with Mesh(peer, options=replace(OPTIONS, max_connections=connections)) as mesh:
        if case.gone:
            async with ScriptedPeer(identity=make_identity(1), weight=10_000) as gone:
                mesh.announce(gone)
        if case.warm:
            await call(mesh)
        yield mesh, peer
        assert peer.protocol_errors == []
        assert peer.aborted == 0  # never TXERR: some peers would act on half a request


async def check(case: Case, mesh: Mesh) -> None:
    """Nothing is left of what was cancelled, and the next call gets its own answer."""
    await mesh.settled()
    await until(lambda: not mesh.requester._uploads)
    await until(lambda: quiet(mesh))
    assert_tables_empty(mesh)
    if case.work not in (subscription, privileges):
        await call(mesh, b"[next]")
        await until(lambda: quiet(mesh))
        assert_tables_empty(mesh)
    assert mesh.requester.stats.stray_replies == 0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that is out is tried again soon."""
    monkeypatch.setattr(health, "BACKOFF_FIRST", 0.01)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", CASES)
async def test_cancelled_at_every_suspension(name: str, how: How) -> None:
    case = CASES[name]
    async for stepped in every_step(how, at_least=case.at_least):
        async with standing(case) as (mesh, _):
            await stepped.run(case.work(mesh))
            await check(case, mesh)


@pytest.mark.one_loop
@pytest.mark.parametrize("name", CASES)
async def test_cancelled_at_every_suspension_of_any_task(name: str) -> None:
    """Those of the tasks that dial, upload, fetch and recover, and of the service."""
    case = CASES[name]
    async for stepped in every_step(at_least=case.at_least):
        async with standing(case) as (mesh, _):
            with in_any_task(stepped):
                task = asyncio.create_task(case.work(mesh))
                stepped.cancel = task.cancel
                await asyncio.wait({task})
            if not task.cancelled():
                task.result()
            await check(case, mesh)
