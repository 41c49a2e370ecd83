"""A bad network between the gateway and services: each fault has the answer that is promised, reads
go on, nothing else is done twice, and what was cut never looks whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest

from fronted import Answer, Fronted, Wire
from gateway.front import FrontOptions
from scamp.client import ClientOptions
from scamp.client import health as health_module
from scamp.errors import ConnectionLost
from scamp.testing import (
    GO,
    Accepting,
    FaultProxy,
    Link,
    Manners,
    Mesh,
    PeerRequest,
    Script,
    ScriptedPeer,
    until,
)
from scamp.testing.manners import ECHOING
from scamp.testing.scripts import echo

HOLE: Final = Link(drops=True)
BRIEF: Final = FrontOptions(request_timeout=0.3, body_idle=0.3)
NO_RETRY: Final = ClientOptions(retries=0, connect_timeout=0.3)
GENEROUS: Final = ClientOptions(retry_minimum=100, connect_timeout=0.3)
"""With retries for everybody who needs one."""
LARGE: Final = 400_000

Fault = Callable[[FaultProxy], None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that is out may be tried again at once when there is no other."""
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.0)


@dataclass
class Rig:
    """A gateway, and services that it reaches through proxies."""

    gateway: Fronted
    peers: list[ScriptedPeer]
    proxies: list[FaultProxy]

    @property
    def executed(self) -> int:
        """Complete requests that came to services."""
        return sum(peer.requests for peer in self.peers)

    async def post(self, body: bytes = b"[1]", **fields: str) -> Answer:
        async with asyncio.timeout(20):
            return await self.gateway.request("POST", "/api/Test.echo", fields.items(), body)

    def heal(self) -> None:
        """As it was, with new connections where there were faults."""
        for proxy in self.proxies:
            proxy.heal()
            proxy.reset()

    async def empty(self) -> None:
        """Nothing is remembered of what went wrong."""
        mesh = self.gateway.mesh
        await mesh.settled()
        await until(lambda: not self.gateway.front.in_flight)
        await until(lambda: not mesh.requester._uploads)
        for instance in mesh.requester._router._instances.values():
            assert instance._pool.waiting == 0
            for connection in instance.connections:
                assert connection._exchanges == {}
                assert connection.in_flight == connection._unwanted == 0


@asynccontextmanager
async def rig(
    script: Script = echo,
    *,
    instances: int = 1,
    flags: str = "noauth",
    manners: Manners = ECHOING,
    client: ClientOptions | None = None,
    options: FrontOptions | None = None,
) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        peers = [ScriptedPeer(script, flags=flags, manners=manners) for _ in range(instances)]
        proxies = []
        for peer in peers:
            await stack.enter_async_context(peer)
            proxy = FaultProxy((peer.host, peer.port))
            proxies.append(await stack.enter_async_context(proxy))
        behind = [proxy.before(peer) for proxy, peer in zip(proxies, peers, strict=True)]
        gateway = Fronted(*behind, client=client, options=options)
        await stack.enter_async_context(gateway)
        yield Rig(gateway, peers, proxies)


