"""Every instance at once: what callers are told, and how soon they are served again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from scamp.client import ClientOptions
from scamp.client import connection as connection_module
from scamp.client import health as health_module
from scamp.client import instance as instance_module
from scamp.errors import ConnectFailed, ConnectTimeout, ScampError
from scamp.testing import (
    GO,
    Accepting,
    FaultProxy,
    Mesh,
    PeerRequest,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.scripts import begun, echo, hang_up

COUNT = 3


async def ask(mesh: Mesh, body: bytes = b"{}", timeout: float = 20.0) -> bytes:
    reply = await mesh.requester.request("Test.echo", body, timeout=timeout)
    return await reply.read_all()


class Proxied(Mesh):
    """Peers behind proxies, and a client of them."""

    peers: list[ScriptedPeer]
    proxies: list[FaultProxy]

    async def go_away(self, how: Accepting) -> None:
        for proxy in self.proxies:
            proxy.accepting = how
            proxy.reset()
        await until(lambda: not any(view.connections for view in self.views()))

    @property
    def out(self) -> int:
        return sum(view.state == "out" for view in self.views())

    @property
    def waiting(self) -> int:
        return sum(view.waiting for view in self.views())

    async def failing(self, calls: int) -> set[type[BaseException]]:
        """What that many calls at once fail with."""
        results = await asyncio.gather(
            *(ask(self, b"%d" % number) for number in range(calls)), return_exceptions=True
        )
        return {type(result) for result in results if isinstance(result, BaseException)}


@asynccontextmanager
async def proxied(options: ClientOptions) -> AsyncIterator[Proxied]:
    """All are connected."""
    async with AsyncExitStack() as stack:
        peers = [ScriptedPeer(identity=make_identity(number)) for number in range(COUNT)]
        proxies = []
        for peer in peers:
            await stack.enter_async_context(peer)
            proxy = FaultProxy((peer.host, peer.port))
            proxies.append(await stack.enter_async_context(proxy))
        announced = [proxy.before(peer) for proxy, peer in zip(proxies, peers, strict=True)]
        mesh = Proxied(*announced, options=options)
        await stack.enter_async_context(mesh)
        mesh.peers, mesh.proxies = peers, proxies
        while not all(peer.requests for peer in peers):
            await ask(mesh)
        yield mesh


@pytest.mark.parametrize("how", [Accepting.REFUSING, Accepting.RESETTING, Accepting.SILENT])
@pytest.mark.parametrize("back", [1, COUNT])
async def test_all_go_and_who_comes_back_is_used_at_once(
    how: Accepting, back: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the background would not look for a long time."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 60.0)
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.05)
    options = ClientOptions(connect_timeout=0.5, retry_minimum=0, retry_budget=0.0)
    async with proxied(options) as mesh:
        await mesh.go_away(how)
        while mesh.out < COUNT:
            for kind in await mesh.failing(10):
                assert issubclass(kind, ScampError)
        assert all(view.in_flight == view.waiting == 0 for view in mesh.views())
        for proxy in mesh.proxies[-back:]:
            proxy.accepting = Accepting.SERVING
        failed = 0
        async with asyncio.timeout(15):
            while True:
                try:
                    assert await ask(mesh, b"back") == b"back"
                    break
                except ScampError:
                    failed += 1
                await asyncio.sleep(health_module.PANIC_INTERVAL)
        assert failed <= COUNT + 1, "each is tried in its turn"
        executed = sum(peer.executed[b"back"] for peer in mesh.peers)
        assert executed == 1
        assert not await mesh.failing(20), "now that one is known to be up"
        assert mesh.in_flight == 0


async def test_who_joins_a_dial_that_comes_to_nothing_looks_elsewhere_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long it has lasted already, and whoever waited for it before."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 60.0)
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    async with proxied(ClientOptions(connect_timeout=0.3)) as mesh:
        await mesh.go_away(Accepting.SILENT)
        while mesh.out < COUNT:
            await mesh.failing(10)
        mesh.requester._dialer._timeout = 60.0
        first = asyncio.create_task(ask(mesh))
        await until(lambda: mesh.waiting)
        (stuck,) = (one.address for one in mesh.views() if one.waiting)
        first.cancel()
        await asyncio.wait([first])
        for proxy in mesh.proxies:
            if proxy.address != stuck:
                proxy.accepting = Accepting.SERVING
        monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.02)
        assert await ask(mesh, b"second", timeout=10.0) == b"second"


async def test_who_has_waited_in_vain_twice_may_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That was its first try, whoever else waited for the same connection."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 60.0)
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.01)
    options = ClientOptions(connect_timeout=0.5, retry_minimum=100)
    async with proxied(options) as mesh:
        for proxy, peer in list(zip(mesh.proxies, mesh.peers, strict=True))[1:]:
            mesh.remove(proxy.before(peer))
        await mesh.go_away(Accepting.SILENT)
        calls = [asyncio.create_task(ask(mesh, b"%d" % number)) for number in range(5)]
        await until(lambda: mesh.waiting == 5)
        (view,) = mesh.views()
        await until(
            lambda: mesh.requester._router._instances[view.fingerprint, view.identity].shunned
        )
        await until(lambda: mesh.waiting == 5)  # and now they have patience
        mesh.proxies[0].accepting = Accepting.SERVING
        assert await asyncio.gather(*calls) == [b"%d" % number for number in range(5)]
        assert mesh.requester.stats.retries == {"connect": 5}


async def test_behind_black_holes_everybody_gets_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.02)
    async with proxied(ClientOptions(connect_timeout=0.3)) as mesh:
        await mesh.go_away(Accepting.SILENT)
        assert await mesh.failing(50) <= {ConnectTimeout, ConnectFailed}
        accepted = sum(proxy.accepted for proxy in mesh.proxies)
        assert accepted <= COUNT * 8, "nobody dials for each request"
        assert mesh.in_flight == 0


async def test_the_last_try_does_not_wait_for_the_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last try wants a connection that cannot just be closing. An instance that is out for
    having lost some is dialled for it, whatever else is there."""
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 60.0)
    monkeypatch.setattr(connection_module, "RACE", -1.0)  # these are no races
    left, go_on = 2, asyncio.Event()

    async def act(request: PeerRequest) -> None:
        nonlocal left
        if request.body == b"bad" and left:
            left -= 1
            await hang_up(request)
        elif request.body == b"begun":
            await begun(b"x", go_on)(request)
        else:
            await echo(request)

    peer = ScriptedPeer(act, flags="noauth,read", manners=GO)
    async with Mesh(peer, options=ClientOptions(retry_minimum=10)) as mesh:
        calls = [asyncio.create_task(ask(mesh, b"begun")) for _ in range(4)]
        await peer.until(lambda: peer.requests == 4)
        go_on.set()
        await asyncio.gather(*calls)  # four connections that have answered
        assert await ask(mesh, b"bad", timeout=10.0) == b"bad"
        assert mesh.requester.stats.retries == {"lost": 2}


async def test_where_nobody_may_wait_the_first_connection_is_made_all_the_same() -> None:
    async with Mesh(ScriptedPeer(), options=ClientOptions(max_waiters=0)) as mesh:
        assert await ask(mesh, b"x") == b"x"
