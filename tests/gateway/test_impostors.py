"""Whoever shows another certificate than was announced gets no byte of a request, whichever part of
the gateway calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fronted import Answer, Fronted
from gateway.auth import Authenticator
from gateway.openapi.documentation import Documentation
from gateway.openapi.endpoint import OpenApi
from scamp.authz import AuthzSource
from scamp.client import ClientOptions, authz_fetcher, health
from scamp.testing import ScriptedPeer, make_identity, make_ticket, make_verifier, until
from scamp.testing.events import Publisher

EVERYTHING = ("Test.echo", "_meta.documentation", "Auth.getAuthzTable")
TICKET = [("Authorization", f"Bearer {make_ticket(privileges=[1])}")]


@pytest.fixture(autouse=True)
def no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody dials in the background meanwhile: what is counted is what requests made."""
    monkeypatch.setattr(health, "BACKOFF_FIRST", 60.0)


@asynccontextmanager
async def front_of(*peers: ScriptedPeer, **options: Any) -> AsyncIterator[Fronted]:
    """A gateway with all that calls services."""

    async def fetch() -> bytes:
        return await authz_fetcher(front.mesh.requester)()

    source = AuthzSource(fetch)
    auth = Authenticator("enforce", make_verifier(), source)
    async with Fronted(*peers, auth=auth, events_open=("peer",), **options) as front:
        registry = front.mesh.registry
        openapi = OpenApi(registry, auth, Documentation(registry, front.mesh.requester))
        front.front.endpoints.add("/openapi.json", openapi)
        try:
            yield front
        finally:
            await openapi.close()
            await source.close()


def told(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.json()["code"]) == (status, code)


def mismatches(front: Fronted) -> float:
    name = 'scamp_gateway_connect_failures_total{reason="fingerprint"} '
    (line,) = [one for one in front.scrape().splitlines() if one.startswith(name)]
    return float(line.removeprefix(name))


def impostor(**options: Any) -> ScriptedPeer:
    """Listens where another was announced."""
    given: dict[str, Any] = {"actions": EVERYTHING, "flags": "noauth,read", **options}
    return ScriptedPeer(**given, shows=make_identity(1))


async def test_a_call_is_not_sent_and_not_tried_there_again() -> None:
    peer = impostor()
    async with front_of(peer) as front:
        answer = await front.request("POST", "/api/Test.echo", body=b'{"secret":1}')
        told(answer, 502, "fingerprint_mismatch")
        assert (peer.bytes_received, mismatches(front)) == (0, 1)
        told(await front.request("GET", "/api/Test.echo"), 503, "no_usable_instance")
        assert (peer.bytes_received, mismatches(front)) == (0, 1)


async def test_a_body_that_streams_stays_here_too() -> None:
    peer = impostor()
    async with front_of(peer) as front:
        answer = await front.request("POST", "/api/Test.echo", body=bytes(200_000))
        told(answer, 502, "fingerprint_mismatch")
        assert peer.bytes_received == 0


async def test_the_ticket_is_not_shown() -> None:
    """With the privilege table from a good one."""
    auth = ScriptedPeer(
        _table, actions=("Auth.getAuthzTable",), flags="noauth,read", identity=make_identity(2)
    )
    peer = impostor(actions=("Test.echo",), flags="read")
    async with front_of(auth, peer) as front:
        told(await front.request("GET", "/api/Test.echo", TICKET), 502, "fingerprint_mismatch")
        assert (peer.bytes_received, mismatches(front)) == (0, 1)


async def _table(request: Any) -> None:
    await request.reply(b'{"test.echo": [1]}')


@pytest.mark.parametrize("flags", ["noauth,read", "noauth,update"])
async def test_any_call_goes_to_another_instance_instead(flags: str) -> None:
    bad, good = impostor(flags=flags, weight=1000), ScriptedPeer(flags=flags)
    async with front_of(bad, good) as front:
        for number in range(6):
            body = b"[%d]" % number
            answer = await front.request("POST", "/api/Test.echo", body=body)
            assert (answer.status, answer.body) == (200, body)
        assert (bad.bytes_received, good.requests) == (0, 6)
        assert mismatches(front) == 1
        assert [line["attempts"] for line in front.log.lines] == [2, 1, 1, 1, 1, 1]


async def test_events_are_not_asked_for() -> None:
    peer = impostor()
    async with front_of(peer) as front:
        answer = await front.request("GET", "/api/events/peer?code=price")
        told(answer, 502, "fingerprint_mismatch")
        assert (peer.bytes_received, mismatches(front)) == (0, 1)


async def test_the_privilege_table_is_not_taken_from_it() -> None:
    table = impostor(script=_table, actions=("Auth.getAuthzTable",))
    peer = ScriptedPeer(flags="read", identity=make_identity(2))
    async with front_of(table, peer) as front:
        for path in ("/api/Test.echo", "/openapi.json"):
            answer = await front.request("GET", path, TICKET)
            told(answer, 503, "authorization_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        assert (table.bytes_received, peer.accepted, mismatches(front)) == (0, 0, 1)


async def test_it_is_not_asked_to_describe_itself() -> None:
    peer = impostor()
    async with front_of(peer) as front:
        answer = await front.request("GET", "/openapi.json")
        assert answer.status == 200
        assert "/api/Test.echo" in answer.json()["paths"]
        assert (peer.bytes_received, mismatches(front)) == (0, 1)


@pytest.mark.parametrize("resume", [False, True], ids=["in full", "with a session"])
@pytest.mark.parametrize("how", ["call", "events"])
async def test_an_address_that_another_has_taken_over(how: str, resume: bool) -> None:
    """The first connection was good, and left a TLS session; behind the next one is somebody
    else."""
    actions, flags = ("Test.echo",), "noauth,read"
    publisher = Publisher({"price": {"a": 1}})
    good = ScriptedPeer({"Test.echo": _echo}, actions=actions, flags=flags)
    if how == "events":
        good = ScriptedPeer(publisher, actions=actions, flags=flags)
    client = ClientOptions(resume_tls=resume)
    async with front_of(good, client=client) as front:
        if how == "call":
            assert (await front.request("GET", "/api/Test.echo")).status == 200
        else:
            wire = await front.connect()
            wire.send("GET", "/api/events/peer?code=price")
            await wire.reader.readuntil(b"snapshot")
        taker = ScriptedPeer(actions=actions, flags=flags, shows=make_identity(1))
        taker.port = good.port
        good.stop_listening()
        async with taker:
            await good.cut()
            if how == "call":
                await until(lambda: mismatches(front))
                answer = await front.request("POST", "/api/Test.echo", body=b"[2]")
                assert answer.status in (502, 503)
                assert answer.json()["code"] in ("fingerprint_mismatch", "no_usable_instance")
            else:
                await wire.reader.readuntil(b"stale")
                await until(lambda: mismatches(front))
                await wire.close()
            assert taker.bytes_received == 0


async def _echo(request: Any) -> None:
    await request.reply(bytes(request.body))
