"""Nothing is executed twice, whatever becomes of connections and of the index at whatever moment.

Schedules of chance: everything that can go wrong behind a client goes wrong, again and again, and
the services count. That these tests can fail is shown by the last one, which takes the rule
away.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from emptied import assert_tables_empty, quiet

from scamp.client import Call, ClientOptions, Deadline
from scamp.client import health as health_module
from scamp.client import instance as instance_module
from scamp.client import requester as requester_module
from scamp.errors import ConnectFailed, ConnectionLost, QueueTimeout, RoutingError, ScampError
from scamp.testing import (
    ECHOING,
    GO,
    Accepting,
    FaultProxy,
    Link,
    Manners,
    Mesh,
    PeerRequest,
    ScriptedPeer,
    make_identity,
    until,
)
from scamp.testing.peer import body_key
from scamp.testing.scripts import dispatch_failure, echo, hang_up, slow, txerr

COUNT = 3
CLIENTS = 8
REQUESTS = 64
CALM = 3
"""One request in so many brings a fault about, so that a slow machine has as many as a fast one."""
SOON = 0.01
"""Seconds within which it comes; it is over after three times that, at the latest."""
OPTIONS = ClientOptions(
    connect_timeout=0.5, retry_minimum=100_000, body_idle=1.0, max_connections=4
)


@dataclass
class Told:
    """What callers were told of their requests."""

    right: int = 0
    wrong: list[bytes] = field(default_factory=list)
    failed: dict[bytes, ScampError] = field(default_factory=dict)

    def not_sent(self) -> set[bytes]:
        """Those of which it was said that nothing was sent."""
        return {
            body
            for body, error in self.failed.items()
            if isinstance(error, ConnectFailed | QueueTimeout | RoutingError)
            or (isinstance(error, ConnectionLost) and not error.written)
        }


class Storm:
    """Peers behind proxies, a client of them, and what goes wrong between."""

    def __init__(self, seed: int, manners: Manners, flags: str) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - to be repeatable
        self.told = Told()
        self.peers = [
            ScriptedPeer(self.act, manners=manners, flags=flags, identity=make_identity(number))
            for number in range(COUNT)
        ]
        self.proxies: list[FaultProxy] = []
        self.mesh = Mesh(options=OPTIONS)
        self.executed: Counter[bytes] = Counter()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Storm:
        await self._stack.enter_async_context(self.mesh)
        for peer in self.peers:
            await self._stack.enter_async_context(peer)
            proxy = FaultProxy((peer.host, peer.port))
            self.proxies.append(await self._stack.enter_async_context(proxy))
            self.mesh.announce(proxy.before(peer))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def act(self, request: PeerRequest) -> None:
        scripts = (hang_up, dispatch_failure, txerr("no"), slow(0.02))
        script = self.rng.choices((echo, *scripts), (70, 8, 8, 4, 10))[0]
        if script is not dispatch_failure:  # that one says that it was not
            self.executed[body_key(bytes(request.body))] += 1
        await script(request)

    # -- what goes wrong ----------------------------------------------------------------

    def fault(self) -> None:
        number = self.rng.randrange(COUNT)
        proxy, peer = self.proxies[number], self.peers[number]
        size = int(10 ** self.rng.uniform(0, 4))
        what = self.rng.randrange(7)
        later = self.rng.uniform(0, 3 * SOON)
        asyncio.get_running_loop().call_later(later, self.heal, number)
        if what == 0:
            proxy.reset()
        elif what == 1:
            proxy.cut_after(size, reset=self.rng.random() < 0.5)
        elif what == 2:
            for connection in proxy.connections:
                connection.to_service.cut_after(size, reset=self.rng.random() < 0.5)
        elif what == 3:
            proxy.accepting = self.rng.choice(list(Accepting))
        elif what == 4:
            proxy.use(to_client=Link(stalled=True), to_service=Link(stalled=True))
        elif what == 5:
            self.mesh.remove(proxy.before(peer))
        else:
            peer.weight = self.rng.choice((0, 1, 1, 7))
            self.mesh.announce(proxy.before(peer))

    def heal(self, number: int) -> None:
        self.proxies[number].heal()
        self.peers[number].weight = 1
        self.mesh.announce(self.proxies[number].before(self.peers[number]))

    # -- clients ------------------------------------------------------------------------

    async def run(self) -> None:
        """All requests, in the storm; then all is well again."""
        await asyncio.gather(*(self.client(number) for number in range(CLIENTS)))
        await asyncio.sleep(5 * SOON)  # the last fault, and its end

    async def client(self, number: int) -> None:
        for count in range(REQUESTS // CLIENTS):
            body = b'{"client":%d,"request":%d}' % (number, count)
            body += b" " * (self.rng.randrange(100_000) if self.rng.random() < 0.2 else 0)
            if count % CALM == 0:
                later = self.rng.uniform(0, SOON)
                asyncio.get_running_loop().call_later(later, self.fault)
            await self.ask(body)

    async def ask(self, body: bytes) -> None:
        offers = self.mesh.registry.find("main", "Test.echo")
        if not offers:
            await asyncio.sleep(SOON)
            return

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]
                await asyncio.sleep(0)

        streams = self.rng.random() < 0.2
        call = Call(
            offers=offers,
            body=pieces() if streams else body,
            deadline=Deadline.after(self.rng.uniform(0.1, 2.0)),
            retry_safe=all(offer.action.has("read") for offer in offers),
        )
        try:
            reply = await self.mesh.requester.send(call)
            async with reply:
                answer = await reply.read_all()
        except ScampError as exc:
            await asyncio.sleep(0)
            self.told.failed[body] = exc
            return
        if reply.failed or answer != body:
            self.told.wrong.append(body)
        else:
            self.told.right += 1

    def twice(self) -> list[bytes]:
        return [key for key, count in self.executed.items() if count > 1]

    def against(self) -> list[bytes]:
        """Executed, though it was said not to have been sent."""
        return [body for body in self.told.not_sent() if body_key(body) in self.executed]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "BACKOFF_FIRST", 0.02)
    monkeypatch.setattr(health_module, "BACKOFF_MAX", 0.1)
    monkeypatch.setattr(health_module, "PANIC_INTERVAL", 0.005)
    monkeypatch.setattr(instance_module, "DIAL_PATIENCE", 0.02)


WRITE, READ = "noauth,update", "noauth,read"


@pytest.mark.parametrize("manners", [GO, ECHOING], ids=["renumbering", "echoing"])
async def test_a_storm_executes_nothing_twice_and_leaves_nothing(manners: Manners) -> None:
    async with Storm(1, manners, WRITE) as storm:
        await storm.run()
        assert storm.twice() == []
        assert storm.against() == []
        assert storm.told.wrong == []
        assert storm.told.right
        assert storm.told.failed, "or it was none"
        stats = storm.mesh.requester.stats
        assert stats.attempts <= 3 * stats.requests
        await storm.mesh.settled()
        await until(lambda: quiet(storm.mesh))
        assert_tables_empty(storm.mesh)
        for _ in range(COUNT * 5):
            await until(lambda: any(view.state == "up" for view in storm.mesh.views()))
            await storm.ask(b"after")
        assert not [instance for instance in storm.mesh.views() if instance.waiting]


@pytest.mark.parametrize("manners", [GO, ECHOING], ids=["renumbering", "echoing"])
async def test_what_reads_is_tried_three_times_at_most(manners: Manners) -> None:
    async with Storm(3, manners, READ) as storm:
        await storm.run()
        assert storm.told.wrong == []
        assert storm.told.right
        assert set(storm.executed.values()) <= {1, 2, 3}
        assert storm.mesh.requester.stats.retries.total()


async def test_without_the_rule_things_are_executed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(error: ScampError, call: Call) -> str | None:
        return "lost" if isinstance(error, ConnectionLost) else None

    monkeypatch.setattr(requester_module, "retry_reason", careless)
    async with Storm(1, ECHOING, WRITE) as storm:
        await storm.run()
        assert storm.twice()