def told(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.whole
    assert b"127.0.0.1" not in answer.body


# -- never sent ---------------------------------------------------------------------------


def accepting(how: Accepting) -> Fault:
    def fault(proxy: FaultProxy) -> None:
        proxy.accepting = how

    return fault


def unreachable(proxy: FaultProxy) -> None:
    proxy.target = ("127.0.0.1", 1)


def deaf(proxy: FaultProxy) -> None:
    proxy.use(to_client=HOLE)


NEVER_SENT: Final = {
    "refused": (accepting(Accepting.REFUSING), 502, "connect_failed"),
    "reset": (accepting(Accepting.RESETTING), 502, "connect_failed"),
    "unreachable": (unreachable, 502, "connect_failed"),
    "silent": (accepting(Accepting.SILENT), 504, "connect_timeout"),
    "nothing comes back": (deaf, 504, "connect_timeout"),
}


@pytest.mark.parametrize(("fault", "status", "code"), NEVER_SENT.values(), ids=NEVER_SENT)
async def test_what_was_never_sent(fault: Fault, status: int, code: str) -> None:
    async with rig(client=NO_RETRY) as made:
        proxy, target = made.proxies[0], made.proxies[0].target
        fault(proxy)
        told(await made.post(), status, code)
        assert made.executed == 0
        proxy.target = target
        made.heal()
        assert (await made.post()).body == b"[1]"
        await made.empty()


@pytest.mark.parametrize("fault", [one[0] for one in NEVER_SENT.values()], ids=NEVER_SENT)
async def test_what_was_never_sent_goes_elsewhere(fault: Fault) -> None:
    """Whatever the method: nobody can have executed it."""
    async with rig(instances=2, client=GENEROUS) as made:
        fault(made.proxies[0])
        bodies = [b"[%d]" % number for number in range(12)]
        answers = await asyncio.gather(*(made.post(body) for body in bodies))
        assert [answer.body for answer in answers] == bodies
        assert made.peers[1].executed == dict.fromkeys(bodies, 1)
        await made.empty()


# -- lost before the reply ----------------------------------------------------------------


def reset(proxy: FaultProxy) -> None:
    proxy.reset()


def close(proxy: FaultProxy) -> None:
    for connection in proxy.connections:
        connection.close()


def cut(proxy: FaultProxy) -> None:
    """Within the TLS record that brings the reply's HEADER."""
    proxy.cut_after(20)


def cut_by_reset(proxy: FaultProxy) -> None:
    proxy.cut_after(20, reset=True)


def end_one_direction(proxy: FaultProxy) -> None:
    for connection in proxy.connections:
        connection.to_client.end()


LOST: Final = {fault.__name__: fault for fault in (reset, close, cut, cut_by_reset)}
LOST["end of one direction"] = end_one_direction


@dataclass
class Holding:
    """Answers when it may; `size` bytes, or what it was sent."""

    size: int | None = None
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: PeerRequest) -> None:
        await self.go_on.wait()
        await request.reply(bytes(request.body) if self.size is None else bytes(self.size))


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_what_was_written_is_not_sent_again(fault: Fault, manners: Manners) -> None:
    script = Holding()
    async with rig(script, instances=2, manners=manners) as made:
        asked = [asyncio.create_task(made.post(b"[%d]" % number)) for number in range(6)]
        await until(lambda: made.executed == 6)
        for proxy in made.proxies:
            fault(proxy)
        script.go_on.set()
        for task in asked:
            told(await task, 502, "connection_lost")
        assert made.executed == 6
        assert (await made.post(b"[7]")).body == b"[7]"
        await made.empty()


@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_read_that_was_written_is_sent_again(fault: Fault, manners: Manners) -> None:
    script = Holding()
    async with rig(
        script, instances=2, flags="noauth,read", manners=manners, client=GENEROUS
    ) as made:
        asked = [asyncio.create_task(made.post(b"[%d]" % number)) for number in range(6)]
        await until(lambda: made.executed == 6)
        for proxy in made.proxies:
            fault(proxy)
        script.go_on.set()
        assert [(await task).body for task in asked] == [b"[%d]" % number for number in range(6)]
        assert made.executed == 12
        await made.empty()


@pytest.mark.parametrize("flags", ["noauth", "noauth,read"])
async def test_a_body_that_is_not_held_is_not_sent_again(flags: str) -> None:
    """More than 64 KiB: it cannot be, whatever the action."""
    script = Holding(10)
    async with rig(script, instances=2, flags=flags) as made:
        asked = asyncio.create_task(made.post(bytes(LARGE)))
        await until(lambda: made.executed == 1)
        for proxy in made.proxies:
            proxy.reset()
        told(await asked, 502, "connection_lost")
        assert made.executed == 1
        await made.empty()


async def test_an_upload_that_is_cut_is_not_acted_on() -> None:
    async with rig(instances=2, options=BRIEF) as made:
        for proxy in made.proxies:
            proxy.use(to_service=Link(rate=200_000))
        asked = asyncio.create_task(made.post(bytes(LARGE)))
        await until(lambda: any(proxy.bytes_to_service > 50_000 for proxy in made.proxies))
        for proxy in made.proxies:
            proxy.reset()
        told(await asked, 502, "connection_lost")
        assert made.executed == 0
        await made.empty()


# -- a black hole -------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["noauth", "noauth,read"])
@pytest.mark.parametrize("both", [False, True])
async def test_no_answer_through_a_black_hole(flags: str, both: bool) -> None:
    """Half open: each side takes the other for there. What follows has a new connection."""
    async with rig(flags=flags, options=BRIEF) as made:
        await made.post(b"[0]")
        (proxy,) = made.proxies
        proxy.use(to_service=HOLE if both else None, to_client=HOLE)
        told(await made.post(), 504, "reply_timeout")
        assert made.executed == (1 if both else 2)
        proxy.heal()
        assert (await made.post(b"[2]")).body == b"[2]"
        assert proxy.accepted == 2
        await made.empty()


