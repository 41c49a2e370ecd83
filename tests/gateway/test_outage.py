"""The Auth service goes away and comes back: what callers are told meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import OpenApi
from gateway.whoami import WhoAmI
from scamp.authz import AuthzSource
from scamp.client import authz_fetcher
from scamp.testing import ScriptedPeer, make_identity, make_ticket, make_verifier, until
from scamp.testing.peer_connection import PeerRequest

TTL, GRACE, RETRY = 300.0, 900.0, 5.0
TABLE = b'{"test.echo": [1], "peer._events": [1], "_NAMES": [null, "echo"]}'
PROTECTED = ("/api/Test.echo", "/whoami", "/openapi.json", "/api/events/peer?code=price")


class Mesh:
    """A gateway before an Auth service that can be away, and a clock that we set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fetched = 0
        self.auth_service = ScriptedPeer(
            self._table, actions=("Auth.getAuthzTable",), flags="noauth,read"
        )
        peers = [
            ScriptedPeer(flags="read", identity=make_identity(1)),
            ScriptedPeer(actions=("Test.open",), flags="noauth", identity=make_identity(2)),
        ]
        self.source = AuthzSource(
            self._fetch, ttl=TTL, grace=GRACE, retry_interval=RETRY, clock=lambda: self.now
        )
        auth = Authenticator("enforce", make_verifier(), self.source)
        self.front = Fronted(self.auth_service, *peers, auth=auth)
        self._ticket = [("Authorization", f"Bearer {make_ticket(privileges=[1])}")]

    async def _fetch(self) -> bytes:
        return await authz_fetcher(self.front.mesh.requester)()

    async def _table(self, request: PeerRequest) -> None:
        self.fetched += 1
        await request.reply(TABLE)

    def leave(self) -> None:
        self.front.mesh.remove(self.auth_service)

    def come_back(self) -> None:
        self.front.mesh.announce(self.auth_service)

    async def ask(self, path: str = PROTECTED[0]) -> Answer:
        return await self.front.request("GET", path, self._ticket)

    async def settled(self) -> None:
        await until(lambda: self.source._task is None)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    async with made.front as front:
        registry, auth = front.mesh.registry, front.auth
        describing = OpenApi(registry, auth, Documentation(registry, front.mesh.requester))
        front.front.endpoints.add("/whoami", WhoAmI(auth, registry, sectors=("main",), timeout=5))
        front.front.endpoints.add("/openapi.json", describing)
        try:
            yield made
        finally:
            await describing.close()
            await made.source.close()


async def test_the_table_is_fetched_once_for_all_who_wait(mesh: Mesh) -> None:
    answers = await asyncio.gather(*(mesh.ask() for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert mesh.fetched == 1


async def test_an_old_table_serves_while_a_new_one_is_fetched(mesh: Mesh) -> None:
    await mesh.ask()
    mesh.now += TTL + 1
    assert (await mesh.ask()).status == 200
    await mesh.settled()
    assert mesh.fetched == 2
    assert mesh.source.age() == 0


async def test_an_outage_is_bridged_for_a_while_and_then_told(mesh: Mesh) -> None:
    for path in PROTECTED[:3]:
        assert (await mesh.ask(path)).status == 200
    mesh.leave()
    mesh.now += TTL + 1
    assert (await mesh.ask()).status == 200, "within grace"
    await mesh.settled()
    assert mesh.source.last_error is not None
    for path in PROTECTED[:3]:
        assert (await mesh.ask(path)).status == 200, path
    mesh.now += GRACE
    for path in PROTECTED:
        answer = await mesh.ask(path)
        assert (answer.status, answer.json()["code"]) == (503, "authorization_unavailable"), path
        assert answer.headers["Retry-After"] == str(int(RETRY))
        assert "Proxy-Status" in answer.headers
    assert (await mesh.front.request("POST", "/api/Test.open")).status == 200
    assert (await mesh.front.request("GET", "/openapi.json")).status == 200
    assert (await mesh.front.request("GET", "/api/Test.echo")).status == 401


async def test_who_waits_as_long_as_told_is_served_when_it_is_back(mesh: Mesh) -> None:
    mesh.leave()
    answer = await mesh.ask()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    mesh.come_back()
    mesh.now += RETRY - 1
    answer = await mesh.ask()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert mesh.fetched == 0, "it is not asked before its time"
    mesh.now += 1
    for path in PROTECTED[:3]:
        assert (await mesh.ask(path)).status == 200