async def test_an_upload_into_a_black_hole_stalls() -> None:
    async with rig(options=BRIEF, client=ClientOptions(body_idle=0.3)) as made:
        await made.post()
        made.proxies[0].use(to_service=Link(stalled=True))
        told(await made.post(bytes(10 * LARGE)), 504, "upstream_stalled")
        made.heal()
        assert (await made.post(b"[2]")).body == b"[2]"
        await made.empty()


# -- cut after the first byte -------------------------------------------------------------


def stall(proxy: FaultProxy) -> None:
    proxy.use(to_client=Link(stalled=True))


def swallow(proxy: FaultProxy) -> None:
    proxy.use(to_client=HOLE)


BEGUN: Final = {**LOST, "stalled": stall, "swallowed": swallow}


async def until_cut(wire: Wire) -> bytes:
    """The rest of a chunked body that has no end."""
    got = b""
    try:
        while piece := await wire.chunk():
            got += piece
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return got
    raise AssertionError("it looks whole")


@pytest.mark.parametrize("flags", ["noauth", "noauth,read"])
@pytest.mark.parametrize("fault", BEGUN.values(), ids=BEGUN)
async def test_a_reply_that_is_cut_never_looks_whole(fault: Fault, flags: str) -> None:
    pattern = random.Random(1).randbytes(LARGE)  # noqa: S311 - not a secret
    go_on = asyncio.Event()

    async def script(request: PeerRequest) -> None:
        reply = request.open()
        await reply.write(pattern[: LARGE // 2])
        await go_on.wait()
        await reply.write(pattern[LARGE // 2 :])
        reply.end()

    async with rig(script, flags=flags, options=BRIEF) as made:
        wire = await made.gateway.connect()
        wire.send("POST", "/api/Test.echo", body=b"[1]")
        status, _ = await wire.head()
        assert status == 200
        got = await wire.chunk()
        while len(got) < LARGE // 2:
            got += await wire.chunk()
        fault(made.proxies[0])
        go_on.set()
        got += await until_cut(wire)
        assert pattern.startswith(got)
        assert len(got) < LARGE
        assert made.executed == 1
        assert made.gateway.log.lines[-1]["cause"] == "reply_broken_off"
        go_on.set()
        made.heal()
        assert (await made.post()).body == pattern
        await made.empty()


# -- slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [Link(delay=0.01), Link(rate=5e6)], ids=["delay", "rate"])
@pytest.mark.parametrize("manners", [ECHOING, GO], ids=["echoing", "renumbering"])
async def test_a_slow_network_is_only_slow(link: Link, manners: Manners) -> None:
    rng = random.Random(2)  # noqa: S311 - not a secret
    async with rig(instances=2, manners=manners) as made:
        for proxy in made.proxies:
            proxy.use(to_service=link, to_client=link)
        bodies = [rng.randbytes(rng.choice((10, 60_000, LARGE))) for _ in range(12)]
        answers = await asyncio.gather(*(made.post(body) for body in bodies))
        assert [answer.body for answer in answers] == bodies
        assert made.executed == len(bodies)
        await made.empty()


# -- without HTTP ---------------------------------------------------------------------------


async def test_a_requester_is_never_given_a_part_for_the_whole() -> None:
    """Cuts at many places of one reply: an error each time."""
    pattern = random.Random(3).randbytes(100_000)  # noqa: S311 - not a secret

    async def script(request: PeerRequest) -> None:
        await request.reply(pattern if request.body == b"large" else b"small")

    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(ScriptedPeer(script))
        proxy = await stack.enter_async_context(FaultProxy((peer.host, peer.port)))
        mesh = Mesh(proxy.before(peer), options=ClientOptions(retries=0))
        requester = (await stack.enter_async_context(mesh)).requester
        for size in (0, 1, 30, 100, 1000, 20_000, 65_600, 70_000, 99_000, 100_000):
            reply = await requester.request("Test.echo", b"small")
            assert await reply.read_all() == b"small"
            proxy.cut_after(size)
            with pytest.raises(ConnectionLost):
                await (await requester.request("Test.echo", b"large")).read_all()
        await mesh.settled()
